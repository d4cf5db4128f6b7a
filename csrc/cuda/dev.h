// What kernels are written in. nvcc has CUDA's words itself; a host compiler gets them from the emulator, which lies in
// tests/emu. Kernels use these words and the primitives of the dev_*.h files only, and no assembly of their own.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define FASTCONV_DEVICE __device__ __forceinline__
#define FASTCONV_UNROLL _Pragma("unroll")  // before a loop over arrays that have to stay in registers
#define FASTCONV_NO_UNROLL _Pragma("unroll 1")

namespace fastconv {
namespace dev {

// The block's dynamic shared memory, the only kind that kernels use: the emulator can poison it.
template <class T>
FASTCONV_DEVICE T* shared_memory() {
  extern __shared__ __align__(128) unsigned char fastconv_shared[];
  return reinterpret_cast<T*>(fastconv_shared);
}
FASTCONV_DEVICE long long exchange_atomic(long long* at, long long value) {
  return static_cast<long long>(
      atomicExch(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value)));
}
FASTCONV_DEVICE void max_atomic(long long* at, long long value) { atomicMax(at, value); }

}  // namespace dev
}  // namespace fastconv
#else
#include <fastconv_emu.h>
#endif

namespace fastconv {

using Index = std::int64_t;  // all offsets are 64-bit

namespace dev {

// A loop over `count` items by all threads of the grid: for (Index i = first(); i < count; i += step()).
FASTCONV_DEVICE Index first() { return static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; }
FASTCONV_DEVICE Index step() { return static_cast<Index>(gridDim.x) * blockDim.x; }

FASTCONV_DEVICE Index smaller(Index a, Index b) { return a < b ? a : b; }
FASTCONV_DEVICE Index larger(Index a, Index b) { return a > b ? a : b; }

}  // namespace dev
}  // namespace fastconv
