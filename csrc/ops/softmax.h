// Softmax and its logarithm along one axis of an array of any rank and strides, and their gradients.
#pragma once

#include "core/dtype.h"
#include "ops/loop_nest.h"

namespace fastconv {

// y = softmax(x) or its logarithm along `axis`; y has x's shape and no overlap with it.
void softmax(Dtype dtype, const Strided& x, const Strided& y, int axis, bool logarithm);

// The gradient of x from the gradient of y and y itself.
void softmax_backward(Dtype dtype, const Strided& grad_output, const Strided& y, const Strided& grad_input, int axis,
                      bool logarithm);

}  // namespace fastconv
