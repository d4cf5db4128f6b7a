// Convolutions of few channels a group, such as depthwise ones: a thread computes four neighbouring outputs of one
// channel, and reads what their windows share once.
#include "cuda/conv/fused.h"
#include "cuda/conv/tiles.h"
#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"
#include "cuda/odometer.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr int kStrip = 4;  // outputs along the last axis

// What all threads agree on.
template <class S>
struct Task {
  TileSum sum;
  View<const S> x;
  View<S> y;
  const S* bias;
  int extent[kSpatial];  // of an odometer: positions of a channel, the last axis in strips
  Index channels, count;
  bool channels_fast;
};

// The strip's sums over one row of taps: output i, tap t read from + (i * stride + t * dilation) * step, where inside.
// Taps == 0: any number of taps, stride and dilation. Otherwise the dilation is 1 and the inputs are read once.
template <int Taps, int Stride, class S>
FASTCONV_DEVICE void add_row(const SumAxis& axis, const S* from, Index step, int first, const S* weight, Index next,
                             Compute<S> (&sum)[kStrip]) {
  using T = Compute<S>;
  const auto inside = [&](int at) { return static_cast<unsigned>(first + at) < static_cast<unsigned>(axis.in); };
  if constexpr (Taps == 0) {
    for (int t = 0; t < axis.taps; ++t) {
      const T factor = dev::load(weight + t * next);
      FASTCONV_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        const int at = i * axis.stride + t * axis.dilation;
        if (inside(at)) sum[i] += dev::load(from + at * step) * factor;
      }
    }
  } else {
    constexpr int width = (kStrip - 1) * Stride + Taps;
    T input[width];
    bool live[width];
    FASTCONV_UNROLL
    for (int at = 0; at < width; ++at) {
      live[at] = inside(at);
      input[at] = live[at] ? dev::load(from + at * step) : T(0);
    }
    FASTCONV_UNROLL
    for (int t = 0; t < Taps; ++t) {
      const T factor = dev::load(weight + t * next);
      FASTCONV_UNROLL
      for (int i = 0; i < kStrip; ++i)
        if (live[i * Stride + t]) sum[i] += input[i * Stride + t] * factor;
    }
  }
}

template <class S, int Taps, int Stride>
__global__ void strip_kernel(Task<S> task) {
  const SumAxis* const axis = task.sum.axis;
  const Filter& filter = task.sum.filter;
  const View<const S>& x = task.x;
  for (Index number = dev::first(); number < task.count; number += dev::step()) {
    // The channel runs fastest, or above the positions.
    const Index above = task.channels_fast ? number / task.channels : number;
    Odometer at = Odometer::at(above, task.extent);
    const Index channel = task.channels_fast ? number % task.channels : at.high % task.channels;
    const Index sample = task.channels_fast ? at.high : at.high / task.channels;
    const Index group = channel / task.sum.group_outputs, output = channel % task.sum.group_outputs;

    int start[kSpatial];
    for (int i = 0; i < kSpatial; ++i) start[i] = at.digit[i] * axis[i].stride - axis[i].pad;
    start[2] += at.digit[2] * (kStrip - 1) * axis[2].stride;
    const S* const image = x.data + sample * x.stride[0] + group * task.sum.group_inputs * x.stride[1];
    const S* const weights = static_cast<const S*>(filter.data) + group * filter.group + output * filter.output;
    Compute<S> sum[kStrip] = {};
    for (int d = 0; d < axis[0].taps; ++d) {
      const int from_d = start[0] + d * axis[0].dilation;
      if (from_d < 0 || from_d >= axis[0].in) continue;
      for (int h = 0; h < axis[1].taps; ++h) {
        const int from_h = start[1] + h * axis[1].dilation;
        if (from_h < 0 || from_h >= axis[1].in) continue;
        const S* row = image + from_d * x.stride[2] + from_h * x.stride[3] + start[2] * x.stride[4];
        const S* weight = weights + d * filter.tap[0] + h * filter.tap[1];
        // A row of one channel is enough work, and takes enough registers.
        FASTCONV_NO_UNROLL
        for (Index c = 0; c < task.sum.group_inputs; ++c)
          add_row<Taps, Stride>(axis[2], row + c * x.stride[1], x.stride[4], start[2], weight + c * filter.input,
                                filter.tap[2], sum);
      }
    }

    const View<S>& y = task.y;
    S* to = y.data + sample * y.stride[0] + channel * y.stride[1] + at.digit[0] * y.stride[2] +
            at.digit[1] * y.stride[3] + at.digit[2] * kStrip * y.stride[4];
    FASTCONV_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      if (at.digit[2] * kStrip + i >= axis[2].out) break;
      if (task.bias) sum[i] += dev::load(task.bias + channel);
      dev::store(to + i * y.stride[4], fused(task.sum.map, sum[i]));
    }
  }
}

template <class S>
auto kernel_for(const SumAxis& last) -> void (*)(Task<S>) {
  if (last.dilation == 1 && last.stride == 1) {
    if (last.taps == 2) return strip_kernel<S, 2, 1>;
    if (last.taps == 3) return strip_kernel<S, 3, 1>;
    if (last.taps == 5) return strip_kernel<S, 5, 1>;
    if (last.taps == 7) return strip_kernel<S, 7, 1>;
  }
  if (last.dilation == 1 && last.stride == 2) {
    if (last.taps == 3) return strip_kernel<S, 3, 2>;
    if (last.taps == 5) return strip_kernel<S, 5, 2>;
  }
  return strip_kernel<S, 0, 0>;
}

}  // namespace

void conv_strips(const Queue& queue, const TileSum& sum, const ArrayView& x, const ArrayView& bias,
                 const ArrayView& y) {
  if (y.size() == 0) return;
  dispatch_storage(y.dtype, [&](auto zero) {
    using S = decltype(zero);
    Task<S> task{sum, x.as<const S>(), y.as<S>(), static_cast<const S*>(bias.data), {}, y.shape[1], 0, false};
    for (int i = 0; i < kSpatial; ++i) task.extent[i] = sum.axis[i].out;
    task.extent[2] = static_cast<int>(ceil_div(sum.axis[2].out, kStrip));
    task.count = y.shape[0] * y.shape[1] * task.extent[0] * task.extent[1] * task.extent[2];
    task.channels_fast = walk_of(y).channels_fast;
    launch(queue, grid_of(task.count), kernel_for<S>(sum.axis[2]), task);
  });
}

}  // namespace cuda
}  // namespace fastconv
