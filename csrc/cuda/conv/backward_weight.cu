// The weight's gradient, tile by tile; where tiles do not serve: one thread sums one run of positions for one weight.
#include "cuda/conv/runs.h"
#include "cuda/conv/taps.h"
#include "cuda/conv/tiles.h"
#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr Index kChain = 256;              // products summed in the computing type before they join a double
constexpr Index kWanted = Index{1} << 18;  // threads that keep a device busy

template <class S>
__global__ void partial_kernel(ConvProblem p, View<const S> gy, View<const S> x, Walk weights, Index size, Runs runs,
                               Index items, double* partial) {
  using T = Compute<S>;
  const Index outputs[kSpatial] = {p.axis[0].out, p.axis[1].out, p.axis[2].out};
  const Index positions = outputs[0] * outputs[1] * outputs[2];
  for (Index i = dev::first(); i < size * runs.count; i += dev::step()) {
    const Position w = weights.at(i % size);  // n is the output channel
    const Index begin = i / size * runs.length, end = dev::smaller(begin + runs.length, items);
    const Index group = w.n / p.group_outputs;
    const S* g = gy.data + w.n * gy.stride[1];
    const S* image = x.data + (group * p.group_inputs + w.c) * x.stride[1];
    Index n = begin / positions, rest = begin % positions;
    Index o[kSpatial] = {rest / (outputs[1] * outputs[2]), rest / outputs[2] % outputs[1], rest % outputs[2]};
    double total = 0;
    T sum = 0;
    Index chain = 0;
    for (Index at = begin; at < end; ++at) {
      Index offset = n * x.stride[0];
      bool live = true;
      for (int axis = 0; axis < kSpatial; ++axis) {
        const ConvAxis& a = p.axis[axis];
        const Index from = source(a, o[axis] * a.stride + w.at[axis] * a.dilation - a.pad_before);
        live = live && from >= 0;
        offset += from * x.stride[2 + axis];
      }
      if (live)
        sum += dev::load(g + n * gy.stride[0] + o[0] * gy.stride[2] + o[1] * gy.stride[3] + o[2] * gy.stride[4]) *
               dev::load(image + offset);
      if (++chain == kChain) {
        total += static_cast<double>(sum);
        sum = 0;
        chain = 0;
      }
      if (++o[2] == outputs[2]) {
        o[2] = 0;
        if (++o[1] == outputs[1]) {
          o[1] = 0;
          if (++o[0] == outputs[0]) {
            o[0] = 0;
            ++n;
          }
        }
      }
    }
    partial[i] = total + static_cast<double>(sum);
  }
}

}  // namespace

void conv_backward_weight(const Queue& queue, const ConvProblem& problem, const ArrayView& grad_output,
                          const ArrayView& x, const ArrayView& grad_weight) {
  const Index size = grad_weight.size();
  if (size == 0) return;
  const Index items = problem.batch * problem.outputs();
  if (tiles_serve(problem, problem.group_inputs, problem.group_outputs)) {
    conv_weight_tiles(queue, forward_sum(problem), grad_output, x, grad_weight);
    return;
  }
  if (depthwise_weight_serves(problem)) {
    conv_depthwise_weight(queue, forward_sum(problem), grad_output, x, grad_weight);
    return;
  }
  const Runs runs = runs_of(items, kWanted / size, kChain);
  auto* partial = static_cast<double*>(queue.scratch(sizeof(double) * static_cast<std::size_t>(size * runs.count)));
  const Walk weights = walk_of(grad_weight);
  dispatch_storage(grad_weight.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(size * runs.count), partial_kernel<S>, problem, grad_output.as<const S>(), x.as<const S>(),
           weights, size, runs, items, partial);
    join_runs<double, S>(queue, partial, runs.count, weights, grad_weight);
  });
}

}  // namespace cuda
}  // namespace fastconv
