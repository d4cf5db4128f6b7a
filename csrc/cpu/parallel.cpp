#include "cpu/parallel.h"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "cpu/processors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastconv {
namespace {

int default_threads() {
  static const int limit = paid_processors();
  return limit;
}

std::atomic<int> requested_threads{0};  // 0: the default

constexpr int kThreadsAProcessor = 16;

// How many of `wanted` threads can be had. OpenMP ends the process when it cannot start a thread (the address space or
// the user's processes are limited), so a team larger than any that the calling thread had is tried out once, with
// threads that do nothing but wait until all of them are there. They neither allocate nor free, as std::thread's would:
// with its first such call a thread reserves a heap of its own, and the address space that was there is gone.
int startable(int wanted) {
  thread_local int tried = 1;
  static const int most = kThreadsAProcessor * allowed_processors();
  wanted = std::min(wanted, most);
  if (wanted <= tried) return wanted;
  std::mutex gate;
  std::vector<pthread_t> team(static_cast<std::size_t>(wanted - 1));
  std::size_t started = 0;
  {
    const std::lock_guard<std::mutex> closed(gate);
    const auto wait = [](void* at) -> void* {
      const std::lock_guard<std::mutex> passed(*static_cast<std::mutex*>(at));
      return nullptr;
    };
    while (started < team.size() && pthread_create(&team[started], nullptr, wait, &gate) == 0) ++started;
  }
  for (std::size_t i = 0; i < started; ++i) pthread_join(team[i], nullptr);
  return tried = started == team.size() ? wanted : 1;
}

// OpenMP's pool does not survive fork: its workers are gone, and the forking thread would wait for them forever.
// A thread born in the child has no pool yet, so there a parallel loop runs on such a thread.
std::atomic<bool> in_forked_child{false};
const int fork_handler = pthread_atfork(nullptr, nullptr, [] { in_forked_child.store(true); });

class FloatingPointMode {
 public:
#if defined(__x86_64__)
  explicit FloatingPointMode(Subnormals mode) : saved_(_mm_getcsr()) {
    constexpr unsigned flush_to_zero = 0x8000, denormals_are_zero = 0x0040;
    if (mode == Subnormals::flush) _mm_setcsr(saved_ | flush_to_zero | denormals_are_zero);
  }
  ~FloatingPointMode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  explicit FloatingPointMode(Subnormals) {}
#endif
};

thread_local int largest_team = 1;

std::atomic<double> thread_grain{10e3};  // nanoseconds

// ThreadSanitizer does not see how OpenMP hands a loop to its threads and waits for them, as libgomp is not compiled
// with it: here the order is told.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
#define FASTCONV_UNSEEN_BY_TSAN __attribute__((no_sanitize("thread")))
void order_after(void* loop) { __tsan_acquire(loop); }
void order_before(void* loop) { __tsan_release(loop); }
#else
#define FASTCONV_UNSEEN_BY_TSAN
void order_after(void*) {}
void order_before(void*) {}
#endif

struct Loop {
  std::int64_t items;
  Subnormals mode;
  ItemFunction function;
  void* context;
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error{};
  Seats seats{};

  void work() {
    const FloatingPointMode scope(mode);
    for (std::int64_t item; !failed.load(std::memory_order_relaxed) && (item = next.fetch_add(1)) < items;) {
      try {
        function(context, item);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    }
  }

  FASTCONV_UNSEEN_BY_TSAN void run(int threads) {
    order_before(this);
    largest_team = std::max(largest_team, threads);
    seats.take();
#pragma omp parallel num_threads(threads)
    {
      order_after(this);
      if (omp_get_thread_num() > 0)
        seats.take_another();
      else
        seats.make_way(threads - 1);
      work();
      order_before(this);
    }
    order_after(this);
  }
};

}  // namespace

int get_num_threads() {
  const int requested = requested_threads.load(std::memory_order_relaxed);
  // omp_get_max_threads reflects OMP_NUM_THREADS and what threadpoolctl set in the calling thread.
  return requested > 0 ? requested : std::max(1, std::min(omp_get_max_threads(), default_threads()));
}

int openmp_version() { return _OPENMP; }

double set_thread_grain(double nanoseconds) { return thread_grain.exchange(nanoseconds); }

void set_num_threads(int count) { requested_threads.store(count, std::memory_order_relaxed); }

void on_every_thread_raw(void (*function)(void* context), void* context) {
  // A forked child has lost the threads, and an inner team is another one.
  const int threads = omp_in_parallel() || in_forked_child.load(std::memory_order_relaxed) ? 1 : largest_team;
  order_before(context);
#pragma omp parallel num_threads(threads)
  {
    order_after(context);
    function(context);
    order_before(context);
  }
  order_after(context);
}

void parallel_for_raw(const Work& work, Subnormals mode, ItemFunction function, void* context) {
  if (work.items <= 0) return;
  Loop loop{work.items, mode, function, context};
  const double worth = std::max(1.0, work.nanoseconds / thread_grain.load(std::memory_order_relaxed));
  const double most = static_cast<double>(std::min<std::int64_t>(work.items, get_num_threads()));
  const int threads = omp_in_parallel() ? 1 : startable(static_cast<int>(std::min(worth, most)));
  if (threads == 1) {
    loop.work();
  } else if (in_forked_child.load(std::memory_order_relaxed)) {
    std::thread([&] { loop.run(threads); }).join();
  } else {
    loop.run(threads);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace fastconv
