#include "bindings/result_memory.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "cpu/workspace.h"

namespace py = pybind11;

namespace fastconv {
namespace {

constexpr std::size_t kMostKept = std::size_t{256} << 20;  // bytes of all freed ones together
constexpr std::size_t kLargePage = std::size_t{2} << 20;
constexpr std::size_t kOnLargePages = std::size_t{4} << 20;  // from here on NumPy asks for them too

struct Block {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// Of whole units, beginning with one; null where there is no memory.
Block allocate(std::size_t bytes, std::size_t unit) {
  if (bytes > SIZE_MAX - unit) return {};
  const std::size_t size = (bytes + unit - 1) / unit * unit;
  void* const data = std::aligned_alloc(unit, size);
#ifdef MADV_HUGEPAGE
  // Where it is refused, small pages serve.
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(data) % kPageBytes;
  if (data && size >= kOnLargePages) madvise(static_cast<char*>(data) + before, size - before, MADV_HUGEPAGE);
#endif
  return {data, data ? size : 0};
}

class FreedBlocks {
 public:
  FreedBlocks() { blocks_.reserve(kMostKept / kKeptResult + 1); }  // so that none is lost for want of memory

  // Of at least so many bytes, and at most a quarter more; null where there is no memory.
  Block take(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::size_t best = blocks_.size();
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const std::size_t size = blocks_[i].bytes;
      if (size >= bytes && size <= bytes + bytes / 4 && (best == blocks_.size() || size < blocks_[best].bytes))
        best = i;
    }
    if (best < blocks_.size()) return remove(best);
    Block fresh = allocate(bytes, kLargePage);
    if (!fresh.data) {
      while (!blocks_.empty()) std::free(remove(0).data);
      fresh = allocate(bytes, kLargePage);
    }
    return fresh;
  }

  void give(const Block& block) {
    if (block.bytes < kKeptResult || block.bytes > kMostKept) return std::free(block.data);
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(block);
    kept_ += block.bytes;
    while (kept_ > kMostKept) std::free(remove(0).data);
  }

 private:
  Block remove(std::size_t index) {
    const Block block = blocks_[index];
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(index));
    kept_ -= block.bytes;
    return block;
  }

  std::mutex mutex_;
  std::vector<Block> blocks_;  // the longest freed first
  std::size_t kept_ = 0;
};

// Never destroyed: an array may outlive everything else.
FreedBlocks& freed_blocks() {
  static FreedBlocks* const all = new FreedBlocks;
  return *all;
}

// What an array owns.
class Lease {
 public:
  Lease() = default;
  ~Lease() {
    if (block_.data) freed_blocks().give(block_);
  }
  void* take(std::size_t bytes) {
    // By whole lines: what is not kept shall not become as large as what is.
    const bool kept = bytes > static_cast<std::size_t>(kKeptResult - kLineBytes);
    block_ = kept ? freed_blocks().take(bytes) : allocate(bytes, kLineBytes);
    return block_.data;
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  Block block_;
};

}  // namespace

py::array result_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape, py::ssize_t bytes) {
  if (bytes < kAlignedResult) return py::array(dtype, shape);
  auto lease = std::make_unique<Lease>();
  void* const data = lease->take(static_cast<std::size_t>(bytes));
  if (!data) return py::array(dtype, shape);  // which says so in NumPy's words
  const py::capsule owner(lease.get(), [](void* owned) { delete static_cast<Lease*>(owned); });
  lease.release();
  return py::array(dtype, shape, data, owner);
}

}  // namespace fastconv
