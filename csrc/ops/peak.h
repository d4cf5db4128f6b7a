// The arithmetic that this machine can do at most, for benchmarks to measure.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastconv {

// Runs `steps` register-wide multiply-adds on every chain of every thread in use, and returns how many operations that
// was, a multiply-add as two.
double multiply_adds(Dtype dtype, std::int64_t steps);

}  // namespace fastconv
