// Scratch memory of one work item or one call: cache-line aligned, never initialised. A thread keeps what it freed, up
// to 16 MB, for what it needs next: the C library would give much of it back to the system, and each page that it gets
// from there again takes longer than filling it.
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

struct Scratch {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// At least so many bytes; null where there is no memory. To be given back by the same thread.
Scratch take_scratch(std::size_t bytes);
void give_scratch(const Scratch& block);
// Frees what the calling thread and those of its loops keep, and returns how much it was; others free it when they come
// here again.
std::size_t release_scratch();

template <class T>
class Workspace {
 public:
  explicit Workspace(std::int64_t count) {
    if (count > PTRDIFF_MAX / static_cast<std::int64_t>(sizeof(T)) - kLineBytes) throw std::bad_alloc();
    block_ = take_scratch(static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(T));
    if (!block_.data) throw std::bad_alloc();
  }
  ~Workspace() { give_scratch(block_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  T* data() { return static_cast<T*>(block_.data); }
  operator T*() { return data(); }

 private:
  Scratch block_;
};

}  // namespace fastconv
