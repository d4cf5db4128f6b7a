// Cross entropy of logits (N, C, S): log-softmax over C and the target's share of it, block by block, so that no array
// of the logits' size is made on the way.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastconv {

struct CrossEntropy {
  Dtype dtype;
  const void* logits;  // dense (N, C, S)
  std::int64_t samples, classes, positions;
  const std::int64_t* target;  // dense (N, S), or null:
  const void* probabilities;   // dense (N, C, S)
  const double* weight;        // C entries
  std::int64_t ignore_index;
  double label_smoothing;
};

// Refuses a class that is out of range, naming it; returns what the mean divides by: the weights of the targets'
// classes, or the number of positions for probabilities.
double cross_entropy_divisor(const CrossEntropy& problem);

// The loss of each position into `losses` (N, S), of the problem's dtype, unless null; returns their sum.
double cross_entropy(const CrossEntropy& problem, void* losses);

// The gradient of the logits: each position's times grad_output[n * S + s], or times `factor` where that is null.
void cross_entropy_backward(const CrossEntropy& problem, const void* grad_output, double factor, void* grad_input);

}  // namespace fastconv
