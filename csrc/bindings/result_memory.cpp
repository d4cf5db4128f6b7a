#include "bindings/result_memory.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>

#include "cpu/workspace.h"

namespace py = pybind11;

namespace fastconv {
namespace {

constexpr std::size_t kAlwaysKept = std::size_t{256} << 20;  // bytes of freed ones, whatever was in use before
constexpr std::size_t kMostBlocks = 4096;
constexpr std::size_t kLargePage = std::size_t{2} << 20;
constexpr std::size_t kOnLargePages = std::size_t{4} << 20;  // from here on NumPy asks for them too

struct Block {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// What memory of so many bytes begins and ends with.
std::size_t unit_of(std::size_t bytes) {
  return bytes >= kOnLargePages ? kLargePage : bytes >= kKeptResult ? kPageBytes : kLineBytes;
}

std::size_t whole_units(std::size_t bytes) {
  const std::size_t unit = unit_of(bytes);
  return bytes > SIZE_MAX - unit ? 0 : (bytes + unit - 1) / unit * unit;
}

// Null where there is no memory.
Block allocate(std::size_t bytes) {
  const std::size_t unit = unit_of(bytes), size = whole_units(bytes);
  if (size == 0) return {};
  void* const data = std::aligned_alloc(unit, size);
#ifdef MADV_HUGEPAGE
  // Where it is refused, small pages serve.
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(data) % kPageBytes;
  if (data && size >= kOnLargePages) madvise(static_cast<char*>(data) + before, size - before, MADV_HUGEPAGE);
#endif
  return {data, data ? size : 0};
}

// An eighth of the memory of the machine or of the container.
std::size_t most_kept() {
  std::size_t memory = 0;
#ifdef __linux__
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) memory = static_cast<std::size_t>(pages) * static_cast<std::size_t>(page);
  std::ifstream limit("/sys/fs/cgroup/memory.max");
  if (std::size_t bytes = 0; limit >> bytes) memory = std::min(memory, bytes);  // "max": not a number
#endif
  return std::max(kAlwaysKept, memory / 8);
}

// Freed blocks for the next results. With those in use they are at most twice what was once in use together,
// or 256 MB: a loop of results of several sizes finds what its last turn freed.
class FreedBlocks {
 public:
  FreedBlocks() { blocks_.reserve(kMostBlocks + 1); }  // so that none is lost for want of memory

  // Of at least so many bytes, and at most a quarter or a unit more; null where there is no memory.
  Block take(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Block block = find(bytes);
    in_use_ += block.bytes;
    most_in_use_ = std::max(most_in_use_, in_use_);
    trim();
    return block;
  }

  void give(const Block& block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    in_use_ -= block.bytes;
    if (block.bytes > bound()) return std::free(block.data);
    blocks_.push_back(block);
    kept_ += block.bytes;
    trim();
  }

  std::size_t release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t released = kept_;
    while (!blocks_.empty()) std::free(remove(blocks_.size() - 1).data);
    most_in_use_ = in_use_;
    return released;
  }

 private:
  std::size_t bound() const { return std::min(std::max(2 * most_in_use_ - in_use_, kAlwaysKept), most_kept_); }

  // The longest freed go first.
  void trim() {
    while (kept_ > bound() || blocks_.size() > kMostBlocks) std::free(remove(0).data);
  }

  Block find(std::size_t bytes) {
    std::size_t best = blocks_.size();
    const std::size_t most = std::max(whole_units(bytes), bytes + bytes / 4);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const std::size_t size = blocks_[i].bytes;
      if (size >= bytes && size <= most && (best == blocks_.size() || size < blocks_[best].bytes)) best = i;
    }
    if (best < blocks_.size()) return remove(best);
    Block fresh = allocate(bytes);
    if (!fresh.data) {
      while (!blocks_.empty()) std::free(remove(0).data);
      fresh = allocate(bytes);
    }
    return fresh;
  }

  Block remove(std::size_t index) {
    const Block block = blocks_[index];
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(index));
    kept_ -= block.bytes;
    return block;
  }

  std::mutex mutex_;
  std::vector<Block> blocks_;  // the longest freed first
  std::size_t kept_ = 0, in_use_ = 0, most_in_use_ = 0;
  const std::size_t most_kept_ = most_kept();
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
    if (kept_)
      freed_blocks().give(block_);
    else
      std::free(block_.data);
  }
  void* take(std::size_t bytes) {
    // By whole lines: what is not kept shall not become as large as what is.
    kept_ = bytes > kKeptResult - kLineBytes;
    block_ = kept_ ? freed_blocks().take(bytes) : allocate(bytes);
    kept_ = kept_ && block_.data;
    return block_.data;
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  Block block_;
  bool kept_ = false;
};

}  // namespace

std::size_t release_memory() { return freed_blocks().release(); }

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
