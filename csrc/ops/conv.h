// The convolution passes. Arrays are canonical views; weights are (K, C / groups, KD, KH, KW) in the words of the
// convolution that is meant, also where a transposed convolution is computed (there "input" and "output" swap roles).
#pragma once

#include "core/array_view.h"
#include "core/precision.h"
#include "core/window.h"
#include "ops/finish.h"

namespace fastconv {

struct ConvShape {
  Window window[kSpatial];
  std::int64_t groups = 1;
  Precision precision = Precision::highest;
  // Whether positions are samples, of a linear layer: then their sums must not depend on how many there are.
  bool rows_are_samples = false;
};

// What memory safety needs, for every pass; Python has already said it in the user's words.
void check_conv(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& output);

// output (N, K, ...) = convolution of input (N, C, ...) with weight, plus bias (K values, may be absent), through the
// epilogue.
void conv_forward(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                  const ArrayView& output, const Epilogue& epilogue = {});

// grad_input (N, C, ...) from grad_output (N, K, ...). This is also the transposed convolution's forward pass, then
// with a bias of C values. Where the padding repeats the input, its gradient is added to the elements it repeats.
void conv_backward_input(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                         const ArrayView& bias, const ArrayView& grad_input);

void conv_backward_weight(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& input,
                          const ArrayView& grad_weight);

// grad_bias[c] = sum of grad_output over all axes but C, in float64 and a fixed order.
void conv_backward_bias(const ArrayView& grad_output, const ArrayView& grad_bias);

}  // namespace fastconv
