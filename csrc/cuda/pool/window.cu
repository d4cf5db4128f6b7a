// Maximum, minimum and mean of windows, one thread an output; the mean's gradient, one thread an input.
#include "cuda/launch.h"
#include "cuda/pool/windows.h"

namespace fastconv {
namespace cuda {
namespace {

template <class S>
__global__ void extreme_kernel(bool smallest, PoolShape shape, View<const S> x, View<S> y, Indices indices, Walk walk,
                               Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    Index nearest[kSpatial];
    const auto place_of = [&](const Index(&input)[kSpatial]) {
      return (input[0] * shape.axis[1].in + input[1]) * shape.axis[2].in + input[2];
    };
    for (int axis = 0; axis < kSpatial; ++axis) nearest[axis] = live_taps(shape.axis[axis], at.at[axis]).nearest;
    auto best = no_extreme<T>(smallest, place_of(nearest));
    bool chosen = false;
    taps_of(shape, at.at, [&](const Index(&from)[kSpatial]) {
      const Index place = place_of(from);
      if (!chosen) best.place = place;  // of values that are all the worst, the first
      chosen = true;
      best.take(dev::load(x.data + spatial_offset(x, at.n, at.c, from)), place);
    });
    dev::store(y.data + offset_of(y, at), best.value);
    if (indices.data) indices.data[offset_of(indices, at)] = best.place;
  }
}

template <class S>
__global__ void mean_kernel(PoolShape shape, View<const S> x, View<S> y, Walk walk, Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    T sum = 0;
    taps_of(shape, at.at,
            [&](const Index(&from)[kSpatial]) { sum += dev::load(x.data + spatial_offset(x, at.n, at.c, from)); });
    dev::store(y.data + offset_of(y, at), sum / static_cast<T>(divisor_of(shape, at.at)));
  }
}

template <class S>
__global__ void mean_backward_kernel(PoolShape shape, View<const S> gy, View<S> gx, Walk walk, Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    T sum = 0;
    windows_over(shape, at.at, [&](const Index(&o)[kSpatial]) {
      sum += dev::load(gy.data + spatial_offset(gy, at.n, at.c, o)) / static_cast<T>(divisor_of(shape, o));
    });
    dev::store(gx.data + offset_of(gx, at), sum);
  }
}

}  // namespace

void pool_forward(const Queue& queue, PoolOp op, const ArrayView& x, const PoolShape& shape, const ArrayView& y,
                  const Indices& indices) {
  const Index count = y.size();
  if (count == 0) return;
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    if (op == PoolOp::avg)
      launch(queue, grid_of(count), mean_kernel<S>, shape, x.as<const S>(), y.as<S>(), walk_of(y), count);
    else
      launch(queue, grid_of(count), extreme_kernel<S>, op == PoolOp::min, shape, x.as<const S>(), y.as<S>(), indices,
             walk_of(y), count);
  });
}

void avg_pool_backward(const Queue& queue, const ArrayView& grad_output, const PoolShape& shape,
                       const ArrayView& grad_input) {
  const Index count = grad_input.size();
  if (count == 0) return;
  dispatch_storage(grad_input.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), mean_backward_kernel<S>, shape, grad_output.as<const S>(), grad_input.as<S>(),
           walk_of(grad_input), count);
  });
}

}  // namespace cuda
}  // namespace fastconv
