// Tiles of outputs on tensor cores: positions by channels, summed over taps and then channels, eight of which are a
// piece that one asynchronous copy brings.
#include "cuda/conv/products.h"

#include "cuda/conv/fused.h"
#include "cuda/conv/gather.h"
#include "cuda/conv/matrix_tile.h"
#include "cuda/dev_half.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr Index kManyTiles = 256;  // large ones are used from there on, as these keep a device busy

// What the threads of a block agree on.
template <class S>
struct Task {
  Gather gather;  // its channels are pieces
  const S* x;
  const S* filter;
  const S* bias;
  View<S> y;
  Index rows, group_outputs;  // positions of all samples; channels of a group
  FusedMap map;
  const int* odd;
};

// A thread brings one piece of every so many lines.
template <int Lines, int Threads>
struct Lanes {
  static constexpr int kPieces = kSteps / kPiece, kApart = Threads / kPieces, kCount = Lines / kApart;
  static FASTCONV_DEVICE int piece() { return static_cast<int>(threadIdx.x) % kPieces; }
  static FASTCONV_DEVICE int line(int i) { return static_cast<int>(threadIdx.x) / kPieces + i * kApart; }
};

// The input, by output position and step.
template <class S, int Rows, int Threads>
struct Inputs {
  using Mine = Lanes<Rows, Threads>;
  const Gather& gather;
  const S* image;
  Gather::Corner corner[Mine::kCount];
  Odometer step;
  int depth;

  FASTCONV_DEVICE Inputs(const Task<S>& task, const S* group, Index first_row)
      : gather(task.gather), image(group), depth(Mine::piece()) {
    FASTCONV_UNROLL
    for (int i = 0; i < Mine::kCount; ++i) {
      const Index row = first_row + Mine::line(i);
      corner[i] = gather.corner(Odometer::at(row, gather.out), row < task.rows);
    }
    step = Odometer::at(depth, gather.inner);
  }
  FASTCONV_DEVICE void fetch(unsigned char* stage) {
    const Gather::Reach reach = gather.reach(step, depth < gather.steps);
    FASTCONV_UNROLL
    for (int i = 0; i < Mine::kCount; ++i) {
      const Index from = gather.at(corner[i], reach);
      const bool live = from != kNothing;
      dev::copy_async<kUnit>(stage + Layout<false, Rows>::place(Mine::line(i), Mine::piece()) * kUnit,
                             image + (live ? from : 0), live);
    }
    step.advance(Mine::kPieces, gather.inner);
    depth += Mine::kPieces;
  }
};

// The packed weights, by output channel and step.
template <class S, int Columns, int Threads>
struct Weights {
  using Mine = Lanes<Columns, Threads>;
  const S* data;  // at the block's first channel
  int channels, steps, depth;

  FASTCONV_DEVICE Weights(const Task<S>& task, int group, int first_column)
      : data(task.filter + (group * task.group_outputs + first_column) * task.gather.steps * kPiece),
        channels(static_cast<int>(task.group_outputs - first_column)),
        steps(task.gather.steps),
        depth(Mine::piece()) {}
  FASTCONV_DEVICE void fetch(unsigned char* stage) {
    FASTCONV_UNROLL
    for (int i = 0; i < Mine::kCount; ++i) {
      const int channel = Mine::line(i);
      const bool live = channel < channels && depth < steps;
      const S* from = data + (live ? (static_cast<Index>(channel) * steps + depth) * kPiece : 0);
      dev::copy_async<kUnit>(stage + Layout<false, Columns>::place(channel, Mine::piece()) * kUnit, from, live);
    }
    depth += Mine::kPieces;
  }
};

// Goes along the positions of the output.
template <class S>
struct Cursor {
  const Task<S>& task;
  Index number;
  Odometer at;

  FASTCONV_DEVICE Cursor(const Task<S>& of, Index row) : task(of), number(row), at(Odometer::at(row, of.gather.out)) {}
  FASTCONV_DEVICE void next() {
    ++number;
    at.advance(1, task.gather.out);
  }
  FASTCONV_DEVICE S* begin() const {
    const Index* stride = task.y.stride;
    return task.y.data + at.high * stride[0] + at.digit[0] * stride[2] + at.digit[1] * stride[3] +
           at.digit[2] * stride[4];
  }
};

template <class S, int Rows, int Columns>
__global__ void __launch_bounds__(kMatrixThreads<Rows, Columns>, kMatrixBlocks<Rows, Columns>)
    product_kernel(Task<S> task, Index row_tiles, Index column_tiles, Index tiles) {
  if (task.odd && *task.odd) return;
  constexpr int threads = kMatrixThreads<Rows, Columns>, deep = kSteps / kPiece;
  for (Index number = blockIdx.x; number < tiles; number += gridDim.x) {
    const Index first_row = number % row_tiles * Rows;
    const int first_column = static_cast<int>(number / row_tiles % column_tiles) * Columns;
    const int group = static_cast<int>(number / row_tiles / column_tiles);
    Inputs<S, Rows, threads> inputs(task, task.x + static_cast<Index>(group) * task.gather.inputs * kPiece, first_row);
    Weights<S, Columns, threads> weights(task, group, first_column);
    WarpTile<S, false, Rows, Columns> tile;
    add_stages(tile, inputs, weights, (task.gather.steps + deep - 1) / deep);

    const auto cursor_at = [&](int row) { return Cursor<S>(task, first_row + row); };
    tile.store(task.y.stride[1] != 1, cursor_at, [&](const Cursor<S>& row, int column, float value) {
      if (row.number >= task.rows || first_column + column >= task.group_outputs) return;
      const Index channel = group * task.group_outputs + first_column + column;
      if (task.bias) value += dev::load(task.bias + channel);
      dev::store(row.begin() + channel * task.y.stride[1], fused(task.map, value));
    });
    __syncthreads();  // the results are read, and the memory is free
  }
}

template <class S, int Rows, int Columns>
void launch_products(const Queue& queue, const Task<S>& task, Index groups) {
  const Index row_tiles = ceil_div(task.rows, Rows), column_tiles = ceil_div(task.group_outputs, Columns);
  const Index tiles = row_tiles * column_tiles * groups;
  const Grid grid{std::min(tiles, kMostBlocks), kMatrixThreads<Rows, Columns>, kMatrixShared<Rows, Columns>};
  launch(queue, grid, product_kernel<S, Rows, Columns>, task, row_tiles, column_tiles, tiles);
}

template <class S>
void start(const Queue& queue, const TileSum& sum, const ArrayView& packed, const ArrayView& bias, const ArrayView& y,
           const void* filter, const int* odd) {
  TileSum pieces = sum;
  pieces.group_inputs = packed_channels(sum.group_inputs) / kPiece;
  Task<S> task{gather_of(pieces, packed),
               static_cast<const S*>(packed.data),
               static_cast<const S*>(filter),
               static_cast<const S*>(bias.data),
               y.as<S>(),
               sum.positions(),
               sum.group_outputs,
               sum.map,
               odd};
  task.gather.channel = kPiece;
  const bool many = ceil_div(task.rows, 128) * ceil_div(sum.group_outputs, 128) * sum.groups >= kManyTiles;
  if (many && sum.group_outputs > 64)
    launch_products<S, 128, 128>(queue, task, sum.groups);
  else
    launch_products<S, 128, 64>(queue, task, sum.groups);
}

}  // namespace

bool products_serve(Dtype dtype) { return dtype == Dtype::f16 || (dtype == Dtype::bf16 && compute_capability() >= 80); }

void conv_products(const Queue& queue, const TileSum& sum, const ArrayView& packed, const ArrayView& bias,
                   const ArrayView& y, const void* filter, const int* odd) {
  if (y.size() == 0) return;
  if (y.dtype == Dtype::f16)
    start<Float16>(queue, sum, packed, bias, y, filter, odd);
  else
    start<BFloat16>(queue, sum, packed, bias, y, filter, odd);
}

}  // namespace cuda
}  // namespace fastconv
