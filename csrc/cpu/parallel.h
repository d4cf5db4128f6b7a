// Threads. This header and parallel.cpp are the only places that know OpenMP.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace fastconv {

int get_num_threads();
void set_num_threads(int count);
int openmp_version();  // yyyymm

// Subnormal float32 values may be flushed inside arithmetic kernels (they cost 5 to 100 times a normal one); the
// caller's floating-point mode comes back at the end.
enum class Subnormals { keep, flush };

using ItemFunction = void (*)(void* context, std::int64_t item);
void parallel_for_raw(std::int64_t items, Subnormals mode, ItemFunction function, void* context);

// Runs body(item) for item in [0, items), handed out one at a time to the threads. A body must give the same bits
// whichever thread runs it. An exception thrown by a body is rethrown here, after every thread has finished.
template <class Body>
void parallel_for(std::int64_t items, Subnormals mode, Body&& body) {
  using B = std::remove_reference_t<Body>;
  parallel_for_raw(
      items, mode, [](void* context, std::int64_t item) { (*static_cast<B*>(context))(item); },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

}  // namespace fastconv
