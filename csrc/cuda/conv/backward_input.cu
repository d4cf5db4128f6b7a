// The input's gradient, one thread an element: every output that read it, by way of every tap, hands its share back.
#include "cuda/conv/taps.h"
#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

// The sum over the taps that read the element at positions `at` of the padded input.
template <class S>
FASTCONV_DEVICE Compute<S> read_from(const ConvProblem& p, const View<const S>& gy, const View<const S>& w, const S* g,
                                     const S* filter, const Index (&at)[kSpatial]) {
  Compute<S> sum = 0;
  for (Index d = 0; d < p.axis[0].kernel; ++d) {
    const Index od = reader(p.axis[0], at[0], d);
    if (od < 0) continue;
    for (Index h = 0; h < p.axis[1].kernel; ++h) {
      const Index oh = reader(p.axis[1], at[1], h);
      if (oh < 0) continue;
      for (Index t = 0; t < p.axis[2].kernel; ++t) {
        const Index ow = reader(p.axis[2], at[2], t);
        if (ow < 0) continue;
        const S* from = g + od * gy.stride[2] + oh * gy.stride[3] + ow * gy.stride[4];
        const S* factor = filter + d * w.stride[2] + h * w.stride[3] + t * w.stride[4];
        for (Index k = 0; k < p.group_outputs; ++k)
          sum += dev::load(from + k * gy.stride[1]) * dev::load(factor + k * w.stride[0]);
      }
    }
  }
  return sum;
}

template <class S>
__global__ void backward_input_kernel(ConvProblem p, View<const S> gy, View<const S> w, const S* bias, View<S> gx,
                                      Walk walk, Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position x = walk.at(i);
    const Index group = x.c / p.group_inputs;
    const S* g = gy.data + x.n * gy.stride[0] + group * p.group_outputs * gy.stride[1];
    const S* filter = w.data + group * p.group_outputs * w.stride[0] + (x.c % p.group_inputs) * w.stride[1];
    Index places[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) places[axis] = positions_of(p.axis[axis], x.at[axis]);
    T sum = 0;
    for (Index a = 0; a < places[0]; ++a)
      for (Index b = 0; b < places[1]; ++b)
        for (Index c = 0; c < places[2]; ++c) {
          const Index at[kSpatial] = {position_of(p.axis[0], x.at[0], a), position_of(p.axis[1], x.at[1], b),
                                      position_of(p.axis[2], x.at[2], c)};
          if (shown(p.axis[0], at[0], a) && shown(p.axis[1], at[1], b) && shown(p.axis[2], at[2], c))
            sum += read_from(p, gy, w, g, filter, at);
        }
    if (bias) sum += dev::load(bias + x.c);
    dev::store(gx.data + offset_of(gx, x), sum);
  }
}

}  // namespace

void conv_backward_input(const Queue& queue, const ConvProblem& problem, const ArrayView& grad_output,
                         const ArrayView& weight, const ArrayView& bias, const ArrayView& grad_input) {
  const Index count = grad_input.size();
  if (count == 0) return;
  dispatch_storage(grad_input.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), backward_input_kernel<S>, problem, grad_output.as<const S>(), weight.as<const S>(),
           static_cast<const S*>(bias.data), grad_input.as<S>(), walk_of(grad_input), count);
  });
}

}  // namespace cuda
}  // namespace fastconv
