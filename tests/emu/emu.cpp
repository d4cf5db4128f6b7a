#include <fastconv_emu.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fastconv {
namespace emu {

Schedule schedule;
Thread* current = nullptr;
Dim3 block_dim, grid_dim;
unsigned char* shared_bytes = nullptr;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStack = std::size_t{256} << 10;
#else
constexpr std::size_t kStack = std::size_t{64} << 10;
#endif
constexpr int kMostThreads = 1024;
constexpr std::size_t kMostShared = std::size_t{227} << 10;
constexpr std::size_t kGuard = 256;
constexpr unsigned char kPoison = 0xff, kGuardByte = 0xa5;  // as float16, float32 and float64, 0xff... is a NaN

// --- contexts: where a fiber goes on --------------------------------------------------------------------------------

#if defined(__x86_64__)
struct Context {
  void* stack_pointer = nullptr;
};
extern "C" void fastconv_emu_switch(void** save, void* load);
asm(R"(
.text
.type fastconv_emu_switch,@function
fastconv_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastconv_emu_switch,.-fastconv_emu_switch
)");
void start_context(Context& context, unsigned char* stack, void (*entry)()) {
  auto top = reinterpret_cast<std::uintptr_t>(stack + kStack) & ~std::uintptr_t{15};
  auto* words = reinterpret_cast<void**>(top);
  *--words = nullptr;  // where `entry` would return to; keeps the stack aligned as after a call
  *--words = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--words = nullptr;
  context.stack_pointer = words;
}
void switch_context(Context& from, Context& to) { fastconv_emu_switch(&from.stack_pointer, to.stack_pointer); }
#else
struct Context {
  ucontext_t value;
};
void start_context(Context& context, unsigned char* stack, void (*entry)()) {
  getcontext(&context.value);
  context.value.uc_stack.ss_sp = stack;
  context.value.uc_stack.ss_size = kStack;
  context.value.uc_link = nullptr;
  makecontext(&context.value, entry, 0);
}
void switch_context(Context& from, Context& to) { swapcontext(&from.value, &to.value); }
#endif

// --- the block that is running --------------------------------------------------------------------------------------

struct Copy {
  void* to;
  const void* from;
  std::size_t count, zeros;
};

struct Fiber {
  std::vector<unsigned char> stack;
  Context context;
};

std::mutex one_launch;
std::vector<Fiber> fibers;
std::vector<int> free_fibers;
std::vector<Thread> threads;
std::vector<std::vector<std::vector<Copy>>> copies;  // of each thread: groups of copies, the last one still open
std::vector<int> turn_order;
std::size_t cursor = 0;
Context scheduler;
const std::function<void()>* kernel = nullptr;
std::string problem;
std::vector<unsigned char> shared_memory;
std::vector<unsigned char> exchanges;  // two buffers a warp: of the operation under way, and of the one before
std::vector<int> arrived;              // lanes of each warp that are at its operation
std::vector<std::int64_t> pauses;

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
std::size_t scheduler_size = 0;
#endif

void to_scheduler(Context& from) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_size);
  switch_context(from, scheduler);
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
#else
  switch_context(from, scheduler);
#endif
}

void to_fiber(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack.data(), kStack);
  switch_context(scheduler, fiber.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  switch_context(scheduler, fiber.context);
#endif
}

// Runs the current thread, and then, on the same fiber, those that have their turn next and have not begun.
void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
  for (;;) {
    const int fiber = current->fiber;
    (*kernel)();
    current->state = State::done;
    if (cursor + 1 < turn_order.size()) {
      Thread& next = threads[static_cast<std::size_t>(turn_order[cursor + 1])];
      if (next.state == State::fresh) {
        ++cursor;
        current = &next;
        next.fiber = fiber;
        continue;
      }
    }
    free_fibers.push_back(fiber);
    current->fiber = -1;
    to_scheduler(fibers[static_cast<std::size_t>(fiber)].context);
  }
}

void leave(State state, const char* file, int line) {
  current->state = state;
  current->file = file;
  current->line = line;
  to_scheduler(fibers[static_cast<std::size_t>(current->fiber)].context);
}

void run(Thread& thread) {
  if (thread.state == State::fresh) {
    if (free_fibers.empty()) {
      free_fibers.push_back(static_cast<int>(fibers.size()));
      fibers.emplace_back();
      fibers.back().stack.resize(kStack);
    }
    thread.fiber = free_fibers.back();
    free_fibers.pop_back();
    Fiber& fiber = fibers[static_cast<std::size_t>(thread.fiber)];
#if defined(__SANITIZE_ADDRESS__)
    // The thread before on this stack did not return from its last frames, whose marks are still there.
    __asan_unpoison_memory_region(fiber.stack.data(), kStack);
#endif
    start_context(fiber.context, fiber.stack.data(), fiber_main);
  }
  thread.state = State::ready;
  current = &thread;
  to_fiber(fibers[static_cast<std::size_t>(thread.fiber)]);
  if (!problem.empty()) throw std::runtime_error(problem);
}

std::string place(const Thread& thread) {
  const std::string file = thread.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(thread.line);
}

// Nobody can go on: all are at one barrier, which opens, or the launch hangs.
void open_barrier() {
  std::int64_t waiting = 0, left = 0;
  const Thread* first = nullptr;
  for (const Thread& thread : threads) {
    if (thread.state == State::at_warp)
      throw std::runtime_error("deadlock: thread " + std::to_string(thread.number) + " waits for its warp at " +
                               place(thread));
    if (thread.state == State::done) {
      ++left;
      continue;
    }
    ++waiting;
    if (!first) first = &thread;
    if (thread.line != first->line || std::strcmp(thread.file, first->file) != 0)
      throw std::runtime_error("divergent barrier: threads wait at " + place(*first) + " and at " + place(thread));
  }
  if (left > 0)
    throw std::runtime_error("divergent barrier: " + std::to_string(waiting) + " threads wait at " + place(*first) +
                             ", " + std::to_string(left) + " have left the kernel");
  for (Thread& thread : threads) thread.state = State::ready;
}

void run_block(Dim3 block, std::mt19937_64& random) {
  const std::size_t count = threads.size();
  std::fill(shared_memory.begin(), shared_memory.end() - static_cast<std::ptrdiff_t>(kGuard), kPoison);
  std::fill(shared_memory.end() - static_cast<std::ptrdiff_t>(kGuard), shared_memory.end(), kGuardByte);
  std::fill(arrived.begin(), arrived.end(), 0);
  std::fill(pauses.begin(), pauses.end(), 0);
  for (std::size_t i = 0; i < count; ++i) {
    threads[i] = Thread{};
    threads[i].number = static_cast<int>(i);
    threads[i].index.x = static_cast<unsigned>(i);
    threads[i].index.y = threads[i].index.z = 0;
    threads[i].block = block;
    copies[i].assign(1, {});
  }
  std::iota(turn_order.begin(), turn_order.end(), 0);
  if (schedule.order == Order::reverse) std::reverse(turn_order.begin(), turn_order.end());
  for (;;) {
    if (schedule.order == Order::random) std::shuffle(turn_order.begin(), turn_order.end(), random);
    bool progress = false;
    for (cursor = 0; cursor < count; ++cursor) {
      Thread& thread = threads[static_cast<std::size_t>(turn_order[cursor])];
      if (thread.state != State::fresh && thread.state != State::ready) continue;
      progress = true;
      run(thread);
    }
    if (progress) continue;
    if (std::all_of(threads.begin(), threads.end(), [](const Thread& t) { return t.state == State::done; })) break;
    open_barrier();
  }
  for (std::size_t i = shared_memory.size() - kGuard; i < shared_memory.size(); ++i)
    if (shared_memory[i] != kGuardByte) throw std::runtime_error("a write past the end of shared memory");
  for (const auto& groups : copies)
    for (const auto& group : groups)
      if (!group.empty()) throw std::runtime_error("an asynchronous copy was never waited for");
}

void finish(std::vector<Copy>& group) {
  for (Copy& copy : group) {
    std::memcpy(copy.to, copy.from, copy.count);
    std::memset(static_cast<unsigned char*>(copy.to) + copy.count, 0, copy.zeros);
  }
  group.clear();
}

}  // namespace

void stop(const std::string& message) {
  problem = message;
  to_scheduler(fibers[static_cast<std::size_t>(current->fiber)].context);
  std::abort();  // the scheduler never comes back to this fiber
}

void barrier(const char* file, int line) { leave(State::at_barrier, file, line); }

void pause(const char* file, int line) {
  if (++pauses[static_cast<std::size_t>(current->number)] > schedule.patience)
    stop("hang: thread " + std::to_string(current->number) + " waits at line " + std::to_string(line));
  leave(State::ready, file, line);
}

const unsigned char* exchange(const void* bytes, std::size_t size, const char* file, int line) {
  const auto warp = static_cast<std::size_t>(current->number / kWarp);
  const auto size_of_warp = static_cast<std::size_t>(kWarp) * kExchange;
  const std::size_t buffer = (2 * warp + static_cast<std::size_t>(current->warp_operations++ & 1)) * size_of_warp;
  unsigned char* all = exchanges.data() + buffer;
  std::memcpy(all + static_cast<std::size_t>(lane()) * kExchange, bytes, size);
  if (++arrived[warp] < kWarp) {
    leave(State::at_warp, file, line);
    return all;
  }
  arrived[warp] = 0;
  for (std::size_t i = warp * kWarp; i < (warp + 1) * kWarp; ++i) {
    Thread& other = threads[i];
    if (&other == current) continue;
    if (other.line != line || std::strcmp(other.file, file) != 0)
      stop("divergent warp: lanes wait at " + place(other) + " and at line " + std::to_string(line));
    other.state = State::ready;
  }
  return all;
}

void copy_async(void* to, const void* from, std::size_t bytes, std::size_t zeros) {
  const std::size_t unit = bytes + zeros;
  if (reinterpret_cast<std::uintptr_t>(to) % unit != 0 || reinterpret_cast<std::uintptr_t>(from) % unit != 0)
    stop("an asynchronous copy of " + std::to_string(unit) + " bytes that is not aligned to them");
  std::vector<Copy>& open = copies[static_cast<std::size_t>(current->number)].back();
  open.push_back({to, from, bytes, zeros});
  if (schedule.early_copies) finish(open);
}

void commit_copies() { copies[static_cast<std::size_t>(current->number)].emplace_back(); }

void wait_copies(int groups_left) {
  auto& groups = copies[static_cast<std::size_t>(current->number)];
  const std::size_t closed = groups.size() - 1, keep = static_cast<std::size_t>(groups_left);
  for (std::size_t i = 0; i + keep < closed; ++i) finish(groups[i]);
  if (closed > keep) groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(closed - keep));
}

void launch(std::int64_t blocks, int count, std::size_t shared, const std::function<void()>& body) {
  if (blocks < 1 || blocks > 0x7fffffff || count < 1 || count > kMostThreads || shared > kMostShared)
    throw std::runtime_error("invalid configuration: " + std::to_string(blocks) + " blocks of " +
                             std::to_string(count) + " threads, " + std::to_string(shared) + " bytes");
  const std::lock_guard<std::mutex> only(one_launch);
  const auto size = static_cast<std::size_t>(count);
  threads.resize(size);
  copies.resize(size);
  turn_order.resize(size);
  pauses.resize(size);
  shared_memory.assign(shared + kGuard, kPoison);
  const std::size_t warps = (size + kWarp - 1) / kWarp;
  arrived.assign(warps, 0);
  exchanges.resize(2 * warps * kWarp * kExchange);
  shared_bytes = shared_memory.data();
  block_dim = {static_cast<unsigned>(count), 1, 1};
  grid_dim = {static_cast<unsigned>(blocks), 1, 1};
  kernel = &body;
  problem.clear();
  std::mt19937_64 random(schedule.seed);
  try {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::int64_t number = schedule.order == Order::reverse ? blocks - 1 - b : b;
      run_block({static_cast<unsigned>(number), 0, 0}, random);
    }
  } catch (...) {
    free_fibers.clear();
    for (std::size_t i = 0; i < fibers.size(); ++i) free_fibers.push_back(static_cast<int>(i));
    throw;
  }
}

}  // namespace emu
}  // namespace fastconv
