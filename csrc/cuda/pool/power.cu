// Pools of powers: the root of a window's mean power, and the gradient. A whole power up to 8 is multiplied out.
#include "cuda/launch.h"
#include "cuda/pool/windows.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr int kMostFactors = 8;

template <class T>
FASTCONV_DEVICE T raised(T x, double exponent) {
  if (exponent == 2) return x * x;
  if (exponent >= 0 && exponent <= kMostFactors && exponent == std::floor(exponent)) {
    T power = 1;
    for (int i = 0; i < static_cast<int>(exponent); ++i) power *= x;
    return power;
  }
  return static_cast<T>(std::pow(static_cast<double>(x), exponent));
}

// The mean of a window's powers becomes their sum when multiplied by `scale`, the number of its taps.
template <class S>
__global__ void power_kernel(PoolShape shape, double exponent, double scale, View<const S> x, View<S> y, Walk walk,
                             Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    T sum = 0;
    taps_of(shape, at.at, [&](const Index(&from)[kSpatial]) {
      sum += raised(dev::load(x.data + spatial_offset(x, at.n, at.c, from)), exponent);
    });
    const T mean = sum / static_cast<T>(divisor_of(shape, at.at)) * static_cast<T>(scale);
    dev::store(y.data + offset_of(y, at), exponent == 2 ? std::sqrt(mean) : raised(mean, 1 / exponent));
  }
}

template <class S>
__global__ void power_backward_kernel(PoolShape shape, double exponent, double scale, View<const S> gy, View<const S> x,
                                      View<const S> y, View<S> gx, Walk walk, Index count) {
  using T = Compute<S>;
  const T dead = exponent > 0 ? T(0) : static_cast<T>(INFINITY);  // the root of no sum at all
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    T sum = 0;
    windows_over(shape, at.at, [&](const Index(&o)[kSpatial]) {
      const T root = dev::load(y.data + spatial_offset(y, at.n, at.c, o));
      if (root == dead || root == -dead) return;
      const T g = dev::load(gy.data + spatial_offset(gy, at.n, at.c, o));
      const T slope = exponent == 2 ? g / root : g / raised(root, exponent - 1);
      sum += slope / static_cast<T>(divisor_of(shape, o));
    });
    const T value = dev::load(x.data + offset_of(x, at));
    const T factor = exponent == 2 ? value : raised(value, exponent - 1);
    dev::store(gx.data + offset_of(gx, at), sum * static_cast<T>(scale) * factor);
  }
}

double scale_of(const PoolShape& shape, bool mean) {
  double taps = 1;
  for (const PoolAxis& axis : shape.axis) taps *= static_cast<double>(axis.kernel);
  return mean ? 1 : taps;
}

}  // namespace

void power_pool_forward(const Queue& queue, double exponent, bool mean, const ArrayView& x, const PoolShape& shape,
                        const ArrayView& y) {
  const Index count = y.size();
  if (count == 0) return;
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), power_kernel<S>, shape, exponent, scale_of(shape, mean), x.as<const S>(), y.as<S>(),
           walk_of(y), count);
  });
}

void power_pool_backward(const Queue& queue, double exponent, bool mean, const ArrayView& grad_output,
                         const ArrayView& x, const ArrayView& y, const PoolShape& shape, const ArrayView& grad_input) {
  const Index count = grad_input.size();
  if (count == 0) return;
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), power_backward_kernel<S>, shape, exponent, scale_of(shape, mean),
           grad_output.as<const S>(), x.as<const S>(), y.as<const S>(), grad_input.as<S>(), walk_of(grad_input), count);
  });
}

}  // namespace cuda
}  // namespace fastconv
