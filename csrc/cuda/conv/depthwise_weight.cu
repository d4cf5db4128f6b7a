// The weight's gradient of a depthwise convolution, a row of taps at a time: a thread, or a warp, sums one run of
// output positions for all taps of one row of one channel, so that it reads the gradient once for them.
#include "cuda/conv/runs.h"
#include "cuda/conv/tiles.h"
#include "cuda/dev_block.h"
#include "cuda/odometer.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr Index kWanted = Index{1} << 18;  // threads that keep a device busy
constexpr Index kShortest = 64;            // positions of a thread
constexpr int kChain = 256;                // products summed in the computing type before they join a double

// What all threads agree on.
template <class S>
struct Task {
  SumAxis axis[kSpatial];
  View<const S> x, gy;
  int out[kSpatial];
  Index positions, channels, rows, group_outputs;  // positions of all samples; rows of taps
  Runs runs;
  double* partial;
};

// `Warp`: the lanes of a warp share a run, because neighbouring positions are neighbours in memory; otherwise each
// thread has its own, and neighbouring threads neighbouring channels.
template <class S, int Taps, bool Warp>
__global__ void tap_row_kernel(Task<S> task) {
  using T = Compute<S>;
  constexpr int lanes = Warp ? dev::kLanes : 1;
  const SumAxis* const axis = task.axis;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const Index items = task.runs.count * task.rows * task.channels;
  for (Index item = dev::first() / lanes; item < items; item += dev::step() / lanes) {
    const Index k = item % task.channels, row = item / task.channels % task.rows;
    const Index run = item / task.channels / task.rows;
    const int ahead[2] = {static_cast<int>(row / axis[1].taps) * axis[0].dilation - axis[0].pad,
                          static_cast<int>(row % axis[1].taps) * axis[1].dilation - axis[1].pad};
    const S* const image = task.x.data + k / task.group_outputs * task.x.stride[1];
    const S* const gradients = task.gy.data + k * task.gy.stride[1];
    const Index end = dev::smaller((run + 1) * task.runs.length, task.positions);
    Index number = run * task.runs.length + lane;
    Odometer at = Odometer::at(number, task.out);

    double total[Taps] = {};
    while (number < end) {
      T sum[Taps] = {};
      for (int chain = 0; chain < kChain && number < end; ++chain, number += lanes, at.advance(lanes, task.out)) {
        const int d = at.digit[0] * axis[0].stride + ahead[0], h = at.digit[1] * axis[1].stride + ahead[1];
        if (d < 0 || d >= axis[0].in || h < 0 || h >= axis[1].in) continue;
        const T gradient = dev::load(gradients + at.high * task.gy.stride[0] + at.digit[0] * task.gy.stride[2] +
                                     at.digit[1] * task.gy.stride[3] + at.digit[2] * task.gy.stride[4]);
        const S* const line = image + at.high * task.x.stride[0] + d * task.x.stride[2] + h * task.x.stride[3];
        FASTCONV_UNROLL
        for (int t = 0; t < Taps; ++t) {
          const int w = at.digit[2] * axis[2].stride + t * axis[2].dilation - axis[2].pad;
          if (w >= 0 && w < axis[2].in) sum[t] += dev::load(line + w * task.x.stride[4]) * gradient;
        }
      }
      FASTCONV_UNROLL
      for (int t = 0; t < Taps; ++t) total[t] += static_cast<double>(sum[t]);
    }
    double* const to = task.partial + ((run * task.channels + k) * task.rows + row) * Taps;
    FASTCONV_UNROLL
    for (int t = 0; t < Taps; ++t) {
      if (Warp) total[t] = dev::warp_sum(total[t]);
      if (lane == 0) to[t] = total[t];
    }
  }
}

template <class S>
auto kernel_for(int taps, bool warp) -> void (*)(Task<S>) {
  if (taps == 3) return warp ? tap_row_kernel<S, 3, true> : tap_row_kernel<S, 3, false>;
  if (taps == 5) return warp ? tap_row_kernel<S, 5, true> : tap_row_kernel<S, 5, false>;
  return warp ? tap_row_kernel<S, 7, true> : tap_row_kernel<S, 7, false>;
}

}  // namespace

bool depthwise_weight_serves(const ConvProblem& problem) {
  const Index taps = problem.axis[2].kernel;
  return problem.group_inputs == 1 && (taps == 3 || taps == 5 || taps == 7) && fits_tiles(problem);
}

void conv_depthwise_weight(const Queue& queue, const TileSum& sum, const ArrayView& grad_output, const ArrayView& x,
                           const ArrayView& grad_weight) {
  const SumAxis* a = sum.axis;
  const Index channels = grad_output.shape[1], rows = Index{a[0].taps} * a[1].taps;
  const bool warp = !walk_of(x).channels_fast;
  const Index lanes = warp ? dev::kLanes : 1;
  const Runs runs = runs_of(sum.positions(), kWanted / (channels * rows * lanes), kShortest * lanes, lanes);
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    const auto bytes = sizeof(double) * static_cast<std::size_t>(grad_weight.size() * runs.count);
    Task<S> task{{a[0], a[1], a[2]},
                 x.as<const S>(),
                 grad_output.as<const S>(),
                 {std::max(a[0].out, 1), std::max(a[1].out, 1), std::max(a[2].out, 1)},
                 sum.positions(),
                 channels,
                 rows,
                 sum.group_outputs,
                 runs,
                 static_cast<double*>(queue.scratch(bytes))};
    launch(queue, grid_of(runs.count * rows * channels * lanes), kernel_for<S>(a[2].taps, warp), task);
    join_runs<double, S>(queue, task.partial, runs.count, walk_of(grad_weight), grad_weight);
  });
}

}  // namespace cuda
}  // namespace fastconv
