// Tensor cores: products of small matrices of 16-bit numbers, added up in float32 by the 32 lanes of a warp together.
// float16 from sm_75 on, bfloat16 from sm_80 on. Fragments are as the PTX ISA lays them out: lane l of a 16 by 16 left
// operand holds rows l / 4 and l / 4 + 8, columns 2 (l % 4), the next one, and both plus 8.
#pragma once

#include "core/half.h"
#include "cuda/dev.h"

namespace fastconv {
namespace dev {

// Four 8 by 8 matrices of 16-bit numbers from shared memory. Lane l says where row l % 8 of matrix l / 8 begins, on a
// multiple of 16 bytes; of each matrix it gets the elements 2 (l % 4) and the next one of row l / 4, of the transposed
// matrix if `Turned`.
template <bool Turned>
FASTCONV_DEVICE void load_matrices(const void* row, unsigned (&words)[4]) {
#if !defined(__CUDACC__)
  emu::load_matrices(row, Turned, words, __FILE__, __LINE__);
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (Turned)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
#endif
}

#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
// The 16 columns of the left operand are multiplied in halves.
FASTCONV_DEVICE void multiply_eight(const unsigned (&a)[2], unsigned b, float (&sum)[4]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(b));
}
#endif

// sum (16 by 8) += a (16 by 16) times b (16 by 8). Of b, a lane holds rows 2 (l % 4), the next one, and both plus 8 of
// column l / 4; of the sum, rows l / 4 and l / 4 + 8 of columns 2 (l % 4) and the next one.
FASTCONV_DEVICE void multiply(Float16, const unsigned (&a)[4], const unsigned (&b)[2], float (&sum)[4]) {
#if !defined(__CUDACC__)
  emu::multiply(Float16{}, a, b, sum, __FILE__, __LINE__);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  multiply_eight({a[0], a[1]}, b[0], sum);
  multiply_eight({a[2], a[3]}, b[1], sum);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
FASTCONV_DEVICE void multiply(BFloat16, const unsigned (&a)[4], const unsigned (&b)[2], float (&sum)[4]) {
#if !defined(__CUDACC__)
  emu::multiply(BFloat16{}, a, b, sum, __FILE__, __LINE__);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  __trap();  // there is no such instruction: `has_matrices` keeps such kernels from being started
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace dev
}  // namespace fastconv
