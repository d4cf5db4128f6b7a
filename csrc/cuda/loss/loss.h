// Losses on a device. What the host would refuse after a look at the values, a class that does not exist, gives NaN.
#pragma once

#include "cuda/operand.h"

namespace fastconv {
namespace cuda {

// Sum of (a - b)^2, float64.
void squared_error(const Queue& queue, const Operand& a, const Operand& b, double* sum);

// Logits and targets, and the weights of the elements and of the positive ones (absent: 1), all of one shape.
struct BinaryCrossEntropy {
  Operand x, target, weight, pos_weight;
};
// The loss of each element, or its derivative by x, times `factor`.
void binary_cross_entropy(const Queue& queue, const BinaryCrossEntropy& problem, const Operand& y, bool derivative,
                          double factor);
void binary_cross_entropy_sum(const Queue& queue, const BinaryCrossEntropy& problem, double* sum);

// Logits (N, C, S), C-contiguous; class indices (N, S), int64, or probabilities like the logits; weight (C,) or absent.
struct CrossEntropy {
  Operand logits, target, weight;
  Index samples, classes, positions, ignore_index;
  double label_smoothing;

  bool by_class() const { return target.element == Element::int64; }
};
// Each position's loss, or, as one number, their sum or mean.
enum class Reduction : std::uint8_t { none, sum, mean };
void cross_entropy(const Queue& queue, const CrossEntropy& problem, Reduction reduction, const Operand& result);
// The logits' gradient; grad_output is (N, S) or one number for all, over the mean's divisor if `mean`.
void cross_entropy_backward(const Queue& queue, const CrossEntropy& problem, const Operand& grad_output, bool mean,
                            const Operand& grad_input);

}  // namespace cuda
}  // namespace fastconv
