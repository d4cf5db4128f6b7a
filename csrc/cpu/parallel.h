// Threads. This header and parallel.cpp are the only places that know OpenMP.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "core/arithmetic.h"
#include "core/dtype.h"

namespace fastconv {

int get_num_threads();
void set_num_threads(int count);
int openmp_version();  // yyyymm

// Sets the least work that is worth a thread, in estimated nanoseconds, and returns what it was; 0 shares every loop
// out, for tests of the threads.
double set_thread_grain(double nanoseconds);

// Subnormal float32 values may be flushed inside arithmetic kernels (they cost 5 to 100 times a normal one); the
// caller's floating-point mode comes back at the end.
enum class Subnormals { keep, flush };
inline Subnormals subnormals_of(Dtype dtype) { return dtype == Dtype::f64 ? Subnormals::keep : Subnormals::flush; }

// What a loop has to do: its items, and how long all of them take one thread, in nanoseconds, as a rough estimate. A
// short loop stays on the calling thread: to wake another and wait for it costs microseconds, milliseconds on a machine
// with more runnable threads than processors.
struct Work {
  std::int64_t items;
  double nanoseconds;
};

using ItemFunction = void (*)(void* context, std::int64_t item);
void parallel_for_raw(const Work& work, Subnormals mode, ItemFunction function, void* context);

// Runs body(item) for item in [0, items), handed out one at a time to the threads. A body must give the same bits
// whichever thread runs it. An exception thrown by a body is rethrown here, after every thread has finished.
template <class Body>
void parallel_for(const Work& work, Subnormals mode, Body&& body) {
  using B = std::remove_reference_t<Body>;
  parallel_for_raw(
      work, mode, [](void* context, std::int64_t item) { (*static_cast<B*>(context))(item); },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

// Runs body() once on each thread that loops of the calling one have had.
void on_every_thread_raw(void (*function)(void* context), void* context);
template <class Body>
void on_every_thread(Body&& body) {
  using B = std::remove_reference_t<Body>;
  on_every_thread_raw([](void* context) { (*static_cast<B*>(context))(); },
                      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

constexpr std::int64_t kPiece = 32768;

// Runs body(begin, end) over pieces of kPiece of `count` elements, which cost so much each.
template <class Body>
void parallel_pieces(std::int64_t count, double nanoseconds_each, Subnormals mode, Body&& body) {
  parallel_for({ceil_div(count, kPiece), nanoseconds_each * static_cast<double>(count)}, mode,
               [&](std::int64_t item) { body(item * kPiece, std::min(count, (item + 1) * kPiece)); });
}

}  // namespace fastconv
