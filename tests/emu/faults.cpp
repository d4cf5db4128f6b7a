// Kernels with one planted fault each, and the same kernels without it: `faults NAME SCHEDULE`. What goes wrong is
// printed, and the exit status is 1 (or AddressSanitizer's).
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/dev.h"
#include "cuda/dev_async.h"
#include "cuda/dev_block.h"

namespace {

using namespace fastconv;

constexpr int kThreads = 128;

// Each thread hands its value to the one opposite, by way of shared memory.
void reverse(const float* x, float* y, bool with_barrier) {
  float* tile = dev::shared_memory<float>();
  const unsigned i = threadIdx.x;
  tile[i] = x[i];
  if (with_barrier) __syncthreads();
  y[i] = tile[kThreads - 1 - i];
}

// A ring of two stages filled by asynchronous copies, summed by the thread's neighbour.
void pipeline(const float* x, float* y, int steps, bool wait_for_all) {
  float* ring = dev::shared_memory<float>();
  const int i = static_cast<int>(threadIdx.x);
  float sum = 0;
  const auto fetch = [&](int step) {
    dev::copy_async<4>(ring + (step % 2) * kThreads + i, x + step * kThreads + i, true);
    dev::commit_copies();
  };
  fetch(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps)
      fetch(step + 1);
    else
      dev::commit_copies();
    if (wait_for_all)
      dev::wait_copies<1>();
    else
      dev::wait_copies<2>();
    __syncthreads();
    sum += ring[(step % 2) * kThreads + (i + 1) % kThreads];
    __syncthreads();
  }
  dev::wait_copies<0>();
  y[i] = sum;
}

void divergent(float* y, bool all) {
  if (all || threadIdx.x < kThreads - 32) __syncthreads();
  y[threadIdx.x] = 1;
}

void two_barriers(float* y, bool all) {
  if (all || threadIdx.x % 2)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 1;
}

void gather(const float* x, float* y, int shift) { y[threadIdx.x] = x[static_cast<int>(threadIdx.x) + shift]; }

void shared_overrun(float* y, int extra) {
  float* tile = dev::shared_memory<float>();
  tile[static_cast<int>(threadIdx.x) + extra] = 1;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

void half_a_warp(float* y, bool all) {
  float value = 1;
  if (all || threadIdx.x % 32 < 16) value = dev::warp_sum(value);
  y[threadIdx.x] = value;
}

void spin(float* y, bool answered) {
  int* flag = dev::shared_memory<int>();
  if (threadIdx.x == 0) *flag = answered;
  __syncthreads();
  while (*flag == 0) FASTCONV_PAUSE();
  y[threadIdx.x] = 1;
}

std::vector<float> filled(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return values;
}

void check(const std::unique_ptr<float[]>& y, const std::vector<float>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (!(y[i] == expected[i]))
      throw std::runtime_error("wrong result: " + std::to_string(y[i]) + " at " + std::to_string(i));
}

void run(const std::string& name, bool faulty) {
  constexpr int steps = 5;
  const std::vector<float> x = filled(static_cast<std::size_t>(steps) * kThreads);
  // An array of its own, right behind which AddressSanitizer looks.
  const std::unique_ptr<float[]> row(new float[kThreads]), y(new float[kThreads]);
  std::vector<float> expected(kThreads, 1.0F);
  for (int i = 0; i < kThreads; ++i) row[static_cast<std::size_t>(i)] = static_cast<float>(i);
  constexpr std::size_t tile = kThreads * sizeof(float);
  const bool good = !faulty;
  if (name == "missing_barrier") {
    for (int i = 0; i < kThreads; ++i) expected[static_cast<std::size_t>(i)] = static_cast<float>(kThreads - 1 - i);
    emu::launch(1, kThreads, tile, [&] { reverse(row.get(), y.get(), good); });
  } else if (name == "wrong_wait_count") {
    for (int i = 0; i < kThreads; ++i) {
      float sum = 0;
      for (int s = 0; s < steps; ++s) sum += static_cast<float>(s * kThreads + (i + 1) % kThreads);
      expected[static_cast<std::size_t>(i)] = sum;
    }
    emu::launch(1, kThreads, 2 * tile, [&] { pipeline(x.data(), y.get(), steps, good); });
  } else if (name == "divergent_barrier") {
    emu::launch(1, kThreads, 0, [&] { divergent(y.get(), good); });
  } else if (name == "two_barriers") {
    emu::launch(1, kThreads, 0, [&] { two_barriers(y.get(), good); });
  } else if (name == "out_of_bounds") {
    for (int i = 0; i < kThreads; ++i) expected[static_cast<std::size_t>(i)] = static_cast<float>(i);
    emu::launch(1, kThreads, 0, [&] { gather(row.get(), y.get(), faulty ? 1 : 0); });
  } else if (name == "shared_overrun") {
    emu::launch(1, kThreads, tile, [&] { shared_overrun(y.get(), faulty ? 1 : 0); });
  } else if (name == "half_a_warp") {
    expected.assign(kThreads, 32.0F);
    emu::launch(1, kThreads, 0, [&] { half_a_warp(y.get(), good); });
  } else if (name == "hang") {
    emu::launch(1, kThreads, sizeof(int), [&] { spin(y.get(), good); });
  } else {
    throw std::runtime_error("no fault of this name");
  }
  check(y, expected);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "faults NAME faulty|sound forward|reverse|random|late|early\n");
    return 2;
  }
  const std::string name = argv[1], schedule = argv[3];
  emu::schedule.order = schedule == "reverse"  ? emu::Order::reverse
                        : schedule == "random" ? emu::Order::random
                                               : emu::Order::forward;
  emu::schedule.seed = 1;
  emu::schedule.early_copies = schedule == "early";
  emu::schedule.patience = 1000;
  try {
    run(name, std::string(argv[2]) == "faulty");
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  std::printf("sound\n");
  return 0;
}
