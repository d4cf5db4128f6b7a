// Scratch memory of one work item or one call: cache-line aligned, never initialised, freed with its owner.
// Small blocks come from the C library's per-thread cache, so a call allocates without a system call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "core/arithmetic.h"

namespace fastconv {

// Elements of scratch that the threads of a call share: packed weights, or parts of sums.
template <class T>
constexpr std::int64_t kMostElements = (std::int64_t{16} << 20) / static_cast<std::int64_t>(sizeof(T));

constexpr std::int64_t kLineBytes = 64, kPageBytes = 4096;  // of the cache, and of the system's small pages

template <class T>
class Workspace {
 public:
  explicit Workspace(std::int64_t count) {
    if (count > PTRDIFF_MAX / static_cast<std::int64_t>(sizeof(T)) - kLineBytes) throw std::bad_alloc();
    const std::int64_t bytes = rounded_up(std::max<std::int64_t>(count, 1) * sizeof(T), kLineBytes);
    data_ = static_cast<T*>(std::aligned_alloc(kLineBytes, static_cast<std::size_t>(bytes)));
    if (!data_) throw std::bad_alloc();
  }
  ~Workspace() { std::free(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  T* data() { return data_; }
  operator T*() { return data_; }

 private:
  T* data_;
};

}  // namespace fastconv
