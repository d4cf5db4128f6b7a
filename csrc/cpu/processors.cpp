#include "cpu/processors.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

namespace fastconv {
namespace {

// Processors that the container's quota pays for (cgroup v2, then v1); 0 when there is no limit.
int cgroup_quota() {
  long long quota = 0, period = 0;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(file, "%lld %lld", &quota, &period) != 2) quota = 0;
    std::fclose(file);
  } else if (std::FILE* quota_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) {
    if (std::fscanf(quota_file, "%lld", &quota) != 1) quota = 0;
    std::fclose(quota_file);
    if (std::FILE* period_file = std::fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r")) {
      if (std::fscanf(period_file, "%lld", &period) != 1) period = 0;
      std::fclose(period_file);
    }
  }
  return quota > 0 && period > 0 ? static_cast<int>(std::max(1LL, (quota + period - 1) / period)) : 0;
}

}  // namespace

int allowed_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
  return count > 0 ? count : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

int paid_processors() {
  const int quota = cgroup_quota();
  return quota > 0 ? std::min(quota, allowed_processors()) : allowed_processors();
}

bool Seats::is_taken(int processor) const {
  return taken_[processor / kBits].load(std::memory_order_relaxed) >> processor % kBits & 1;
}

bool Seats::take(int processor) {
  const std::uint64_t bit = std::uint64_t{1} << processor % kBits;
  return !(taken_[processor / kBits].fetch_or(bit, std::memory_order_relaxed) & bit);
}

void Seats::take() {
  const int here = sched_getcpu();
  if (here >= 0 && here < kMost) take(here);
}

void Seats::make_way(int others) {
  using Clock = std::chrono::steady_clock;
  // Another process may take the processor for milliseconds instead: such a loss comes at most so often.
  constexpr int kPause = 50;
  constexpr auto kLoss = std::chrono::microseconds(300);
  thread_local Clock::time_point not_before{};
  if (others_.load(std::memory_order_relaxed) >= others) return;
  const Clock::time_point begin = Clock::now();
  if (begin < not_before) return;
  sched_yield();
  const Clock::time_point end = Clock::now();
  if (end - begin > kLoss) not_before = end + kPause * (end - begin);
}

void Seats::take_another() {
  others_.fetch_add(1, std::memory_order_relaxed);
  const int here = sched_getcpu();
  if (here < 0 || here >= kMost || take(here)) return;
  cpu_set_t allowed, free;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  free = allowed;
  for (int i = 0; i < std::min<int>(kMost, CPU_SETSIZE); ++i)
    if (is_taken(i)) CPU_CLR(i, &free);
  if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof free, &free) != 0) return;  // which moves it at once
  take();
  // Unless someone else has said meanwhile where it may run. What it was may no longer be had: then wherever it can.
  cpu_set_t now;
  CPU_ZERO(&now);
  if (sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &free)) return;
  if (sched_setaffinity(0, sizeof allowed, &allowed) == 0) return;
  std::memset(&now, 0xff, sizeof now);
  sched_setaffinity(0, sizeof now, &now);
}

}  // namespace fastconv
