// The update rules that large networks are trained with, in one pass over the parameter and what is remembered of it.
// Arrays are dense, of float32 or float64; `fastconv.optim` has the formulas.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastconv {

struct SgdRule {
  double rate, momentum, weight_decay, l1;
  bool nesterov;
};

// `velocity` may be null, and where `first` it is not read.
void sgd_update(Dtype dtype, std::int64_t count, void* data, const void* grad, void* velocity, bool first,
                const SgdRule& rule);

struct AdamRule {
  double rate, beta1, beta2;
  double correction;  // what the square root of the mean square is divided by
  double eps, weight_decay;
  double shrink;  // of the parameter before its step
};

// `largest` may be null.
void adam_update(Dtype dtype, std::int64_t count, void* data, const void* grad, void* mean, void* square, void* largest,
                 const AdamRule& rule);

}  // namespace fastconv
