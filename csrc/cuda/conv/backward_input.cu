// The input's gradient, as one or several forward sums; where it is none, one thread an element: every output that read
// it, by way of every tap, hands its share back.
#include "cuda/conv/taps.h"
#include "cuda/conv/tiles.h"
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

// One phase of the gradient: the inputs first, first + stride, ... of each axis, which the same taps read. Input i is
// read with tap t by output (i + pad - t * dilation) / stride; the taps of a phase are `stride` apart, and from one to
// the next the output goes down by one (or, with stride 1, by the dilation). Turned around, they are taps of a forward
// sum over the gradient.
struct Phase {
  int first[kSpatial];
};

TileSum phase_sum(const ConvProblem& p, const ArrayView& gy, const ArrayView& w, const Phase& phase,
                  const ArrayView& gx) {
  TileSum sum{};
  const char* data = static_cast<const char*>(w.data);
  for (int i = 0; i < kSpatial; ++i) {
    const ConvAxis& a = p.axis[i];
    const int stride = static_cast<int>(a.stride), pad = static_cast<int>(a.pad_before);
    const int kernel = static_cast<int>(a.kernel), dilation = static_cast<int>(a.dilation);
    const int tap = stride == 1 ? 0 : (phase.first[i] + pad) % stride;  // the phase's first
    const int taps = tap < kernel ? (kernel - tap + stride - 1) / stride : 0;
    const int nearest = stride == 1 ? phase.first[i] + pad : (phase.first[i] + pad - tap) / stride;
    const int gap = stride == 1 ? dilation : 1;
    const int out = phase.first[i] < a.in ? static_cast<int>((a.in - phase.first[i] + stride - 1) / stride) : 0;
    // Output j of the sum, tap u of the turned ones, reads gradient j + nearest - (taps - 1 - u) * gap.
    sum.axis[i] = {static_cast<int>(gy.extent(i)), out, taps, 1, gap, (taps - 1) * gap - nearest};
    const Index step = w.step(i) * stride;
    sum.filter.tap[i] = -step;
    data += static_cast<Index>(dtype_size(w.dtype)) * (tap * w.step(i) + (taps > 0 ? taps - 1 : 0) * step);
  }
  sum.filter.data = data;
  sum.filter.group = p.group_outputs * w.stride[0];
  sum.filter.output = w.stride[1];
  sum.filter.input = w.stride[0];
  sum.groups = p.groups;
  sum.group_inputs = p.group_outputs;
  sum.group_outputs = p.group_inputs;
  sum.samples = gx.shape[0];
  return sum;
}

// The elements of a phase as an array of their own.
ArrayView phase_view(const ArrayView& gx, const ConvProblem& p, const Phase& phase, const TileSum& sum) {
  ArrayView part = gx;
  auto* data = static_cast<char*>(gx.data);
  for (int i = 0; i < kSpatial; ++i) {
    data += static_cast<Index>(dtype_size(gx.dtype)) * phase.first[i] * gx.step(i);
    part.shape[2 + i] = sum.axis[i].out;
    part.stride[2 + i] = gx.step(i) * p.axis[i].stride;
  }
  part.data = data;
  return part;
}

// Whether each axis's phases are those above: taps next to each other, or outputs.
bool has_phases(const ConvProblem& p) {
  Index phases = 1;
  for (const ConvAxis& axis : p.axis) {
    if (axis.stride != 1 && axis.dilation != 1) return false;
    phases *= axis.stride;
  }
  return phases <= 64;
}

}  // namespace

void conv_backward_input(const Queue& queue, const ConvProblem& problem, const ArrayView& grad_output,
                         const ArrayView& weight, const ArrayView& bias, const ArrayView& grad_input) {
  const Index count = grad_input.size();
  if (count == 0) return;
  if (has_phases(problem) && fits_tiles(problem)) {
    const bool in_tiles = tiles_serve(problem, problem.group_outputs, problem.group_inputs);
    const TileInput gradient = in_tiles ? tile_input(queue, grad_output, problem.groups) : TileInput{};
    Phase phase{};
    const ConvAxis* a = problem.axis;
    for (phase.first[0] = 0; phase.first[0] < a[0].stride; ++phase.first[0])
      for (phase.first[1] = 0; phase.first[1] < a[1].stride; ++phase.first[1])
        for (phase.first[2] = 0; phase.first[2] < a[2].stride; ++phase.first[2]) {
          const TileSum sum = phase_sum(problem, grad_output, weight, phase, grad_input);
          const ArrayView part = phase_view(grad_input, problem, phase, sum);
          if (in_tiles)
            conv_tiles(queue, sum, gradient, bias, part);
          else
            conv_strips(queue, sum, grad_output, bias, part);
        }
    return;
  }
  dispatch_storage(grad_input.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), backward_input_kernel<S>, problem, grad_output.as<const S>(), weight.as<const S>(),
           static_cast<const S*>(bias.data), grad_input.as<S>(), walk_of(grad_input), count);
  });
}

}  // namespace cuda
}  // namespace fastconv
