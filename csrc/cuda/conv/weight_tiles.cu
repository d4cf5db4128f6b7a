// Tiles of the weight's gradient: steps (a tap and an input channel) by output channels, summed over a run of output
// positions; the runs are added up in their order.
#include "cuda/conv/gather.h"
#include "cuda/conv/products.h"
#include "cuda/conv/tile_sum.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr Index kWantedBlocks = 1024;  // keep a device busy
constexpr int kChain = 512;            // products summed one by one before they join a sum of such sums

// What the threads of a block agree on.
template <class S>
struct Task {
  Gather gather;
  const S* x;
  const S* gy;
  Index sample, channel, along[kSpatial];  // strides of gy
  Index positions, groups, group_outputs;  // positions of all samples
  Runs runs;
  const int* only_if;  // null, or what must not be 0
};

// The positions of a thread's next elements.
template <class Places, class S>
struct Positions {
  const Task<S>& task;
  Odometer next;
  Index left;  // positions from there to the end of the run

  FASTCONV_DEVICE Positions(const Task<S>& of, Index begin, Index end)
      : task(of), next(Odometer::at(begin + Places::depth(0), of.gather.out)), left(end - begin - Places::depth(0)) {}
  FASTCONV_DEVICE void advance() {
    next.advance(Places::kNext, task.gather.out);
    left -= Places::kNext;
  }
};

// The input, by step and output position.
template <class S, bool Deep>
struct Inputs {
  using Places = Share<Deep>;
  Positions<Places, S> position;
  const S* image;
  Gather::Reach reach[Places::kSides];
  Gather::Corner corner;

  FASTCONV_DEVICE Inputs(const Task<S>& task, const S* group, int first_step, Index begin, Index end)
      : position(task, begin, end), image(group), corner{} {
    FASTCONV_UNROLL
    for (int i = 0; i < Places::kSides; ++i) {
      const int step = first_step + Places::side(i);
      reach[i] = task.gather.reach(Odometer::at(step, task.gather.inner), step < task.gather.steps);
    }
  }
  FASTCONV_DEVICE Compute<S> next(int i) {
    const Gather& gather = position.task.gather;
    if (!Places::same_depth(i)) {
      corner = gather.corner(position.next, position.left > 0);
      position.advance();
    }
    const Index from = gather.at(corner, reach[Deep ? i : 0]);
    return from != kNothing ? dev::load(image + from) : Compute<S>(0);
  }
};

// The output's gradient, by output channel and position.
template <class S, bool Deep>
struct Gradients {
  using Places = Share<Deep>;
  Positions<Places, S> position;
  const S* data;  // at the block's first channel
  Index channels, offset;

  FASTCONV_DEVICE Gradients(const Task<S>& task, Index first_channel, Index count, Index begin, Index end)
      : position(task, begin, end), data(task.gy + first_channel * task.channel), channels(count), offset(0) {}
  FASTCONV_DEVICE Compute<S> next(int i) {
    const Task<S>& task = position.task;
    if (!Places::same_depth(i)) {
      const Odometer& at = position.next;
      offset = position.left <= 0 ? kNothing
                                  : at.high * task.sample + at.digit[0] * task.along[0] + at.digit[1] * task.along[1] +
                                        at.digit[2] * task.along[2];
      position.advance();
    }
    const int channel = Places::side(i);
    const bool there = offset != kNothing && channel < channels;
    return there ? dev::load(data + offset + channel * task.channel) : Compute<S>(0);
  }
};

// `Deep`: neighbouring positions are neighbours in memory, otherwise channels.
template <class S, bool Deep>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    run_tile_kernel(Task<S> task, Index row_tiles, Index column_tiles, Index tiles, Compute<S>* partial) {
  if (task.only_if && *task.only_if == 0) return;
  using T = Compute<S>;
  T* memory = dev::shared_memory<T>();
  const Gather& gather = task.gather;
  const Index size = task.groups * task.group_outputs * gather.steps;
  for (Index i = blockIdx.x; i < tiles * task.runs.count; i += gridDim.x) {
    const Index tile = i % tiles, run = i / tiles;
    const int first_row = static_cast<int>(tile % row_tiles) * kTile;
    const Index first_column = tile / row_tiles % column_tiles * kTile, group = tile / row_tiles / column_tiles;
    const Index begin = run * task.runs.length, end = dev::smaller(begin + task.runs.length, task.positions);

    const Index channel = group * task.group_outputs + first_column;
    Inputs<S, Deep> inputs(task, task.x + group * gather.inputs * gather.channel, first_row, begin, end);
    Gradients<S, Deep> gradients(task, channel, task.group_outputs - first_column, begin, end);
    T total[kSide][kSide] = {};
    for (Index from = begin; from < end; from += kChain) {
      const auto padding = [&](int row, int depth) {
        const Gather::Reach reach = gather.reach(Odometer::at(first_row + my_row() + row, gather.inner), true);
        return gather.at(gather.corner(Odometer::at(from + depth, gather.out), true), reach) == kNothing;
      };
      T sum[kSide][kSide] = {};
      add_products(inputs, gradients, padding, static_cast<int>(dev::smaller(end - from, kChain)), memory, sum);
      FASTCONV_UNROLL
      for (int a = 0; a < kSide; ++a) FASTCONV_UNROLL
      for (int b = 0; b < kSide; ++b) total[a][b] += sum[a][b];
    }

    FASTCONV_UNROLL
    for (int b = 0; b < kSide; ++b) {
      const Index column = first_column + my_column() + b;
      if (column >= task.group_outputs) continue;
      T* const row = partial + run * size + (group * task.group_outputs + column) * gather.steps;
      FASTCONV_UNROLL
      for (int a = 0; a < kSide; ++a)
        if (first_row + my_row() + a < gather.steps) row[first_row + my_row() + a] = total[a][b];
    }
  }
}

Index row_tiles_of(const TileSum& sum) {
  return ceil_div(sum.group_inputs * sum.axis[0].taps * sum.axis[1].taps * sum.axis[2].taps, kTile);
}
Index column_tiles_of(const TileSum& sum) { return ceil_div(sum.group_outputs, kTile); }

Runs tile_runs(const TileSum& sum) {
  const Index tiles = row_tiles_of(sum) * column_tiles_of(sum) * sum.groups;
  return runs_of(sum.positions(), kWantedBlocks / tiles, kChain / 2, kDeep);
}

template <class S>
void add_plainly(const Queue& queue, const TileSum& sum, const ArrayView& gy, const ArrayView& x, const Runs& runs,
                 Compute<S>* partial, const int* only_if) {
  const Task<S> task{gather_of(sum, x),
                     static_cast<const S*>(x.data),
                     static_cast<const S*>(gy.data),
                     gy.stride[0],
                     gy.stride[1],
                     {gy.stride[2], gy.stride[3], gy.stride[4]},
                     sum.positions(),
                     sum.groups,
                     sum.group_outputs,
                     runs,
                     only_if};
  const Index row_tiles = row_tiles_of(sum), column_tiles = column_tiles_of(sum);
  const Index tiles = row_tiles * column_tiles * sum.groups;
  const Grid grid{std::min(tiles * runs.count, kMostBlocks), kTileThreads, kTileShared<Compute<S>>};
  const bool dense_channels = x.stride[1] == 1 && x.shape[1] > 1;
  launch(queue, grid, dense_channels ? run_tile_kernel<S, false> : run_tile_kernel<S, true>, task, row_tiles,
         column_tiles, tiles, partial);
}

}  // namespace

void conv_weight_tiles(const Queue& queue, const TileSum& sum, const ArrayView& grad_output, const ArrayView& x,
                       const ArrayView& grad_weight) {
  const bool on_tensor_cores = products_serve(x.dtype);
  const Runs runs = on_tensor_cores ? weight_product_runs(sum) : tile_runs(sum);
  Walk weights = walk_of(grad_weight);
  weights.channels_fast = true;  // as a step's channel and tap follow each other
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const auto bytes = sizeof(T) * static_cast<std::size_t>(grad_weight.size() * runs.count);
    auto* partial = static_cast<T*>(queue.scratch(bytes));
    int* odd = nullptr;
    if constexpr (!is_wide<S>) {
      if (on_tensor_cores) {
        if (reads_padding(sum)) {
          odd = new_flag(queue);
          look_for_odd(queue, grad_output, odd);
        }
        conv_weight_products(queue, sum, pack_image(queue, grad_output, sum.groups), pack_image(queue, x, sum.groups),
                             runs, partial, odd);
      }
    }
    // Of the two only one computes. Which one, the host need not know.
    if (!on_tensor_cores || odd) add_plainly<S>(queue, sum, grad_output, x, runs, partial, odd);
    join_runs<T, S>(queue, partial, runs.count, weights, grad_weight);
  });
}

}  // namespace cuda
}  // namespace fastconv
