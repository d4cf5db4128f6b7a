// Tiles of outputs, positions by channels, summed over taps and then channels.
#include "cuda/conv/tiles.h"

#include "cuda/conv/fused.h"
#include "cuda/conv/gather.h"
#include "cuda/conv/products.h"
#include "cuda/conv/tile_sum.h"
#include "cuda/dev_half.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

// What the threads of a block agree on.
template <class S>
struct Task {
  Gather gather;
  Filter filter;
  View<S> y;
  const S* x;
  const S* bias;
  Index rows, group_outputs;  // positions of all samples; channels of a group
  FusedMap map;
  const int* only_if;  // null, or what must not be 0
};

// The input, by output position and step.
template <class S, bool Deep>
struct Inputs {
  using Places = Share<Deep>;
  const Gather& gather;
  const S* image;
  Gather::Corner corner[Places::kSides];
  Gather::Reach reach;
  Odometer step;
  int depth;

  FASTCONV_DEVICE Inputs(const Task<S>& task, const S* group, Index first_row)
      : gather(task.gather), image(group), reach{}, depth(Places::depth(0)) {
    FASTCONV_UNROLL
    for (int i = 0; i < Places::kSides; ++i) {
      const Index row = first_row + Places::side(i);
      corner[i] = gather.corner(Odometer::at(row, gather.out), row < task.rows);
    }
    step = Odometer::at(depth, gather.inner);
  }
  FASTCONV_DEVICE Compute<S> next(int i) {
    if (!Places::same_depth(i)) {
      reach = gather.reach(step, depth < gather.steps);
      step.advance(Places::kNext, gather.inner);
      depth += Places::kNext;
    }
    const Index from = gather.at(corner[Deep ? i : 0], reach);
    return from != kNothing ? dev::load(image + from) : Compute<S>(0);
  }
};

// The weights, by output channel and step.
template <class S>
struct Weights {
  using Places = Share<true>;
  const Filter& filter;
  const Gather& gather;
  const S* data;  // at the block's first channel
  Index channels, offset;
  Odometer step;
  int depth;

  FASTCONV_DEVICE Weights(const Task<S>& task, const S* group, Index first_column)
      : filter(task.filter),
        gather(task.gather),
        data(group + first_column * task.filter.output),
        channels(task.group_outputs - first_column),
        offset(0),
        depth(Places::depth(0)) {
    step = Odometer::at(depth, gather.inner);
  }
  FASTCONV_DEVICE Compute<S> next(int i) {
    if (!Places::same_depth(i)) {
      offset = kNothing;
      if (depth < gather.steps)
        offset = step.high * filter.tap[0] + step.digit[0] * filter.tap[1] + step.digit[1] * filter.tap[2] +
                 step.digit[2] * filter.input;
      step.advance(Places::kNext, gather.inner);
      depth += Places::kNext;
    }
    const int channel = Places::side(i);
    const bool there = offset != kNothing && channel < channels;
    return there ? dev::load(data + channel * filter.output + offset) : Compute<S>(0);
  }
};

template <class S>
FASTCONV_DEVICE void store_tile(const Task<S>& task, Index first_row, Index group, Index first_column,
                                const Compute<S> (&total)[kSide][kSide]) {
  FASTCONV_UNROLL
  for (int i = 0; i < kSide; ++i) {
    const Index row = first_row + my_row() + i;
    if (row >= task.rows) continue;
    const Odometer at = Odometer::at(row, task.gather.out);
    const Index offset = at.high * task.y.stride[0] + at.digit[0] * task.y.stride[2] + at.digit[1] * task.y.stride[3] +
                         at.digit[2] * task.y.stride[4];
    FASTCONV_UNROLL
    for (int j = 0; j < kSide; ++j) {
      const Index column = first_column + my_column() + j;
      if (column >= task.group_outputs) continue;
      const Index channel = group * task.group_outputs + column;
      const Compute<S> value = task.bias ? total[i][j] + dev::load(task.bias + channel) : total[i][j];
      dev::store(task.y.data + offset + channel * task.y.stride[1], fused(task.map, value));
    }
  }
}

// `Deep`: x's channels are dense, otherwise its positions.
template <class S, bool Deep>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    tile_kernel(Task<S> task, Index row_tiles, Index column_tiles, Index tiles) {
  if (task.only_if && *task.only_if == 0) return;
  using T = Compute<S>;
  T* memory = dev::shared_memory<T>();
  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Index first_row = tile % row_tiles * kTile;
    const Index first_column = tile / row_tiles % column_tiles * kTile, group = tile / row_tiles / column_tiles;
    Inputs<S, Deep> inputs(task, task.x + group * task.gather.inputs * task.gather.channel, first_row);
    Weights<S> weights(task, static_cast<const S*>(task.filter.data) + group * task.filter.group, first_column);
    const auto padding = [&](int i, int step) {
      const Gather::Corner corner = task.gather.corner(Odometer::at(first_row + my_row() + i, task.gather.out), true);
      const Gather::Reach reach = task.gather.reach(Odometer::at(step, task.gather.inner), true);
      return task.gather.at(corner, reach) == kNothing;
    };
    T total[kSide][kSide] = {};
    add_products(inputs, weights, padding, task.gather.steps, memory, total);
    store_tile(task, first_row, group, first_column, total);
  }
}

void add_plainly(const Queue& queue, const TileSum& sum, const ArrayView& x, const ArrayView& bias, const ArrayView& y,
                 const int* only_if) {
  const Index rows = sum.positions();
  const Index row_tiles = ceil_div(rows, kTile), column_tiles = ceil_div(sum.group_outputs, kTile);
  const Index tiles = row_tiles * column_tiles * sum.groups;
  dispatch_storage(y.dtype, [&](auto zero) {
    using S = decltype(zero);
    const Task<S> task{
        gather_of(sum, x), sum.filter, y.as<S>(), static_cast<const S*>(x.data), static_cast<const S*>(bias.data), rows,
        sum.group_outputs, sum.map,    only_if};
    const Grid grid{std::min(tiles, kMostBlocks), kTileThreads, kTileShared<Compute<S>>};
    const bool dense_channels = x.stride[1] == 1 && x.shape[1] > 1;
    launch(queue, grid, dense_channels ? tile_kernel<S, true> : tile_kernel<S, false>, task, row_tiles, column_tiles,
           tiles);
  });
}

}  // namespace

bool reads_padding(const TileSum& sum) {
  for (const SumAxis& a : sum.axis)
    if (a.pad > 0 || Index{a.out - 1} * a.stride + Index{a.taps - 1} * a.dilation - a.pad >= a.in) return true;
  return false;
}

bool fits_tiles(const ConvProblem& problem) {
  constexpr Index most = std::numeric_limits<int>::max() / 4;
  const Index inputs = problem.group_inputs, outputs = problem.group_outputs;
  bool fits = inputs <= most && outputs <= most;
  Index taps = 1, area = 1, out_area = 1;
  for (const ConvAxis& axis : problem.axis) {
    fits = fits && axis.mode == PadMode::zeros && axis.in <= most && axis.out <= most;
    fits = fits && axis.kernel <= 1 << 15 && axis.stride <= 1 << 15 && axis.dilation <= 1 << 15;
    fits = fits && axis.pad_before <= most && axis.out * axis.stride + axis.kernel * axis.dilation <= most;
    if (!fits) return false;
    taps *= axis.kernel;
    area *= axis.in;
    out_area *= axis.out;
    fits = taps <= most && area <= most && out_area <= most;
  }
  return fits && taps * std::max(inputs, outputs) <= most;
}

bool tiles_serve(const ConvProblem& problem, Index inputs, Index outputs) {
  return fits_tiles(problem) && problem.taps() * inputs >= kDeep && outputs >= kTile / 4;
}

TileSum forward_sum(const ConvProblem& problem) {
  TileSum sum{};
  for (int i = 0; i < kSpatial; ++i) {
    const ConvAxis& axis = problem.axis[i];
    sum.axis[i] = {static_cast<int>(axis.in),     static_cast<int>(axis.out),      static_cast<int>(axis.kernel),
                   static_cast<int>(axis.stride), static_cast<int>(axis.dilation), static_cast<int>(axis.pad_before)};
  }
  sum.groups = problem.groups;
  sum.group_inputs = problem.group_inputs;
  sum.group_outputs = problem.group_outputs;
  sum.samples = problem.batch;
  return sum;
}

TileInput tile_input(const Queue& queue, const ArrayView& x, Index groups) {
  return {x, products_serve(x.dtype) ? pack_image(queue, x, groups) : ArrayView{}};
}

void conv_tiles(const Queue& queue, const TileSum& sum, const TileInput& x, const ArrayView& bias, const ArrayView& y) {
  if (y.size() == 0) return;
  if (!x.packed) {
    add_plainly(queue, sum, x.plain, bias, y, nullptr);
    return;
  }
  int* odd = reads_padding(sum) ? new_flag(queue) : nullptr;
  const void* filter = pack_filter(queue, sum, y.dtype, odd);
  conv_products(queue, sum, x.packed, bias, y, filter, odd);
  // Only one of the two computes. Which one, the host need not know.
  if (odd) add_plainly(queue, sum, x.plain, bias, y, odd);
}

}  // namespace cuda
}  // namespace fastconv
