// Three ways through a product. Packed: blocks of rows by columns; b in panels of a tile's columns. Streamed, where b's
// rows are contiguous and there are few rows or little depth: b as it is, a few of its rows at a time along all columns
// of a block. Turned, where b's columns are contiguous and there are hardly any rows: b as it is, transposed in
// registers.
#include "ops/matmul.h"

#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/conv/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv_pack.h"
#include "ops/conv_plan.h"

namespace fastconv {
namespace {

constexpr std::int64_t kRowBlock = 96;
template <class T>
constexpr std::int64_t kColumnBlock = 1024 / static_cast<std::int64_t>(sizeof(T));
constexpr std::int64_t kCrowdedPanels = 3;  // panels of columns that make up for copying rows that crowd a cache set
constexpr std::int64_t kFetchSteps = 64;    // of the depth, between lines that are asked for
constexpr std::int64_t kMostLines = 512;    // that are asked for during a tile
constexpr std::int64_t kStreamedRows = 16;  // most rows of a product that is streamed
constexpr std::int64_t kTurnedRows = 4;     // most rows of one whose b is transposed on the way
constexpr std::int64_t kStreamedDepth = 8;  // rows of b that are read side by side
constexpr std::int64_t kStreamedColumns = 512, kTurnedColumns = 128;

template <class S>
class Product {
  using T = Compute<S>;

 public:
  explicit Product(const MatrixProduct<S>& product)
      : p_(product), transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())) {
    depth_block_ = balanced(p_.depth, kReductionBlock);
    in_rows_ = is_wide<S> && p_.a.column == 1;
  }

  void run() {
    const bool stream =
        is_wide<S> && p_.b.column == 1 && p_.c.column == 1 && (p_.rows <= kStreamedRows || p_.depth <= kStreamedDepth);
    if (stream)
      run_streamed();
    else if (is_wide<S> && p_.b.row == 1 && p_.rows <= kTurnedRows)
      run_turned();
    else
      run_packed();
  }

 private:
  struct Block {
    std::int64_t row, rows, column, columns;
  };

  // Calls body(block, next) for every block of at most rows x columns of the first `all_columns`, whose rows and
  // columns are multiples of `row_unit` and `unit`; smaller blocks of columns where there would be too few for several
  // threads. `next` is the block that the same thread will probably take next.
  template <class Body>
  void for_blocks(std::int64_t rows, std::int64_t row_unit, std::int64_t all_columns, std::int64_t columns,
                  std::int64_t unit, Body&& body) {
    const std::int64_t height = std::min(rows, rounded_up(balanced(p_.rows, rows), row_unit));
    const std::int64_t row_blocks = ceil_div(p_.rows, height), threads = get_num_threads();
    while (threads > 1 && columns > unit && row_blocks * ceil_div(all_columns, columns) < 4 * threads)
      columns = rounded_up(columns / 2, unit);
    const std::int64_t column_blocks = ceil_div(all_columns, columns);
    // Each number of b costs a few nanoseconds to fetch or pack, besides what is done with it.
    const double steps = static_cast<double>(all_columns) * static_cast<double>(p_.depth);
    const double nanoseconds = steps * (0.1 * static_cast<double>(row_blocks) +
                                        static_cast<double>(p_.rows) * static_cast<double>(sizeof(T)) / 64.0);
    const std::int64_t items = row_blocks * column_blocks;
    const auto block_of = [&](std::int64_t item) {
      const std::int64_t row = item / column_blocks * height, column = item % column_blocks * columns;
      return Block{row, std::min(height, p_.rows - row), column, std::min(columns, all_columns - column)};
    };
    parallel_for({items, nanoseconds}, subnormals_of(DtypeOf<T>::value),
                 [&](std::int64_t item) { body(block_of(item), block_of(std::min(item + threads, items - 1))); });
  }

  // The rows of a block of a, their numbers side by side: in place if `packed` is null, else packed.
  void list_rows(const Block& block, std::int64_t k0, std::int64_t depth, T* packed, const T** rows) const {
    const Matrix<const S>& a = p_.a;
    if constexpr (is_wide<S>) {
      if (!packed) {
        for (std::int64_t m = 0; m < block.rows; ++m) rows[m] = a.at(block.row + m, k0);
        return;
      }
    }
    if (a.column == 1) {
      for (std::int64_t m = 0; m < block.rows; ++m) widen_run(a.at(block.row + m, k0), packed + m * depth, depth);
    } else if (a.row == 1) {
      widen_transposed(transpose_, depth, block.rows, a.at(block.row, k0), a.column, packed, depth);
    } else {
      for (std::int64_t m = 0; m < block.rows; ++m)
        for (std::int64_t k = 0; k < depth; ++k) packed[m * depth + k] = widen(*a.at(block.row + m, k0 + k));
    }
    for (std::int64_t m = 0; m < block.rows; ++m) rows[m] = packed + m * depth;
  }

  // Lists a share of the lines of a that are needed next, up to a limit; returns the end of the list.
  const void** list_lines(const Block& block, std::int64_t k0, std::int64_t depth, std::int64_t share,
                          std::int64_t shares, const void** list, const void* const* limit) const {
    constexpr std::int64_t line = kLineBytes / static_cast<std::int64_t>(sizeof(S));
    for (std::int64_t m = block.rows * share / shares; m < block.rows * (share + 1) / shares; ++m) {
      const S* const row = p_.a.at(block.row + m, k0);
      for (std::int64_t k = 0; k < depth && list < limit; k += line) *list++ = row + k;
    }
    return list;
  }

  // With several blocks of rows, b is packed once for all of them, as many columns at a time as scratch may hold.
  void run_packed() {
    const ConvKernel& kernel = select_conv(DtypeOf<T>::value, p_.columns, active_isa_mask());
    const std::int64_t cols = kernel.tile_cols, panels = ceil_div(p_.columns, cols), panel = p_.depth * cols;
    const std::int64_t at_once = std::min(panels, kMostElements<T> / std::max<std::int64_t>(panel, 1));
    if (p_.rows <= kRowBlock || at_once == 0) return run_blocks(kernel, 0, p_.columns, nullptr);
    Workspace<T> packed(at_once * panel);
    for (std::int64_t first = 0; first < panels; first += at_once) {
      const std::int64_t count = std::min(at_once, panels - first), column = first * cols;
      const Work packing{count, 0.3 * static_cast<double>(count * panel)};
      parallel_for(packing, subnormals_of(DtypeOf<T>::value), [&](std::int64_t i) {
        const std::int64_t n0 = column + i * cols;
        const Block block{0, 0, n0, std::min(cols, p_.columns - n0)};
        for (std::int64_t k0 = 0; k0 < p_.depth; k0 += depth_block_)
          pack_panels(block, k0, std::min(depth_block_, p_.depth - k0), cols, 1, packed + i * panel + k0 * cols);
      });
      run_blocks(kernel, column, std::min(count * cols, p_.columns - column), packed);
    }
  }

  // The results of some columns; `once` holds b's panels of them, depth block after depth block, or is null.
  void run_blocks(const ConvKernel& kernel, std::int64_t column, std::int64_t columns, const T* once) {
    const std::int64_t cols = kernel.tile_cols;
    const std::int64_t span = std::max<std::int64_t>(1, kColumnBlock<T> / cols) * cols;
    // A tile's columns alone, and little depth: a block would be hardly worth its preparation.
    const bool tall = columns <= cols && p_.depth <= kReductionBlock && p_.rows >= 16 * kRowBlock * get_num_threads();
    const std::int64_t most_rows = tall ? 4 * kRowBlock : kRowBlock;
    for_blocks(most_rows, kernel.tile_rows, columns, span, cols, [&](Block block, const Block& next) {
      const std::int64_t panels = ceil_div(block.columns, cols), panel = block.column / cols;
      block.column += column;
      // Whole panels of contiguous columns are written where they belong, but only the last sums: rows may lie a power
      // of two apart, where caches have no room for them to come back to.
      const bool crowded = p_.a.row != 0 && p_.a.row * static_cast<std::int64_t>(sizeof(T)) % kPageBytes == 0 &&
                           panels >= kCrowdedPanels;
      const bool in_place = in_rows_ && !crowded, finishes = p_.bias || p_.finish.changes();
      const bool direct = is_wide<S> && p_.c.column == 1 && block.columns % cols == 0, parts = p_.depth > depth_block_;
      const std::int64_t scratch_step = panels * cols, line = kLineBytes / static_cast<std::int64_t>(sizeof(T));
      Workspace<T> scratch(direct && !parts ? 0 : block.rows * scratch_step);
      Workspace<T> packed(once ? 0 : panels * depth_block_ * cols), turned(in_place ? 0 : block.rows * depth_block_);
      T* result = scratch;
      std::int64_t ldc = scratch_step;
      std::vector<const T*> rows(static_cast<std::size_t>(block.rows));
      const void* lines[kMostLines + kReductionBlock / kFetchSteps];  // and what makes shares equal
      for (std::int64_t k0 = 0; k0 < p_.depth; k0 += depth_block_) {
        const std::int64_t depth = std::min(depth_block_, p_.depth - k0);
        const bool last = k0 + depth == p_.depth;
        list_rows(block, k0, depth, in_place ? nullptr : turned.data(), rows.data());
        if (!once) pack_panels(block, k0, depth, cols, panels, packed);
        if constexpr (is_wide<S>) {
          if (direct && last) {
            result = p_.c.at(block.row, block.column);
            ldc = p_.c.row;
          }
        }
        // The next depth of the same rows, or the first of the next ones.
        const Block& coming = last ? next : block;
        const std::int64_t coming_k = last ? 0 : k0 + depth;
        const bool more = p_.a.column == 1 && !(last && next.row == block.row);
        // With something to ask for, short segments, a few lines before each: all at once they would be more than a
        // core can wait for at a time.
        std::vector<Segment> segments;
        const std::int64_t steps = more ? kFetchSteps : depth;
        for (std::int64_t k = 0; k < depth; k += steps) segments.push_back({k, k, std::min(steps, depth - k)});
        const auto segment_count = static_cast<std::int64_t>(segments.size());
        const std::int64_t tiles = panels * std::max<std::int64_t>(1, block.rows / kernel.tile_rows);  // whole ones
        std::int64_t tile = 0;
        for (std::int64_t i = 0; i < panels; ++i) {
          const T* const b = once ? once + ((panel + i) * p_.depth + k0) * cols : packed + i * depth * cols;
          for (std::int64_t m = 0; m < block.rows; m += kernel.tile_rows) {
            const std::int64_t height = std::min<std::int64_t>(kernel.tile_rows, block.rows - m);
            T* const c = result + m * ldc + i * cols;
            const bool whole = height == kernel.tile_rows;
            const void** end = lines;
            for (std::int64_t r = 0; whole && direct && last && r < height; ++r)
              for (std::int64_t n = 0; n < cols; n += line) *end++ = c + r * ldc + n;
            if (whole && more)
              end = list_lines(coming, coming_k, std::min(depth_block_, p_.depth - coming_k), tile++, tiles, end,
                               lines + kMostLines);
            const std::int64_t each = ceil_div(end - lines, segment_count);
            std::fill(end, lines + each * segment_count, lines[0]);
            const T* const sums = k0 > 0 ? scratch + m * scratch_step + i * cols : nullptr;
            const GemmArgs<T> args{rows.data() + m, b,   segments.data(), segment_count, c, ldc, sums, scratch_step,
                                   lines,           each};
            (whole ? kernel.fetching : kernel.gemm[height - 1])(&args);
          }
          // While they are in the first-level cache.
          if (direct && last && finishes)
            p_.finish.rows(result + i * cols, ldc, block.rows, block.column + i * cols, cols, p_.bias);
        }
      }
      if (direct) return;
      const bool changes = p_.finish.changes();
      if (changes) finish(result, ldc, block);
      store_run<S>(transpose_, result, ldc, block.rows, block.columns,
                   p_.bias && !changes ? p_.bias + block.column : nullptr, p_.c.at(block.row, block.column), p_.c.row,
                   p_.c.column);
    });
  }

  // Panel i at i * depth * cols: [depth][column], zero columns past the last.
  void pack_panels(const Block& block, std::int64_t k0, std::int64_t depth, std::int64_t cols, std::int64_t panels,
                   T* packed) const {
    const Matrix<const S>& b = p_.b;
    for (std::int64_t k = 0; b.column == 1 && k < depth; ++k) {  // along b's rows, through all panels
      const S* row = b.at(k0 + k, block.column);
      for (std::int64_t i = 0; i < panels; ++i)
        widen_run(row + i * cols, packed + (i * depth + k) * cols, std::min(cols, block.columns - i * cols));
    }
    for (std::int64_t i = 0; i < panels; ++i) {
      const std::int64_t n0 = block.column + i * cols, live = std::min(cols, block.columns - i * cols);
      T* panel = packed + i * depth * cols;
      for (std::int64_t k = 0; live < cols && k < depth; ++k)
        std::fill(panel + k * cols + live, panel + (k + 1) * cols, T(0));
      if (b.column == 1) continue;
      if (b.row == 1) {
        widen_transposed(transpose_, live, depth, b.at(k0, n0), b.column, panel, cols);
      } else {
        for (std::int64_t k = 0; k < depth; ++k)
          for (std::int64_t n = 0; n < live; ++n) panel[k * cols + n] = widen(*b.at(k0 + k, n0 + n));
      }
    }
  }

  // The bias and what follows it, on a block of results.
  void finish(T* result, std::int64_t ldc, const Block& block) const {
    p_.finish.rows(result, ldc, block.rows, block.column, block.columns, p_.bias);
  }

  void run_streamed() {
    if constexpr (is_wide<S>) {
      const ProductKernel& kernel = select_product(DtypeOf<T>::value, active_isa_mask());
      for_blocks(kRowBlock, kernel.tile_rows, p_.columns, kStreamedColumns, 64, [&](const Block& block, const Block&) {
        const std::int64_t whole = block.columns / kernel.tile_cols * kernel.tile_cols, tail = block.columns - whole;
        Workspace<T> turned(in_rows_ ? 0 : block.rows * depth_block_);
        Workspace<T> sums(p_.depth > depth_block_ ? block.rows * block.columns : 0);
        Workspace<T> last(kStreamedDepth * kernel.tile_cols), last_sums(block.rows * kernel.tile_cols);
        std::vector<const T*> rows(static_cast<std::size_t>(block.rows)), at(rows.size());
        T* const c = p_.c.at(block.row, block.column);
        for (std::int64_t k0 = 0; k0 < p_.depth; k0 += depth_block_) {
          const std::int64_t depth = std::min(depth_block_, p_.depth - k0);
          list_rows(block, k0, depth, in_rows_ ? nullptr : turned.data(), rows.data());
          // The first block of the depth is summed where it belongs; others are added to it.
          T* const to = k0 == 0 ? c : sums.data();
          const std::int64_t ld = k0 == 0 ? p_.c.row : block.columns;
          for (std::int64_t k = 0; k < depth; k += kStreamedDepth) {
            const std::int64_t steps = std::min(kStreamedDepth, depth - k);
            const T* const b = p_.b.at(k0 + k, block.column);
            for (std::int64_t m = 0; m < block.rows; ++m) at[m] = rows[m] + k;
            for (std::int64_t s = 0; s < steps && tail > 0; ++s) {
              T* const line = last + s * kernel.tile_cols;
              std::fill(std::copy_n(b + s * p_.b.row + whole, tail, line), line + kernel.tile_cols, T(0));
            }
            for (std::int64_t m = 0; m < block.rows; m += kernel.tile_rows) {
              const auto run = kernel.run[std::min<std::int64_t>(kernel.tile_rows, block.rows - m) - 1];
              const ProductArgs<T> args{at.data() + m, steps, b, p_.b.row, to + m * ld, ld, whole, k > 0};
              if (whole > 0) run(&args);
              const ProductArgs<T> rest{
                  at.data() + m,    steps, last, kernel.tile_cols, last_sums + m * kernel.tile_cols, kernel.tile_cols,
                  kernel.tile_cols, k > 0};
              if (tail > 0) run(&rest);
            }
          }
          for (std::int64_t m = 0; m < block.rows; ++m) {
            std::copy_n(last_sums + m * kernel.tile_cols, tail, to + m * ld + whole);
            for (std::int64_t n = 0; k0 > 0 && n < block.columns; ++n) c[m * p_.c.row + n] += sums[m * ld + n];
          }
        }
        finish(c, p_.c.row, block);
      });
    }
  }

  void run_turned() {
    if constexpr (is_wide<S>) {
      const ProductKernel& kernel = select_product(DtypeOf<T>::value, active_isa_mask());
      const std::int64_t cols = kernel.tile_cols;
      for_blocks(kTurnedRows, 1, p_.columns, kTurnedColumns, cols, [&](const Block& block, const Block&) {
        const std::int64_t ldc = rounded_up(block.columns, cols);
        Workspace<T> result(block.rows * ldc), turned(in_rows_ ? 0 : block.rows * p_.depth);
        const T* rows[kTurnedRows];
        list_rows(block, 0, p_.depth, in_rows_ ? nullptr : turned.data(), rows);
        const auto run = kernel.turned[block.rows - 1];
        for (std::int64_t n = 0; n < block.columns; n += cols)
          for (std::int64_t k0 = 0; k0 < p_.depth; k0 += depth_block_) {
            const T* at[kTurnedRows];
            for (std::int64_t m = 0; m < block.rows; ++m) at[m] = rows[m] + k0;
            const ProductArgs<T> args{at,
                                      std::min(depth_block_, p_.depth - k0),
                                      p_.b.at(k0, block.column + n),
                                      p_.b.column,
                                      result + n,
                                      ldc,
                                      std::min(cols, block.columns - n),
                                      k0 > 0};
            run(&args);
          }
        finish(result, ldc, block);
        store_run<S>(transpose_, result, ldc, block.rows, block.columns, nullptr, p_.c.at(block.row, block.column),
                     p_.c.row, p_.c.column);
      });
    }
  }

  const MatrixProduct<S>& p_;
  const TransposeKernel& transpose_;
  std::int64_t depth_block_ = 1;
  bool in_rows_ = false;  // a's numbers lie as the kernels read them
};

}  // namespace

template <class S>
void multiply(const MatrixProduct<S>& product) {
  Product<S>(product).run();
}

template void multiply<float>(const MatrixProduct<float>&);
template void multiply<double>(const MatrixProduct<double>&);
template void multiply<Float16>(const MatrixProduct<Float16>&);
template void multiply<BFloat16>(const MatrixProduct<BFloat16>&);

}  // namespace fastconv
