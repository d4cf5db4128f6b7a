// Forward. Where the window's numbers are too large or the padding is not zeros, one thread an output: the sum over
// taps and channels, in the order of the weight's memory.
#include "cuda/conv/fused.h"
#include "cuda/conv/taps.h"
#include "cuda/conv/tiles.h"
#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

template <class S>
__global__ void forward_kernel(ConvProblem p, View<const S> x, View<const S> w, const S* bias, View<S> y, Walk walk,
                               Index count, FusedMap map) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    const Index channel = at.c / p.group_outputs * p.group_inputs;
    const S* image = x.data + at.n * x.stride[0] + channel * x.stride[1];
    const S* filter = w.data + at.c * w.stride[0];
    T sum = 0;
    for (Index d = 0; d < p.axis[0].kernel; ++d) {
      const Index xd = source(p.axis[0], at.at[0] * p.axis[0].stride + d * p.axis[0].dilation - p.axis[0].pad_before);
      if (xd < 0) continue;
      for (Index h = 0; h < p.axis[1].kernel; ++h) {
        const Index xh = source(p.axis[1], at.at[1] * p.axis[1].stride + h * p.axis[1].dilation - p.axis[1].pad_before);
        if (xh < 0) continue;
        for (Index k = 0; k < p.axis[2].kernel; ++k) {
          const Index xw =
              source(p.axis[2], at.at[2] * p.axis[2].stride + k * p.axis[2].dilation - p.axis[2].pad_before);
          if (xw < 0) continue;
          const S* from = image + xd * x.stride[2] + xh * x.stride[3] + xw * x.stride[4];
          const S* factor = filter + d * w.stride[2] + h * w.stride[3] + k * w.stride[4];
          for (Index c = 0; c < p.group_inputs; ++c)
            sum += dev::load(from + c * x.stride[1]) * dev::load(factor + c * w.stride[1]);
        }
      }
    }
    if (bias) sum += dev::load(bias + at.c);
    dev::store(y.data + offset_of(y, at), fused(map, sum));
  }
}

}  // namespace

void conv_forward(const Queue& queue, const ConvProblem& problem, const ArrayView& x, const ArrayView& weight,
                  const ArrayView& bias, const ArrayView& y, FusedMap map) {
  const Index count = y.size();
  if (count == 0) return;
  if (fits_tiles(problem)) {
    TileSum sum = forward_sum(problem);
    for (int i = 0; i < kSpatial; ++i) sum.filter.tap[i] = weight.step(i);
    sum.filter.data = weight.data;
    sum.filter.group = problem.group_outputs * weight.stride[0];
    sum.filter.output = weight.stride[0];
    sum.filter.input = weight.stride[1];
    sum.map = map;
    if (tiles_serve(problem, problem.group_inputs, problem.group_outputs))
      conv_tiles(queue, sum, tile_input(queue, x, problem.groups), bias, y);
    else
      conv_strips(queue, sum, x, bias, y);
    return;
  }
  dispatch_storage(y.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), forward_kernel<S>, problem, x.as<const S>(), weight.as<const S>(),
           static_cast<const S*>(bias.data), y.as<S>(), walk_of(y), count, map);
  });
}

}  // namespace cuda
}  // namespace fastconv
