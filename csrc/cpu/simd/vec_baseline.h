// Register widths of the baseline kernels.
#pragma once

#include "cpu/simd/vec.h"

namespace {

// SSE4.2-or-NEON: 16-byte registers.
template <class T>
using Reg = Vec<T, 16 / static_cast<int>(sizeof(T))>;

}  // namespace
