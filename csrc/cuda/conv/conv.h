// Convolution on a device: the four passes, for any shape, stride, dilation, padding mode, group and dtype.
#pragma once

#include "core/array_view.h"
#include "core/window.h"
#include "cuda/queue.h"

namespace fastconv {
namespace cuda {

// One spatial axis. Output o meets, with tap t, position o * stride + t * dilation - pad of the padded input.
struct ConvAxis {
  Index in, out, kernel, stride, dilation, pad_before, pad_after;
  PadMode mode;
};

struct ConvProblem {
  Index batch, groups, group_inputs, group_outputs;  // channels of a group
  ConvAxis axis[kSpatial];

  Index outputs() const { return axis[0].out * axis[1].out * axis[2].out; }
  Index taps() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
};

// What happens to a forward result before it is rounded.
enum class Fused : std::uint8_t { none, relu, leaky_relu, elu, sigmoid, tanh };
struct FusedMap {
  Fused map = Fused::none;
  double parameter = 0;
};

// Views are canonical, (N, C, D, H, W); a weight is (K, C, D, H, W); bias is contiguous, or its data null.
void conv_forward(const Queue& queue, const ConvProblem& problem, const ArrayView& x, const ArrayView& weight,
                  const ArrayView& bias, const ArrayView& y, FusedMap map);
void conv_backward_input(const Queue& queue, const ConvProblem& problem, const ArrayView& grad_output,
                         const ArrayView& weight, const ArrayView& bias, const ArrayView& grad_input);
void conv_backward_weight(const Queue& queue, const ConvProblem& problem, const ArrayView& grad_output,
                          const ArrayView& x, const ArrayView& grad_weight);
void conv_backward_bias(const Queue& queue, const ArrayView& grad_output, const ArrayView& grad_bias);

}  // namespace cuda
}  // namespace fastconv
