// A block computes 64 positions by 64 channels; each of its 256 threads 4 by 4 of them, in registers. Sixteen steps of
// the sum at a time come to shared memory, twice over, so that the next ones are on their way meanwhile. Every output's
// sum runs over taps and then channels in one order, whatever its place in a tile.
//
// Inputs in the padding are zeros in the tile, and zero times an infinite or NaN weight would be a NaN: from the first
// such weight on, a block looks each input up again before it multiplies.
#include "cuda/conv/tiles.h"

#include <limits>

#include "cuda/conv/fused.h"
#include "cuda/dev_half.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr int kTile = 64, kDeep = 16, kSide = 4;  // of a block, of a step, of a thread
constexpr int kTileThreads = (kTile / kSide) * (kTile / kSide);
constexpr int kLoads = kTile * kDeep / kTileThreads;  // elements of each operand that a thread fetches for a step
constexpr int kPitch = kTile + 4;
constexpr Index kNothing = std::numeric_limits<Index>::min();  // no offset, of which negative ones are some
static_assert(kTileThreads == kThreads, "a block is one tile");

// A position of the output: where its window starts in the input.
struct Row {
  Index offset;  // of the sample
  int start[kSpatial];
  bool live;
};

// What the threads of a block agree on.
template <class S>
struct Task {
  TileSum sum;
  View<const S> x;
  View<S> y;
  const S* bias;
  Index rows;  // positions of all samples
  int taps, steps;

  FASTCONV_DEVICE Row row_at(Index number) const {
    Row row{};
    row.live = number < rows;
    const SumAxis* a = sum.axis;
    const Index positions = static_cast<Index>(a[0].out) * a[1].out * a[2].out;
    row.offset = number / positions * x.stride[0];
    const int rest = static_cast<int>(number % positions);
    const int o[kSpatial] = {rest / a[2].out / a[1].out, rest / a[2].out % a[1].out, rest % a[2].out};
    FASTCONV_UNROLL
    for (int i = 0; i < kSpatial; ++i) row.start[i] = o[i] * a[i].stride - a[i].pad;
    return row;
  }

  // The offset of the input that a step of the sum reads for a row; kNothing in the padding and beyond the ends.
  FASTCONV_DEVICE Index input_at(const Row& row, int step) const {
    if (!row.live || step >= steps) return kNothing;
    const SumAxis* a = sum.axis;
    const int inputs = static_cast<int>(sum.group_inputs), tap = step / inputs, c = step % inputs;
    const int t[kSpatial] = {tap / a[2].taps / a[1].taps, tap / a[2].taps % a[1].taps, tap % a[2].taps};
    Index offset = row.offset + c * x.stride[1];
    FASTCONV_UNROLL
    for (int i = 0; i < kSpatial; ++i) {
      const int at = row.start[i] + t[i] * a[i].dilation;
      if (at < 0 || at >= a[i].in) return kNothing;
      offset += at * x.stride[2 + i];
    }
    return offset;
  }

  FASTCONV_DEVICE Index weight_at(Index channel, int step) const {
    const SumAxis* a = sum.axis;
    const int inputs = static_cast<int>(sum.group_inputs), tap = step / inputs, c = step % inputs;
    return channel * sum.filter.output + c * sum.filter.input + tap / a[2].taps / a[1].taps * sum.filter.tap[0] +
           tap / a[2].taps % a[1].taps * sum.filter.tap[1] + tap % a[2].taps * sum.filter.tap[2];
  }
};

// `Lanes`: neighbouring threads fetch neighbouring channels of x, which are dense; otherwise neighbouring positions.
template <class S, bool Lanes>
__global__ void __launch_bounds__(kTileThreads)
    tile_kernel(Task<S> task, Index row_tiles, Index column_tiles, Index tiles) {
  using T = Compute<S>;
  T* memory = dev::shared_memory<T>();
  // Two stages of inputs, then two of weights.
  constexpr int stage_size = kDeep * kPitch;
  int* const odd_weight = reinterpret_cast<int*>(memory + 4 * stage_size);
  const int thread = static_cast<int>(threadIdx.x);
  const int my_row = thread / (kTile / kSide) * kSide, my_column = thread % (kTile / kSide) * kSide;

  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Index first_row = tile % row_tiles * kTile;
    const Index first_column = tile / row_tiles % column_tiles * kTile, group = tile / row_tiles / column_tiles;
    const S* image = task.x.data + group * task.sum.group_inputs * task.x.stride[1];
    const S* filter = static_cast<const S*>(task.sum.filter.data) + group * task.sum.filter.group;

    // Places in the tile that this thread fetches.
    const auto depth_of = [&](int i) { return Lanes ? thread % kDeep : thread / kTile + i * (kTileThreads / kTile); };
    const auto row_of = [&](int i) { return Lanes ? thread / kDeep + i * (kTileThreads / kDeep) : thread % kTile; };
    Row rows[Lanes ? kLoads : 1];
    FASTCONV_UNROLL
    for (int i = 0; i < (Lanes ? kLoads : 1); ++i) rows[i] = task.row_at(first_row + row_of(i));

    T next_input[kLoads], next_weight[kLoads];
    const auto fetch = [&](int begin) {
      FASTCONV_UNROLL
      for (int i = 0; i < kLoads; ++i) {
        const Index from = task.input_at(rows[Lanes ? i : 0], begin + depth_of(i));
        next_input[i] = from != kNothing ? dev::load(image + from) : T(0);
        const int step = begin + thread % kDeep;
        const Index channel = first_column + thread / kDeep + i * (kTileThreads / kDeep);
        const bool there = channel < task.sum.group_outputs && step < task.steps;
        next_weight[i] = there ? dev::load(filter + task.weight_at(channel, step)) : T(0);
      }
    };
    const auto keep = [&](int stage) {
      FASTCONV_UNROLL
      for (int i = 0; i < kLoads; ++i) {
        memory[stage * stage_size + depth_of(i) * kPitch + row_of(i)] = next_input[i];
        memory[(2 + stage) * stage_size + thread % kDeep * kPitch + thread / kDeep + i * (kTileThreads / kDeep)] =
            next_weight[i];
        if (!(next_weight[i] - next_weight[i] == T(0))) *odd_weight = 1;
      }
    };

    T total[kSide][kSide] = {};
    if (thread == 0) *odd_weight = 0;
    __syncthreads();
    fetch(0);
    keep(0);
    __syncthreads();
    for (int begin = 0, stage = 0; begin < task.steps; begin += kDeep, stage ^= 1) {
      const bool more = begin + kDeep < task.steps;
      const bool odd = *odd_weight != 0;
      if (more) fetch(begin + kDeep);
      if (odd) {
        FASTCONV_UNROLL
        for (int i = 0; i < kSide; ++i) {
          const Row row = task.row_at(first_row + my_row + i);
          for (int k = 0; k < kDeep; ++k) {
            if (task.input_at(row, begin + k) == kNothing) continue;
            FASTCONV_UNROLL
            for (int j = 0; j < kSide; ++j)
              total[i][j] += memory[stage * stage_size + k * kPitch + my_row + i] *
                             memory[(2 + stage) * stage_size + k * kPitch + my_column + j];
          }
        }
      } else {
        FASTCONV_UNROLL
        for (int k = 0; k < kDeep; ++k) {
          T a[kSide], b[kSide];
          FASTCONV_UNROLL
          for (int i = 0; i < kSide; ++i) {
            a[i] = memory[stage * stage_size + k * kPitch + my_row + i];
            b[i] = memory[(2 + stage) * stage_size + k * kPitch + my_column + i];
          }
          FASTCONV_UNROLL
          for (int i = 0; i < kSide; ++i) FASTCONV_UNROLL
          for (int j = 0; j < kSide; ++j) total[i][j] += a[i] * b[j];
        }
      }
      __syncthreads();  // all have read the flag and this stage
      if (more) keep(stage ^ 1);
      __syncthreads();
    }

    FASTCONV_UNROLL
    for (int i = 0; i < kSide; ++i) {
      const Index number = first_row + my_row + i;
      if (number >= task.rows) continue;
      const SumAxis* a = task.sum.axis;
      const Index positions = static_cast<Index>(a[0].out) * a[1].out * a[2].out;
      const int rest = static_cast<int>(number % positions);
      const Index offset = number / positions * task.y.stride[0] + rest / a[2].out / a[1].out * task.y.stride[2] +
                           rest / a[2].out % a[1].out * task.y.stride[3] + rest % a[2].out * task.y.stride[4];
      FASTCONV_UNROLL
      for (int j = 0; j < kSide; ++j) {
        const Index column = first_column + my_column + j;
        if (column >= task.sum.group_outputs) continue;
        const Index channel = group * task.sum.group_outputs + column;
        const T value = task.bias ? total[i][j] + dev::load(task.bias + channel) : total[i][j];
        dev::store(task.y.data + offset + channel * task.y.stride[1], fused(task.sum.map, value));
      }
    }
  }
}

}  // namespace

bool tiles_serve(const ConvProblem& problem, Index inputs, Index outputs) {
  constexpr Index most = std::numeric_limits<int>::max() / 4;
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
  return fits && taps * inputs <= most && taps * inputs >= kDeep && outputs >= kTile / 4;
}

void conv_tiles(const Queue& queue, const TileSum& sum, const ArrayView& x, const ArrayView& bias, const ArrayView& y) {
  if (y.size() == 0) return;
  const SumAxis* a = sum.axis;
  const Index rows = sum.samples * a[0].out * a[1].out * a[2].out;
  const Index row_tiles = ceil_div(rows, kTile), column_tiles = ceil_div(sum.group_outputs, kTile);
  const Index tiles = row_tiles * column_tiles * sum.groups;
  const int taps = a[0].taps * a[1].taps * a[2].taps, steps = taps * static_cast<int>(sum.group_inputs);
  dispatch_storage(y.dtype, [&](auto zero) {
    using S = decltype(zero);
    const Task<S> task{sum, x.as<const S>(), y.as<S>(), static_cast<const S*>(bias.data), rows, taps, steps};
    const Grid grid{std::min(tiles, kMostBlocks), kTileThreads, sizeof(Compute<S>) * 4 * kDeep * kPitch + 16};
    const bool lanes = x.stride[1] == 1 && x.shape[1] > 1;
    if (lanes)
      launch(queue, grid, tile_kernel<S, true>, task, row_tiles, column_tiles, tiles);
    else
      launch(queue, grid, tile_kernel<S, false>, task, row_tiles, column_tiles, tiles);
  });
}

}  // namespace cuda
}  // namespace fastconv
