#include "cpu/registry.h"

#include <atomic>
#include <mutex>

namespace fastconv {
namespace {

using Lister = std::vector<KernelInfo> (*)();

struct State {
  std::mutex mutex;
  std::vector<Lister> listers;
  std::map<const char*, std::int64_t> counts;
  std::string forced;
  std::atomic<bool> any_forced{false};
};

State& state() {
  static State instance;
  return instance;
}

}  // namespace

void register_kernels(Lister list) { state().listers.push_back(list); }

std::vector<KernelInfo> kernel_table() {
  std::vector<KernelInfo> rows;
  for (Lister list : state().listers)
    for (const KernelInfo& row : list()) rows.push_back(row);
  return rows;
}

void force_kernel(const std::string& name) {
  if (!name.empty()) {
    bool known = false, usable = false;
    IsaMask available = 0;
    for (Isa isa : available_isas()) available |= isa_bit(isa);
    for (const KernelInfo& row : kernel_table())
      if (name == row.name) {
        known = true;
        usable = available & isa_bit(row.isa);
      }
    if (!known) fail("name: no kernel is called '" + name + "'; kernel_table() lists them");
    if (!usable) fail("name: kernel '" + name + "' needs an instruction set that this machine lacks");
  }
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.forced = name;
  s.any_forced.store(!name.empty());
}

std::string forced_kernel() {
  State& s = state();
  if (!s.any_forced.load(std::memory_order_relaxed)) return {};
  const std::lock_guard<std::mutex> lock(s.mutex);
  return s.forced;
}

void count_kernel(const KernelInfo& kernel) {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  ++s.counts[kernel.name];
}

std::map<std::string, std::int64_t> kernel_counts() {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  std::map<std::string, std::int64_t> counts;
  for (const auto& [name, count] : s.counts) counts[name] += count;
  return counts;
}

void reset_kernel_counts() {
  State& s = state();
  const std::lock_guard<std::mutex> lock(s.mutex);
  s.counts.clear();
}

}  // namespace fastconv
