// The convolution passes. Arrays are canonical views; weights are (K, C / groups, KD, KH, KW) in the words of the
// convolution that is meant, also where a transposed convolution is computed (there "input" and "output" swap roles).
#pragma once

#include "core/array_view.h"
#include "core/window.h"

namespace fastconv {

struct ConvShape {
  Window window[kSpatial];
  std::int64_t groups = 1;
};

// What memory safety needs, for every pass; Python has already said it in the user's words.
void check_conv(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& output);

// output (N, K, ...) = convolution of input (N, C, ...) with weight, plus bias (K values, may be absent).
void conv_forward(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                  const ArrayView& output);

// grad_input (N, C, ...) from grad_output (N, K, ...). This is also the transposed convolution's forward pass, then
// with a bias of C values.
void conv_backward_input(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                         const ArrayView& bias, const ArrayView& grad_input);

void conv_backward_weight(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& input,
                          const ArrayView& grad_weight);

// grad_bias[c] = sum of grad_output over all axes but C, in float64 and a fixed order.
void conv_backward_bias(const ArrayView& grad_output, const ArrayView& grad_bias);

}  // namespace fastconv
