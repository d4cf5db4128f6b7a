// Elementwise ops on a device: activations, arithmetic of any two dtypes, dropout, and sums along an axis.
#pragma once

#include <string>

#include "cuda/operand.h"

namespace fastconv {
namespace cuda {

// y = map(a, b) by the name of an activation or its gradient, or of a difference; all of one shape and dtype.
void eltwise(const Queue& queue, const std::string& name, const Operand& a, const Operand& b, const Operand& y,
             double parameter);

// y = op(a, b) by NumPy's name of the op, computed in float64 where one of the three is, else in float32. Operands are
// broadcast to y's shape already, or single numbers.
void arithmetic(const Queue& queue, const std::string& name, const Operand& a, const Operand& b, const Operand& y);

// y = the sum (or the largest) of x's entries along an axis, which y has not.
void reduce(const Queue& queue, const std::string& name, const Operand& x, int axis, const Operand& y);

// keep[i] = whether word i of the seed's Philox stream keeps entry i; one byte each, contiguous.
void dropout_mask(const Queue& queue, std::uint64_t seed, double p, const Operand& keep);
// y = keep ? x * scale : 0.
void dropout_apply(const Queue& queue, const Operand& x, const Operand& keep, const Operand& y, double scale);

}  // namespace cuda
}  // namespace fastconv
