// Layer norm: every row of an array has its own statistics, every entry of a row its own weight. Rows of a group (a row
// index modulo `groups`) share their weights: group norm of (N, C) is N * groups rows of C / groups entries.
#pragma once

#include "core/dtype.h"
#include "ops/loop_nest.h"

namespace fastconv {

struct LayerNorm {
  Dtype dtype;
  std::int64_t rows, groups, length;  // the arrays have rows * groups * length elements, in C order
  const void* weight;                 // dense, groups * length entries, or null
};

// y = (x - mean) / sqrt(variance + eps) * weight + bias, y in C order; writes the statistics of each row. bias is as
// weight.
void layer_norm(const LayerNorm& problem, const Strided& x, const Strided& y, const void* bias, double eps,
                double* mean, double* variance);

// From the statistics of the forward pass: grad_input, in C order, and the gradients of weight and bias, of
// groups * length entries. Those whose data are null are left out.
void layer_norm_backward(const LayerNorm& problem, const Strided& grad_output, const Strided& x,
                         const Strided& grad_input, const double* mean, const double* invstd, double* grad_weight,
                         double* grad_bias);

}  // namespace fastconv
