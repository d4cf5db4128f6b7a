// Tiles of the weight's gradient on tensor cores: output channels by steps (a tap and an input channel), summed over a
// run of output positions; the runs are added up in their order.
#include "cuda/conv/gather.h"
#include "cuda/conv/matrix_tile.h"
#include "cuda/conv/products.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr int kRows = 128, kColumns = 128, kTileThreads = kMatrixThreads<kRows, kColumns>;
constexpr Index kWantedBlocks = 512;  // keep a device busy
constexpr Index kShortest = 8 * kSteps;

// What the threads of a block agree on.
template <class S>
struct Task {
  Gather gather;  // its channels are pieces
  const S* x;
  const S* gy;
  Index sample, along[kSpatial];                          // strides of gy
  Index positions, groups, group_outputs, output_pieces;  // positions of all samples
  int inputs;                                             // channels of a group
  Runs runs;
  const int* odd;
};

// A thread brings the same piece of every so many positions; both operands have as many pieces.
struct Lanes {
  static constexpr int kPieces = kRows / kPiece, kApart = kTileThreads / kPieces, kCount = kSteps / kApart;
  static_assert(kRows == kColumns, "a thread's positions are the same in both operands");
  static FASTCONV_DEVICE int piece() { return static_cast<int>(threadIdx.x) % kPieces; }
  static FASTCONV_DEVICE int line(int i) { return static_cast<int>(threadIdx.x) / kPieces + i * kApart; }
};

// The positions of a thread's next pieces.
template <class S>
struct Positions {
  const Task<S>& task;
  Odometer next;
  Index left;  // positions from there to the end of the run

  FASTCONV_DEVICE Positions(const Task<S>& of, Index begin, Index end)
      : task(of), next(Odometer::at(begin + Lanes::line(0), of.gather.out)), left(end - begin - Lanes::line(0)) {}
  FASTCONV_DEVICE void advance() {
    next.advance(Lanes::kApart, task.gather.out);
    left -= Lanes::kApart;
  }
};

// The output's gradient, by output channel and position.
template <class S>
struct Gradients {
  Positions<S> position;
  const S* data;  // at the thread's channels
  bool live;

  FASTCONV_DEVICE Gradients(const Task<S>& task, Index group, Index first_piece, Index begin, Index end)
      : position(task, begin, end),
        data(task.gy + (group * task.output_pieces + first_piece + Lanes::piece()) * kPiece),
        live(first_piece + Lanes::piece() < task.output_pieces) {}
  FASTCONV_DEVICE void fetch(unsigned char* stage) {
    FASTCONV_UNROLL
    for (int i = 0; i < Lanes::kCount; ++i) {
      const Task<S>& task = position.task;
      const Odometer& at = position.next;
      const bool there = live && position.left > 0;
      const Index offset = at.high * task.sample + at.digit[0] * task.along[0] + at.digit[1] * task.along[1] +
                           at.digit[2] * task.along[2];
      dev::copy_async<kUnit>(stage + Layout<true, kRows>::place(Lanes::line(i), Lanes::piece()) * kUnit,
                             there ? data + offset : task.gy, there);
      position.advance();
    }
  }
};

// The input, by step and output position.
template <class S>
struct Inputs {
  Positions<S> position;
  const S* image;
  Gather::Reach reach;

  FASTCONV_DEVICE Inputs(const Task<S>& task, const S* group, int first_step, Index begin, Index end)
      : position(task, begin, end), image(group) {
    const int step = first_step + Lanes::piece();
    reach = task.gather.reach(Odometer::at(step, task.gather.inner), step < task.gather.steps);
  }
  FASTCONV_DEVICE void fetch(unsigned char* stage) {
    FASTCONV_UNROLL
    for (int i = 0; i < Lanes::kCount; ++i) {
      const Gather& gather = position.task.gather;
      const Index from = gather.at(gather.corner(position.next, position.left > 0), reach);
      const bool there = from != kNothing;
      dev::copy_async<kUnit>(stage + Layout<true, kColumns>::place(Lanes::line(i), Lanes::piece()) * kUnit,
                             image + (there ? from : 0), there);
      position.advance();
    }
  }
};

template <class S>
__global__ void __launch_bounds__(kTileThreads, kMatrixBlocks<kRows, kColumns>)
    run_product_kernel(Task<S> task, Index row_tiles, Index column_tiles, Index tiles, float* partial) {
  if (task.odd && *task.odd) return;
  const Gather& gather = task.gather;
  const Index weights = static_cast<Index>(gather.taps) * task.inputs;  // of an output channel
  for (Index i = blockIdx.x; i < tiles * task.runs.count; i += gridDim.x) {
    const Index tile = i % tiles, run = i / tiles;
    const Index first_row = tile % row_tiles * kRows, group = tile / row_tiles / column_tiles;
    const int first_step = static_cast<int>(tile / row_tiles % column_tiles) * (kColumns / kPiece);
    const Index begin = run * task.runs.length, end = dev::smaller(begin + task.runs.length, task.positions);
    Gradients<S> gradients(task, group, first_row / kPiece, begin, end);
    Inputs<S> inputs(task, task.x + group * gather.inputs * kPiece, first_step, begin, end);
    WarpTile<S, true, kRows, kColumns> sums;
    add_stages(sums, gradients, inputs, static_cast<int>((end - begin + kSteps - 1) / kSteps));

    float* const results = partial + (run * task.groups + group) * task.group_outputs * weights;
    struct Cursor {
      Index row;
      FASTCONV_DEVICE void next() { ++row; }
    };
    const auto cursor_at = [&](int row) { return Cursor{first_row + row}; };
    sums.store(false, cursor_at, [&](const Cursor& at, int column, float value) {
      const int step = first_step + column / kPiece;
      const int channel = step % gather.inputs * kPiece + column % kPiece;
      if (at.row < task.group_outputs && step < gather.steps && channel < task.inputs)
        results[at.row * weights + static_cast<Index>(step / gather.inputs) * task.inputs + channel] = value;
    });
    __syncthreads();  // the results are read, and the memory is free
  }
}

Index row_tiles_of(const TileSum& sum) { return ceil_div(sum.group_outputs, kRows); }
Index column_tiles_of(const TileSum& sum) {
  Index columns = packed_channels(sum.group_inputs);
  for (const SumAxis& axis : sum.axis) columns *= axis.taps;
  return ceil_div(columns, kColumns);
}

template <class S>
void start(const Queue& queue, const TileSum& sum, const ArrayView& gy, const ArrayView& x, const Runs& runs,
           float* partial, const int* odd) {
  TileSum pieces = sum;
  pieces.group_inputs = packed_channels(sum.group_inputs) / kPiece;
  Task<S> task{gather_of(pieces, x),
               static_cast<const S*>(x.data),
               static_cast<const S*>(gy.data),
               gy.stride[0],
               {gy.stride[2], gy.stride[3], gy.stride[4]},
               sum.positions(),
               sum.groups,
               sum.group_outputs,
               packed_channels(sum.group_outputs) / kPiece,
               static_cast<int>(sum.group_inputs),
               runs,
               odd};
  task.gather.channel = kPiece;
  const Index row_tiles = row_tiles_of(sum), column_tiles = column_tiles_of(sum);
  const Index tiles = row_tiles * column_tiles * sum.groups;
  const Grid grid{std::min(tiles * runs.count, kMostBlocks), kTileThreads, kMatrixShared<kRows, kColumns>};
  launch(queue, grid, run_product_kernel<S>, task, row_tiles, column_tiles, tiles, partial);
}

}  // namespace

Runs weight_product_runs(const TileSum& sum) {
  const Index tiles = row_tiles_of(sum) * column_tiles_of(sum) * sum.groups;
  return runs_of(sum.positions(), kWantedBlocks / tiles, kShortest, kSteps);
}

void conv_weight_products(const Queue& queue, const TileSum& sum, const ArrayView& grad_output, const ArrayView& x,
                          const Runs& runs, float* partial, const int* odd) {
  if (x.dtype == Dtype::f16)
    start<Float16>(queue, sum, grad_output, x, runs, partial, odd);
  else
    start<BFloat16>(queue, sum, grad_output, x, runs, partial, odd);
}

}  // namespace cuda
}  // namespace fastconv
