// Group norm of canonical views (N, C, D, H, W): the channels of a sample in equal groups of neighbours, each with its
// own statistics. One channel a group is instance norm. Samples are taken some at a time, so that what belongs to a
// channel of a sample stays small, and what was just read is still in the cache when it is normalised.
#pragma once

#include "ops/norm.h"

namespace fastconv {

// y = (x - mean) / sqrt(variance + eps) * weight + bias; writes the statistics, N * groups entries each. weight and
// bias have C entries.
void group_norm(const ArrayView& x, const ArrayView& y, ChannelLayout layout, std::int64_t groups, double eps,
                const double* weight, const double* bias, double* mean, double* variance);

// From the statistics of the forward pass; a null view as grad_input is left out. The gradients of weight and bias have
// C entries.
void group_norm_backward(const ArrayView& grad_output, const ArrayView& x, const ArrayView& grad_input,
                         ChannelLayout layout, std::int64_t groups, const double* mean, const double* invstd,
                         const double* weight, double* grad_weight, double* grad_bias);

}  // namespace fastconv
