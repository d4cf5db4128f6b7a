// Where a call runs. Host code that starts no kernel itself needs no more of CUDA than this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace fastconv {

using Index = std::int64_t;

namespace cuda {

// The caller's stream and memory. What `scratch` returns lives until the call has been put on the stream; the array
// library reuses the memory for later work of the same stream only.
struct Queue {
  void* stream = nullptr;
  std::function<void*(std::size_t bytes)> scratch;
};

}  // namespace cuda
}  // namespace fastconv
