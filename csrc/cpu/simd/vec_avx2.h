// Register widths of the avx2 kernels.
#pragma once

#include "cpu/simd/vec.h"

namespace {

// AVX2: 32-byte registers.
template <class T>
using Reg = Vec<T, 32 / static_cast<int>(sizeof(T))>;

}  // namespace
