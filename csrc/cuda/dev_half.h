// Loads and stores of every element type: 16-bit types are widened to float32 and rounded once, to nearest even.
#pragma once

#include "core/dtype.h"
#include "cuda/dev.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fastconv {
namespace dev {

FASTCONV_DEVICE float wide(float value) { return value; }
FASTCONV_DEVICE double wide(double value) { return value; }
#if defined(__CUDACC__)
FASTCONV_DEVICE float wide(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }
FASTCONV_DEVICE float wide(BFloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
#else
FASTCONV_DEVICE float wide(Float16 value) { return widen(value); }
FASTCONV_DEVICE float wide(BFloat16 value) { return widen(value); }
#endif

FASTCONV_DEVICE float rounded(float value, float) { return value; }
FASTCONV_DEVICE double rounded(double value, double) { return value; }
#if defined(__CUDACC__)
FASTCONV_DEVICE Float16 rounded(float value, Float16) { return {__half_as_ushort(__float2half_rn(value))}; }
FASTCONV_DEVICE BFloat16 rounded(float value, BFloat16) { return {__bfloat16_as_ushort(__float2bfloat16_rn(value))}; }
#else
FASTCONV_DEVICE Float16 rounded(float value, Float16 like) { return narrow(value, like); }
FASTCONV_DEVICE BFloat16 rounded(float value, BFloat16 like) { return narrow(value, like); }
#endif

template <class S>
FASTCONV_DEVICE Compute<S> load(const S* from) {
  return wide(*from);
}
template <class S>
FASTCONV_DEVICE void store(S* to, Compute<S> value) {
  *to = rounded(value, S{});
}

}  // namespace dev
}  // namespace fastconv
