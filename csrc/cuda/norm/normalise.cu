// What norms do to each element: forward, and the input's gradient.
#include "cuda/launch.h"
#include "cuda/norm/elements.h"

namespace fastconv {
namespace cuda {
namespace {

template <class S>
__global__ void normalise_kernel(View<const S> x, View<S> y, Walk walk, SetWalk sets, Index count, const double* mean,
                                 const double* scale, const S* weight, const S* bias) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    const Index set = sets.of(at);
    const T factor = static_cast<T>(scale[set] * static_cast<double>(channel_value(weight, at.c, T(1))));
    const T value = deviation(dev::load(x.data + offset_of(x, at)), mean[set]);
    dev::store(y.data + offset_of(y, at), value * factor + channel_value(bias, at.c, T(0)));
  }
}

template <class S>
__global__ void backward_kernel(View<const S> gy, View<const S> x, View<S> gx, Walk walk, SetWalk sets, Index count,
                                const double* mean, const double* scale, const double* slope, const double* shift,
                                const S* weight) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    const Index set = sets.of(at);
    const T factor = static_cast<T>(scale[set] * static_cast<double>(channel_value(weight, at.c, T(1))));
    T value = dev::load(gy.data + offset_of(gy, at)) * factor;
    if (slope)
      value += deviation(dev::load(x.data + offset_of(x, at)), mean[set]) * static_cast<T>(slope[set]) +
               static_cast<T>(shift[set]);
    dev::store(gx.data + offset_of(gx, at), value);
  }
}

template <class S>
__global__ void coefficients_kernel(Index sets, double count, const double* sum, const double* dot,
                                    const double* inverse, const S* weight, double* slope, double* shift) {
  for (Index set = dev::first(); set < sets; set += dev::step()) {
    const double scale = inverse[set] * static_cast<double>(channel_value(weight, set, Compute<S>(1)));
    slope[set] = -scale * dot[set] * inverse[set] * inverse[set] / count;
    shift[set] = -scale * sum[set] / count;
  }
}

}  // namespace

void normalise(const Queue& queue, const ArrayView& x, const ArrayView& y, Sets sets, const double* mean,
               const double* scale, const ArrayView& weight, const ArrayView& bias) {
  const Index count = y.size();
  if (count == 0) return;
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), normalise_kernel<S>, x.as<const S>(), y.as<S>(), walk_of(y), set_walk(x, sets), count,
           mean, scale, static_cast<const S*>(weight.data), static_cast<const S*>(bias.data));
  });
}

void coefficients(const Queue& queue, Index sets, double count, const double* sum, const double* dot,
                  const double* inverse, const ArrayView& weight, double* slope, double* shift) {
  if (sets == 0) return;
  dispatch_storage(weight.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(sets), coefficients_kernel<S>, sets, count, sum, dot, inverse,
           static_cast<const S*>(weight.data), slope, shift);
  });
}

void normalise_backward(const Queue& queue, const ArrayView& grad_output, const ArrayView& x,
                        const ArrayView& grad_input, Sets sets, const double* mean, const double* scale,
                        const double* slope, const double* shift, const ArrayView& weight) {
  const Index count = grad_input.size();
  if (count == 0) return;
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), backward_kernel<S>, grad_output.as<const S>(), x.as<const S>(), grad_input.as<S>(),
           walk_of(grad_input), set_walk(x, sets), count, mean, scale, slope, shift,
           static_cast<const S*>(weight.data));
  });
}

}  // namespace cuda
}  // namespace fastconv
