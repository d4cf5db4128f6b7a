// Copies from global to shared memory that go on while the thread computes: cp.async from sm_80 on, plain copies
// before.
#pragma once

#include "cuda/dev.h"

namespace fastconv {
namespace dev {

// Starts a copy of `Bytes` (4, 8 or 16, both ends aligned to it); zeros are written where not `live`, and then `from`
// is not read, but must still be an address inside an array.
template <int Bytes>
FASTCONV_DEVICE void copy_async(void* to, const void* from, bool live) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "what cp.async can copy");
#if !defined(__CUDACC__)
  emu::copy_async(to, from, live ? Bytes : 0, live ? 0 : Bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int count = live ? Bytes : 0;
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(count) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(Bytes), "r"(count)
                 : "memory");
#else
  struct alignas(Bytes) Piece {
    unsigned words[Bytes / 4];
  };
  Piece piece{};
  if (live) piece = *static_cast<const Piece*>(from);
  *static_cast<Piece*>(to) = piece;
#endif
}

// Ends a group of copies.
FASTCONV_DEVICE void commit_copies() {
#if !defined(__CUDACC__)
  emu::commit_copies();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `Left` of the thread's own groups are under way; other threads see them after a barrier.
template <int Left>
FASTCONV_DEVICE void wait_copies() {
#if !defined(__CUDACC__)
  emu::wait_copies(Left);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
#endif
}

}  // namespace dev
}  // namespace fastconv
