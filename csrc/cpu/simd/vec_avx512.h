// Register widths of the avx512 kernels.
#pragma once

#include "cpu/simd/vec.h"

namespace {

// AVX-512: 64-byte registers.
template <class T>
using Reg = Vec<T, 64 / static_cast<int>(sizeof(T))>;

}  // namespace
