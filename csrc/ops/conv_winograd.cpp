// Winograd's F(2x2, 3x3) for the gather sum: blocks of tiles of 2x2 outputs, whose inputs are packed channels-last and
// transformed to 16 points; at each point a product of matrices by the gather_gemm kernel, tiles x channels times
// channels x outputs; the products transformed to a block of outputs. Taps along the depth lengthen the products.
//
// The transforms mix the inputs of a tile and the weights of a channel. Where a result is not finite, all of its
// sample is computed again by gather_dense, which has infinities and NaNs where the definition has them.
#include <algorithm>
#include <atomic>
#include <limits>
#include <string>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"
#include "ops/conv_store.h"

namespace fastconv {
namespace {

constexpr std::int64_t kTile = kWinogradTile;
constexpr std::int64_t kChannels = 32;  // packed and transformed at a time
constexpr std::int64_t kColumns = 64;   // outputs whose products at all points are kept
constexpr std::int64_t kSpan = 256;     // outputs of an item
constexpr std::int64_t kLongest = 128;  // of a running sum
constexpr std::int64_t kPad = 16;       // elements that keep rows off powers of two
// Tiles of an item: as many as keep their inputs' transform in the second-level cache, within limits.
constexpr std::int64_t kFewTiles = 30, kManyTiles = 48, kTransformedBytes = std::int64_t{384} << 10;
constexpr std::int64_t kMostTransformedBytes = std::int64_t{8} << 20;
constexpr std::int64_t kWeightBytes = std::int64_t{4} << 20;  // of transformed weights at a time
// What an item costs beside its rows of products, in rows: reading the weights, and packing one position.
constexpr double kWeightRows = 3, kPositionRows = 0.05;

// A whole number of cache lines.
constexpr std::int64_t rounded(std::int64_t count) { return ceil_div(count, std::int64_t{16}) * 16; }

// The phase of an axis along which tiles lie: three neighbouring inputs an output, all outputs.
bool tiled(const std::vector<AxisPhase>& phases) {
  if (phases.size() != 1 || phases[0].in_step != 1 || phases[0].out_step != 1 || phases[0].taps.size() != 3)
    return false;
  const std::vector<Tap>& taps = phases[0].taps;
  return taps[1].offset == taps[0].offset + 1 && taps[2].offset == taps[0].offset + 2;
}

// The next larger number of parts of `whole` that makes them smaller.
std::int64_t next_cut(std::int64_t whole, std::int64_t parts) {
  const std::int64_t size = ceil_div(whole, parts);
  return size == 1 ? whole + 1 : ceil_div(whole, size - 1);
}

template <class S>
class WinogradDriver {
  using T = Compute<S>;
  static constexpr T kSmallest = std::numeric_limits<T>::min() * T(1 << 26);

 public:
  explicit WinogradDriver(const GatherProblem<S>& problem)
      : p_(problem),
        phase_{&problem.phases[0][0], &problem.phases[1][0], &problem.phases[2][0]},
        samples_(problem.x.shape[0]) {
    depth_taps_ = static_cast<std::int64_t>(phase_[0]->taps.size());
    row_ = rounded(p_.x_channels) + kPad;
    cols_ = find_conv(DtypeOf<T>::value, p_.y_channels, active_isa_mask()).tile_cols;
    panels_ = ceil_div(p_.y_channels, cols_);
    choose_block();
  }

  // Whether a sample's transformed inputs and a panel of transformed weights are within the memory of a call.
  bool fits() const {
    return sample_bytes_ <= kMostTransformedBytes && kWinogradPoints * weight_step() <= kMostElements<T>;
  }

  void run() {
    winograd_ = &select_winograd(DtypeOf<T>::value, active_isa_mask());
    gemm_ = &select_conv(DtypeOf<T>::value, p_.y_channels, active_isa_mask());
    transpose_ = &select_transpose(DtypeOf<T>::value, active_isa_mask());
    list_sums();
    const std::int64_t panel_size = kWinogradPoints * weight_step();
    const std::int64_t total = p_.groups * panels_;
    const std::int64_t most = kWeightBytes / static_cast<std::int64_t>(sizeof(T));
    const std::int64_t at_once = std::clamp<std::int64_t>(most / panel_size, 1, total);
    Workspace<T> packed(at_once * panel_size);
    not_finite_ = std::vector<std::atomic<bool>>(static_cast<std::size_t>(samples_));
    for (std::int64_t first = 0; first < total; first += at_once) {
      const std::int64_t count = std::min(at_once, total - first);
      // Neighbouring panels of some channels one after the other: where the weights of a channel lie far from those of
      // the next, what is read together lies together.
      const std::int64_t parts = ceil_div(p_.x_channels, kChannels);
      parallel_for({count * parts, 0.5 * static_cast<double>(count * panel_size)}, subnormals_of(DtypeOf<T>::value),
                   [&](std::int64_t i) {
                     const std::int64_t panel = i % count;
                     pack_panel(first + panel, i / count * kChannels, packed + panel * panel_size);
                   });
      compute(first, count, packed, panel_size);
    }
    compute_again();
  }

 private:
  // Blocks of tiles: some planes of the depth, rows of tiles up to a limit, as many rows as fill the block, and as many
  // samples as do if one does not.
  void choose_block() {
    const std::int64_t extent[kSpatial] = {phase_[0]->out_count, ceil_div(phase_[1]->out_count, kTile),
                                           ceil_div(phase_[2]->out_count, kTile)};
    const auto balanced = [](std::int64_t whole, std::int64_t wanted) {
      return ceil_div(whole, ceil_div(whole, std::clamp<std::int64_t>(wanted, 1, whole)));
    };
    block_[0] = depth_taps_ > 1 ? std::min<std::int64_t>(extent[0], 4) : 1;
    const std::int64_t planes = axis_slots(*phase_[0], block_[0], false).slots;
    const std::int64_t bytes = kWinogradPoints * row_ * static_cast<std::int64_t>(sizeof(T)) * planes / block_[0];
    const std::int64_t tiles = std::clamp(kTransformedBytes / bytes, kFewTiles, kManyTiles);
    // Of all ways to cut a plane into equal blocks, the one with the least to do: products of whole tiles of the
    // kernel, reading the weights, packing the inputs with the two more on each side.
    double least = 0;
    for (std::int64_t across = 1; across <= extent[2]; across = next_cut(extent[2], across))
      for (std::int64_t down = 1; down <= extent[1]; down = next_cut(extent[1], down)) {
        const std::int64_t h = ceil_div(extent[1], down), w = ceil_div(extent[2], across), rows = h * w * block_[0];
        if (rows > tiles && h * w > 1) continue;
        const std::int64_t samples = down * across == 1 ? std::max<std::int64_t>(1, tiles / rows) : 1;
        const double work = static_cast<double>(ceil_div(samples * rows, std::int64_t{6}) * 6 + kWeightRows) /
                                static_cast<double>(samples) +
                            kPositionRows * static_cast<double>((2 * h + 2) * (2 * w + 2) * block_[0]);
        const double total = static_cast<double>(down * across) * work;
        if (least == 0 || total < least) {
          least = total;
          block_[1] = h;
          block_[2] = w;
        }
      }
    if (block_[1] == extent[1] && block_[2] == extent[2])
      block_[0] = balanced(extent[0], std::max(block_[0], tiles / (block_[1] * block_[2])));
    for (int axis = 0; axis < kSpatial; ++axis) blocks_[axis] = ceil_div(extent[axis], block_[axis]);
    planes_ = axis_slots(*phase_[0], block_[0], false).slots;
    sample_bytes_ = kWinogradPoints * planes_ * block_[1] * block_[2] * row_ * static_cast<std::int64_t>(sizeof(T));
    together_ = 1;
    if (blocks_[0] * blocks_[1] * blocks_[2] == 1) {
      const std::int64_t wanted =
          std::min(tiles / (block_[0] * block_[1] * block_[2]), kMostTransformedBytes / sample_bytes_);
      together_ = std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(samples_, 1));
    }
  }

  std::int64_t point_step() const { return together_ * planes_ * block_[1] * block_[2] * row_ + kPad; }

  // From the weights of a point to those of the next.
  std::int64_t weight_step() const { return depth_taps_ * p_.x_channels * cols_ + kPad; }

  // Each sum as runs of the reduction, which are added to each other: neither too long nor too short.
  void list_sums() {
    const std::int64_t channels = p_.x_channels, parts = ceil_div(channels, kLongest), part = ceil_div(channels, parts);
    const AxisSlots slots = axis_slots(*phase_[0], 1, false);
    std::int64_t length = 0;
    for (std::int64_t d = 0; d < depth_taps_; ++d)
      for (std::int64_t c = 0; c < channels; c += part) {
        const Segment next{c, d * channels + c, std::min(part, channels - c)};
        if (sums_.empty() || length + next.length > kLongest) {
          sums_.emplace_back();
          length = 0;
        }
        sums_.back().push_back({d, next});
        length += next.length;
      }
  }

  // Some channels of a panel, whose layout is [point][tap of the depth][channel][column].
  void pack_panel(std::int64_t index, std::int64_t c0, T* dst) {
    const std::int64_t group = index / panels_, y0 = index % panels_ * cols_;
    const std::int64_t live = std::min<std::int64_t>(cols_, p_.y_channels - y0);
    const std::int64_t channels = std::min(kChannels, p_.x_channels - c0), taps = depth_taps_ * 9;
    const S* base = p_.weight + group * p_.weight_group + y0 * p_.weight_y + c0 * p_.weight_x;
    // Taps side by side in memory are copied in its order, others in the order of the lists.
    const std::vector<std::int64_t> of_tap = weight_offsets(*phase_[0], *phase_[1], *phase_[2], p_.weight_tap);
    const bool side_by_side = one_run(of_tap);
    const bool rows = side_by_side && p_.weight_x == taps, columns = side_by_side && p_.weight_y == taps;
    Workspace<T> turned(channels * taps * cols_);
    if (live < cols_) std::fill_n(turned.data(), channels * taps * cols_, T(0));
    if (rows) widen_transposed(*transpose_, live, channels * taps, base, p_.weight_y, turned.data(), cols_);
    for (std::int64_t c = 0; c < channels && !rows; ++c) {
      const S* from = base + c * p_.weight_x;
      T* to = turned + c * taps * cols_;
      if (columns) {
        widen_transposed(*transpose_, live, taps, from, p_.weight_y, to, cols_);
      } else {
        for (std::int64_t t = 0; t < taps; ++t)
          for (std::int64_t y = 0; y < live; ++y) to[t * cols_ + y] = widen(from[of_tap[t] + y * p_.weight_y]);
      }
    }
    // The transform halves weights twice; of some near the end of the range nothing would be left.
    const T largest = largest_magnitude(turned.data(), channels * taps * cols_);
    if (largest > T(0) && largest < kSmallest) too_small_.store(true, std::memory_order_relaxed);
    for (std::int64_t d = 0; d < depth_taps_; ++d) {
      WinogradWeightArgs<T> args{
          turned, {}, taps * cols_, channels, cols_, dst + (d * p_.x_channels + c0) * cols_, weight_step()};
      for (std::int64_t t = 0; t < 9; ++t) args.offset[t] = (rows || columns ? of_tap[d * 9 + t] : d * 9 + t) * cols_;
      winograd_->weight(&args);
    }
  }

  void compute(std::int64_t first_panel, std::int64_t panel_count, const T* packed, std::int64_t panel_size) {
    const std::int64_t sets = ceil_div(samples_, together_);
    const std::int64_t blocks = sets * blocks_[0] * blocks_[1] * blocks_[2];
    // More items where blocks alone would leave threads idle, though each transforms its inputs anew.
    std::int64_t span = std::max<std::int64_t>(1, kSpan / cols_);
    const std::int64_t threads = get_num_threads();
    const std::int64_t few = std::max<std::int64_t>(1, kColumns / cols_);
    while (span > 1 && blocks * ceil_div(panel_count, span) < (span > few ? 4 : 1) * threads) span = ceil_div(span, 2);
    const std::vector<PanelJob> jobs = panel_jobs(first_panel, panel_count, panels_, span);
    const double products = static_cast<double>(samples_ * blocks_[0] * block_[0] * blocks_[1] * block_[1]) *
                            static_cast<double>(blocks_[2] * block_[2] * panel_size) * static_cast<double>(panel_count);
    parallel_for({blocks * static_cast<std::int64_t>(jobs.size()), products * multiply_add_nanoseconds<T>()},
                 subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
                   const PanelJob& job = jobs[static_cast<std::size_t>(item / blocks)];
                   std::int64_t j0[kSpatial];
                   const std::int64_t set = locate_block(item % blocks, blocks_, block_, j0);
                   j0[1] *= kTile;
                   j0[2] *= kTile;
                   run_block(set * together_, job.group, job.panel, job.count, packed + job.slot * panel_size,
                             panel_size, j0);
                 });
  }

  void run_block(std::int64_t first, std::int64_t group, std::int64_t panel, std::int64_t panel_count, const T* packed,
                 std::int64_t panel_size, const std::int64_t (&j0)[kSpatial]) {
    const std::int64_t samples = std::min(together_, samples_ - first);
    std::int64_t count[kSpatial], tiles[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) {
      const std::int64_t size = axis == 0 ? 1 : kTile;
      count[axis] = std::min(block_[axis] * size, phase_[axis]->out_count - j0[axis]);
      tiles[axis] = ceil_div(count[axis], size);
    }
    const AxisSlots depth = axis_slots(*phase_[0], count[0], false);
    const std::int64_t area = tiles[1] * tiles[2], step = point_step();
    Workspace<T> v(kWinogradPoints * step);
    transform_inputs(first, samples, group * p_.x_channels, j0, count, tiles, depth, v);

    // Where the products of an output's tile find their inputs: the plane of its first tap.
    std::vector<std::int64_t> row_of;
    for (std::int64_t s = 0; s < samples; ++s)
      for (std::int64_t d = 0; d < count[0]; ++d)
        for (std::int64_t t = 0; t < area; ++t)
          row_of.push_back(((s * depth.slots + d * depth.step) * area + t) * row_);
    const std::int64_t rows = static_cast<std::int64_t>(row_of.size());
    const std::int64_t chunk = std::min(panel_count, std::max<std::int64_t>(1, kColumns / cols_));
    const std::int64_t product_row = chunk * cols_ + kPad, product_step = rows * product_row + kPad;
    Workspace<T> products(kWinogradPoints * product_step);
    Workspace<T> result(area * kTile * kTile * chunk * cols_);
    std::vector<std::vector<Segment>> segments;
    for (const auto& sum : sums_) {
      segments.emplace_back();
      for (const auto& [tap, segment] : sum)
        segments.back().push_back(
            {depth.base[static_cast<std::size_t>(tap)] * area * row_ + segment.a, segment.b, segment.length});
    }
    for (std::int64_t begin = 0; begin < panel_count; begin += chunk) {
      const std::int64_t some = std::min(chunk, panel_count - begin);
      for (std::int64_t point = 0; point < kWinogradPoints; ++point)
        for (std::int64_t i = 0; i < some; ++i)
          multiply(v + point * step, row_of, packed + (begin + i) * panel_size + point * weight_step(), segments,
                   products + point * product_step + i * cols_, product_row);
      const std::int64_t y0 = (panel + begin) * cols_, ldc = some * cols_;
      for (std::int64_t s = 0; s < samples; ++s)
        for (std::int64_t d = 0; d < count[0]; ++d) {
          bool finite = true;
          const WinogradOutputArgs<T> args{products + (s * count[0] + d) * area * product_row,
                                           product_row,
                                           product_step,
                                           tiles[1],
                                           tiles[2],
                                           ldc,
                                           result,
                                           ldc,
                                           &finite};
          winograd_->output(&args);
          if (!finite) not_finite_[static_cast<std::size_t>(first + s)].store(true, std::memory_order_relaxed);
          const std::int64_t at[kSpatial] = {j0[0] + d, j0[1], j0[2]};
          store_block<S>(p_, phase_, *transpose_, first + s, group * p_.y_channels + y0,
                         std::min(ldc, p_.y_channels - y0), at, count, result, ldc, tiles[2] * kTile);
        }
    }
  }

  // The inputs of a block, some channels at a time: packed channels-last with what the padding holds, then transformed.
  void transform_inputs(std::int64_t first, std::int64_t samples, std::int64_t channel0,
                        const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial],
                        const std::int64_t (&tiles)[kSpatial], const AxisSlots& depth, T* v) const {
    // Whole tiles; what is behind the last output's inputs is zero.
    AxisSlots slots[kSpatial] = {depth, {}, {}};
    for (int axis = 1; axis < kSpatial; ++axis) {
      slots[axis].slots = tiles[axis] * kTile + 2;
      slots[axis].base = {0, 1, 2};
      slots[axis].runs = {{0, phase_[axis]->taps[0].offset, 1, count[axis] + 2}};
    }
    const BlockPacker<S> packer{
        p_.x, {phase_[0], phase_[1], phase_[2]}, {&slots[0], &slots[1], &slots[2]}, *transpose_};
    const std::int64_t height = slots[1].slots, width = slots[2].slots, area = tiles[1] * tiles[2];
    const bool whole = count[1] == tiles[1] * kTile && count[2] == tiles[2] * kTile;
    const std::int64_t block = std::min(rounded(p_.x_channels), kChannels);
    Workspace<T> input(packer.positions() * block);
    for (std::int64_t s = 0; s < samples; ++s)
      for (std::int64_t c0 = 0; c0 < p_.x_channels; c0 += block) {
        const std::int64_t channels = std::min(block, p_.x_channels - c0);
        if (!whole || channels < block) std::fill_n(input.data(), packer.positions() * block, T(0));
        packer.pack(input, first + s, channel0 + c0, channels, j0, block, 1);
        for (std::int64_t d = 0; d < depth.slots; ++d) {
          const WinogradInputArgs<T> args{input + d * height * width * block,
                                          width * block,
                                          block,
                                          tiles[1],
                                          tiles[2],
                                          rounded(channels),
                                          v + (s * depth.slots + d) * area * row_ + c0,
                                          row_,
                                          point_step()};
          winograd_->input(&args);
        }
      }
  }

  // One point's products of all tiles with a panel, in calls of nearly equal numbers of rows.
  void multiply(const T* v, const std::vector<std::int64_t>& row_of, const T* weights,
                const std::vector<std::vector<Segment>>& segments, T* c, std::int64_t ldc) const {
    const std::int64_t rows = static_cast<std::int64_t>(row_of.size()),
                       calls = ceil_div(rows, std::int64_t{gemm_->tile_rows});
    for (std::size_t k = 0; k < segments.size(); ++k)
      for (std::int64_t i = 0; i < calls; ++i) {
        const std::int64_t begin = rows * i / calls, count = rows * (i + 1) / calls - begin;
        const T* a[kMaxTileRows];
        for (std::int64_t m = 0; m < count; ++m) a[m] = v + row_of[static_cast<std::size_t>(begin + m)];
        const GemmArgs<T> args{
            a, weights, segments[k].data(), static_cast<std::int64_t>(segments[k].size()), c + begin * ldc, ldc, k > 0};
        gemm_->gemm[count - 1](&args);
      }
  }

  // The samples with a result that is not finite, by the definition; all of them where weights were too small.
  void compute_again() const {
    const bool all = too_small_.load(std::memory_order_relaxed);
    for_sample_runs(
        p_,
        [&](std::int64_t n) { return all || not_finite_[static_cast<std::size_t>(n)].load(std::memory_order_relaxed); },
        gather_dense<S>);
  }

  struct Part {
    std::int64_t tap;
    Segment segment;
  };

  const GatherProblem<S>& p_;
  const AxisPhase* phase_[kSpatial];
  const WinogradKernel* winograd_ = nullptr;
  const ConvKernel* gemm_ = nullptr;
  const TransposeKernel* transpose_ = nullptr;
  std::int64_t samples_, depth_taps_ = 0, row_ = 0, cols_ = 0, panels_ = 0, together_ = 1, planes_ = 1;
  std::int64_t block_[kSpatial] = {1, 1, 1}, blocks_[kSpatial] = {1, 1, 1};  // in tiles
  std::int64_t sample_bytes_ = 0;                                            // of transformed inputs
  std::vector<std::vector<Part>> sums_;
  std::vector<std::atomic<bool>> not_finite_;
  std::atomic<bool> too_small_{false};  // weights, for their transform
};

// Whether it is faster than tiles of outputs, if no kernel is forced: the products that it saves, against the
// transforms, whose part is the larger the fewer channels and outputs there are. Fitted to 6,000 random problems; see
// bench/LOG.md.
template <class T, class Problem>
bool preferred(const Problem& problem) {
  const std::string forced = forced_kernel();
  const IsaMask mask = active_isa_mask();
  if (forced == find_winograd(DtypeOf<T>::value, mask).name) return true;
  if (!forced.empty() && (forced == find_conv(DtypeOf<T>::value, problem.y_channels, mask).name ||
                          forced == find_depthwise(DtypeOf<T>::value, mask).name))
    return false;
  const std::int64_t height = problem.phases[1][0].out_count, width = problem.phases[2][0].out_count;
  const auto tiles = static_cast<double>(ceil_div(height, kTile) * ceil_div(width, kTile));
  const double saved = 9.0 * static_cast<double>(height) * static_cast<double>(width) / (kWinogradPoints * tiles);
  const auto x = static_cast<double>(problem.x_channels), y = static_cast<double>(problem.y_channels);
  return saved >= 1.3 * (1 + 8.5 * (x + y) / (x * y));
}

}  // namespace

template <class S>
bool gather_winograd(const GatherProblem<S>& problem) {
  using T = Compute<S>;
  if (problem.phases[0].size() != 1 || problem.phases[0][0].taps.empty() || problem.x_channels == 0) return false;
  if (!tiled(problem.phases[1]) || !tiled(problem.phases[2]) || !preferred<T>(problem)) return false;
  WinogradDriver<S> driver(problem);
  if (!driver.fits()) return false;
  driver.run();
  return true;
}

template bool gather_winograd<float>(const GatherProblem<float>&);
template bool gather_winograd<double>(const GatherProblem<double>&);
template bool gather_winograd<Float16>(const GatherProblem<Float16>&);
template bool gather_winograd<BFloat16>(const GatherProblem<BFloat16>&);

}  // namespace fastconv
