// Bins of nearly one size: output o takes the inputs from floor(o * in / out) up to ceil((o + 1) * in / out).
#include "cuda/launch.h"
#include "cuda/pool/windows.h"

namespace fastconv {
namespace cuda {
namespace {

FASTCONV_DEVICE Index bin_begin(Index o, Index in, Index out) { return o * in / out; }
FASTCONV_DEVICE Index bin_end(Index o, Index in, Index out) { return ((o + 1) * in + out - 1) / out; }

template <class S>
__global__ void bins_kernel(bool maximum, View<const S> x, View<S> y, Indices indices, Walk walk, Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    Index begin[kSpatial], end[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) {
      begin[axis] = bin_begin(at.at[axis], x.shape[2 + axis], y.shape[2 + axis]);
      end[axis] = bin_end(at.at[axis], x.shape[2 + axis], y.shape[2 + axis]);
    }
    const Index height = x.shape[3], width = x.shape[4];
    auto best = no_extreme<T>(false, (begin[0] * height + begin[1]) * width + begin[2]);
    T sum = 0;
    for (Index d = begin[0]; d < end[0]; ++d)
      for (Index h = begin[1]; h < end[1]; ++h)
        for (Index w = begin[2]; w < end[2]; ++w) {
          const Index from[kSpatial] = {d, h, w};
          const T value = dev::load(x.data + spatial_offset(x, at.n, at.c, from));
          sum += value;
          best.take(value, (d * height + h) * width + w);
        }
    const Index size = (end[0] - begin[0]) * (end[1] - begin[1]) * (end[2] - begin[2]);
    dev::store(y.data + offset_of(y, at), maximum ? best.value : sum / static_cast<T>(size));
    if (indices.data) indices.data[offset_of(indices, at)] = best.place;
  }
}

template <class S>
__global__ void bins_backward_kernel(View<const S> gy, View<S> gx, Walk walk, Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    Index first[kSpatial], last[kSpatial];  // the bins that the input lies in
    for (int axis = 0; axis < kSpatial; ++axis) {
      const Index in = gx.shape[2 + axis], out = gy.shape[2 + axis];
      first[axis] = at.at[axis] * out / in;
      last[axis] = ((at.at[axis] + 1) * out + in - 1) / in - 1;
    }
    const auto length = [&](int axis, Index o) {
      return bin_end(o, gx.shape[2 + axis], gy.shape[2 + axis]) - bin_begin(o, gx.shape[2 + axis], gy.shape[2 + axis]);
    };
    T sum = 0;
    for (Index d = first[0]; d <= last[0]; ++d)
      for (Index h = first[1]; h <= last[1]; ++h)
        for (Index w = first[2]; w <= last[2]; ++w) {
          const Index o[kSpatial] = {d, h, w};
          sum += dev::load(gy.data + spatial_offset(gy, at.n, at.c, o)) /
                 static_cast<T>(length(0, d) * length(1, h) * length(2, w));
        }
    dev::store(gx.data + offset_of(gx, at), sum);
  }
}

}  // namespace

void adaptive_pool_forward(const Queue& queue, PoolOp op, const ArrayView& x, const ArrayView& y,
                           const Indices& indices) {
  const Index count = y.size();
  if (count == 0) return;
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), bins_kernel<S>, op == PoolOp::max, x.as<const S>(), y.as<S>(), indices, walk_of(y),
           count);
  });
}

void adaptive_avg_pool_backward(const Queue& queue, const ArrayView& grad_output, const ArrayView& grad_input) {
  const Index count = grad_input.size();
  if (count == 0) return;
  dispatch_storage(grad_input.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), bins_backward_kernel<S>, grad_output.as<const S>(), grad_input.as<S>(),
           walk_of(grad_input), count);
  });
}

}  // namespace cuda
}  // namespace fastconv
