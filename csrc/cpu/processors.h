// The processors that this process may use, and keeping the threads of a loop on different ones. Linux only.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastconv {

// Those that the calling thread may run on, and as many of them as its container pays for; at least 1.
int allowed_processors();
int paid_processors();

// Where the threads of one loop run. A thread that wakes up may be put on the processor of the thread that woke it even
// if another is idle: Linux looks for an idle one only when it expects to find one, and then moves neither for many
// milliseconds, as both rest between loops. Such a team takes as long as one thread.
class Seats {
 public:
  // For the thread that starts the loop.
  void take();
  // For the others: a thread whose processor is taken moves to one that no thread of the loop has, if it may run on
  // one.
  void take_another();
  // For the thread that started the loop, before it works: lets the others run that wait for its processor, so that
  // they can move.
  void make_way(int others);

 private:
  static constexpr int kMost = 1024, kBits = 64;
  std::atomic<std::uint64_t> taken_[kMost / kBits] = {};
  std::atomic<int> others_{0};  // that have come

  bool is_taken(int processor) const;
  bool take(int processor);  // false if it is taken
};

}  // namespace fastconv
