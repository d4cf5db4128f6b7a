#include "cpu/workspace.h"

#include <atomic>

#include "cpu/parallel.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FASTCONV_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FASTCONV_ADDRESS_SANITIZER
#endif

namespace fastconv {
namespace {

#ifdef FASTCONV_ADDRESS_SANITIZER
constexpr bool kKeeps = false;  // a block that is larger than asked for would hide what is written behind it
#else
constexpr bool kKeeps = true;
#endif
constexpr std::size_t kLeastKept = std::size_t{32} << 10, kMostKept = std::size_t{16} << 20;
constexpr int kMostBlocks = 32;
constexpr std::size_t kSizes = 8;  // between a power of two and the next

// Sizes that are not far from each other share their blocks.
std::size_t size_class(std::size_t bytes) {
  std::size_t step = kLeastKept / kSizes;
  while (step * 2 * kSizes <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

Scratch allocate(std::size_t bytes) { return {std::aligned_alloc(kLineBytes, bytes), bytes}; }

std::atomic<unsigned> releases{0};

// What a thread has freed. No other touches it: it looks whether it is to release it when it comes here again.
class Kept {
 public:
  Kept() = default;
  ~Kept() { release(); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

  Scratch take(std::size_t bytes) {
    if (seen_ != releases.load(std::memory_order_relaxed)) release();
    const std::size_t size = size_class(bytes);
    int best = count_;
    for (int i = 0; i < count_; ++i) {
      const std::size_t own = blocks_[i].bytes;
      if (own >= size && own <= size + size / 4 && (best == count_ || own <= blocks_[best].bytes)) best = i;
    }
    Scratch block;
    if (best < count_) {
      block = remove(best);
    } else {
      while (count_ > 0 && in_use_ + kept_ + size > kMostKept) std::free(remove(0).data);
      block = allocate(size);
      if (!block.data) {
        release();
        block = allocate(size);
      }
    }
    if (block.data) in_use_ += block.bytes;
    return block;
  }

  void give(const Scratch& block) {
    in_use_ -= block.bytes;
    while (count_ > 0 && (count_ == kMostBlocks || kept_ + block.bytes > kMostKept)) std::free(remove(0).data);
    if (block.bytes > kMostKept) return std::free(block.data);
    blocks_[count_++] = block;
    kept_ += block.bytes;
  }

  std::size_t release() {
    seen_ = releases.load(std::memory_order_relaxed);
    const std::size_t released = kept_;
    while (count_ > 0) std::free(remove(count_ - 1).data);
    return released;
  }

 private:
  Scratch remove(int index) {
    const Scratch block = blocks_[index];
    std::copy(blocks_ + index + 1, blocks_ + count_, blocks_ + index);
    --count_;
    kept_ -= block.bytes;
    return block;
  }

  Scratch blocks_[kMostBlocks];  // the longest freed first
  int count_ = 0;
  std::size_t kept_ = 0, in_use_ = 0;
  unsigned seen_ = 0;
};

Kept& kept() {
  thread_local Kept own;
  return own;
}

}  // namespace

Scratch take_scratch(std::size_t bytes) {
  const std::size_t lines = rounded_up(bytes, std::size_t{kLineBytes});
  return kKeeps && lines >= kLeastKept ? kept().take(lines) : allocate(lines);
}

void give_scratch(const Scratch& block) {
  if (kKeeps && block.bytes >= kLeastKept)
    kept().give(block);
  else
    std::free(block.data);
}

std::size_t release_scratch() {
  releases.fetch_add(1, std::memory_order_relaxed);
  std::atomic<std::size_t> released{0};
  on_every_thread([&] { released.fetch_add(kept().release()); });
  return released.load();
}

}  // namespace fastconv
