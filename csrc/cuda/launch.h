// How host code starts kernels: a one-dimensional grid on the caller's stream.
#pragma once

#include <algorithm>
#include <cstddef>

#include "core/arithmetic.h"
#include "cuda/dev.h"
#include "cuda/queue.h"

namespace fastconv {
namespace cuda {

constexpr int kThreads = 256;                // of a block, where a kernel does not say otherwise
constexpr Index kMostBlocks = 1 << 20;       // a grid's threads loop over what is beyond
constexpr std::size_t kPlainShared = 49152;  // bytes of shared memory that a kernel has without asking

struct Grid {
  Index blocks = 1;
  int threads = kThreads;
  std::size_t shared = 0;
};

// Enough blocks for one item a thread, or as many as are useful.
inline Grid grid_of(Index items, int threads = kThreads) {
  return {std::clamp<Index>(ceil_div(items, threads), 1, kMostBlocks), threads, 0};
}

// Defined by runtime.cu, and by the emulator.
void check_launch();
void allow_shared(const void* kernel, std::size_t bytes);
int compute_capability();  // of the current device: 75, 80, ...

template <class... Parameters, class... Arguments>
void launch(const Queue& queue, Grid grid, void (*kernel)(Parameters...), Arguments... arguments) {
#if defined(__CUDACC__)
  if (grid.shared > kPlainShared) allow_shared(reinterpret_cast<const void*>(kernel), grid.shared);
  kernel<<<static_cast<unsigned>(grid.blocks), grid.threads, grid.shared, static_cast<cudaStream_t>(queue.stream)>>>(
      static_cast<Parameters>(arguments)...);
  check_launch();
#else
  static_cast<void>(queue);
  emu::launch(grid.blocks, grid.threads, grid.shared, [&] { kernel(static_cast<Parameters>(arguments)...); });
#endif
}

}  // namespace cuda
}  // namespace fastconv
