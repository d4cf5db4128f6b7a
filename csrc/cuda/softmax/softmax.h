// Softmax along an axis of arrays of any rank, and its gradient.
#pragma once

#include "cuda/operand.h"

namespace fastconv {
namespace cuda {

// y = exp(x) / sum(exp(x)), or its logarithm, along `axis`.
void softmax(const Queue& queue, const Operand& x, const Operand& y, int axis, bool logarithm);
// From the gradient of y and y itself.
void softmax_backward(const Queue& queue, const Operand& grad_output, const Operand& y, const Operand& grad_input,
                      int axis, bool logarithm);

}  // namespace cuda
}  // namespace fastconv
