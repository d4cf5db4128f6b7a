// CUDA's words for kernels compiled as host C++: each CUDA thread of a block runs on a fiber, so that barriers and warp
// operations really wait; blocks run one after another. What a GPU would leave to chance is varied on purpose: shared
// memory starts as NaN, the order of threads and blocks follows the schedule, asynchronous copies arrive late or early.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __restrict__
#define __launch_bounds__(...)
#define FASTCONV_DEVICE inline
#define FASTCONV_UNROLL
#define FASTCONV_NO_UNROLL

namespace fastconv {
namespace emu {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

enum class State : std::uint8_t { fresh, ready, at_barrier, at_warp, done };

// One CUDA thread.
struct Thread {
  Dim3 index, block;
  State state = State::fresh;
  int number = 0, fiber = -1;
  std::int64_t warp_operations = 0;
  const char* file = "";
  int line = 0;
};

enum class Order : std::uint8_t { forward, reverse, random };

// What the hardware leaves open.
struct Schedule {
  Order order = Order::forward;
  std::uint64_t seed = 0;
  bool early_copies = false;        // asynchronous copies arrive at once; otherwise when they are waited for
  std::int64_t patience = 1 << 20;  // calls of `pause` that a thread may make before it counts as hung
};

extern Schedule schedule;
extern Thread* current;
extern Dim3 block_dim, grid_dim;
extern unsigned char* shared_bytes;

constexpr int kWarp = 32;
constexpr std::size_t kExchange = 64;  // bytes that a lane can hand to the others in one warp operation

// Waits until every thread of the block is here.
void barrier(const char* file, int line);
// Waits for the warp's 32 lanes; returns what each handed in, `kExchange` bytes a lane.
const unsigned char* exchange(const void* bytes, std::size_t size, const char* file, int line);
// One turn of a loop that waits for another thread's write.
void pause(const char* file, int line);
// Ends the launch with an error.
[[noreturn]] void stop(const std::string& message);

// Copies that the thread has started and not waited for, in groups.
void copy_async(void* to, const void* from, std::size_t bytes, std::size_t zeros);
void commit_copies();
void wait_copies(int groups_left);

void launch(std::int64_t blocks, int threads, std::size_t shared, const std::function<void()>& body);

inline int lane() { return current->number % kWarp; }

template <class T>
T from_lane(T value, int source, const char* file, int line) {
  static_assert(sizeof(T) <= kExchange, "too large for an exchange");
  const unsigned char* all = exchange(&value, sizeof value, file, line);
  T result = value;
  if (source >= 0 && source < kWarp)
    std::memcpy(&result, all + static_cast<std::size_t>(source) * kExchange, sizeof result);
  return result;
}

}  // namespace emu

namespace dev {

template <class T>
inline T* shared_memory() {
  return reinterpret_cast<T*>(emu::shared_bytes);
}
inline long long exchange_atomic(long long* at, long long value) {
  const long long old = *at;
  *at = value;
  return old;
}
inline void max_atomic(long long* at, long long value) {
  if (*at < value) *at = value;
}

}  // namespace dev
}  // namespace fastconv

#include "matrices.h"

#define threadIdx (::fastconv::emu::current->index)
#define blockIdx (::fastconv::emu::current->block)
#define blockDim (::fastconv::emu::block_dim)
#define gridDim (::fastconv::emu::grid_dim)
#define __syncthreads() ::fastconv::emu::barrier(__FILE__, __LINE__)
#define __syncwarp() static_cast<void>(::fastconv::emu::from_lane(0, 0, __FILE__, __LINE__))
#define __shfl_xor_sync(mask, value, bits) \
  ::fastconv::emu::from_lane(value, ::fastconv::emu::lane() ^ (bits), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, by) \
  ::fastconv::emu::from_lane(value, ::fastconv::emu::lane() + (by), __FILE__, __LINE__)
#define FASTCONV_PAUSE() ::fastconv::emu::pause(__FILE__, __LINE__)
