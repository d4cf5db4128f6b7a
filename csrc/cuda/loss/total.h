// The sum of a function of the elements, in float64: blocks sum runs of one length, and one block the runs.
#pragma once

#include "cuda/dev_block.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {

constexpr Index kMostRuns = 1024;
constexpr Index kRun = 4096;  // elements of a run, at least

template <class F>
__global__ void run_kernel(F value, Index count, Index length, double* sums) {
  double* scratch = dev::shared_memory<double>();
  const Index begin = blockIdx.x * length, end = dev::smaller(begin + length, count);
  double sum = 0;
  for (Index i = begin + threadIdx.x; i < end; i += blockDim.x) sum += value(i);
  sum = dev::block_sum(sum, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

struct Numbers {
  const double* values;
  FASTCONV_DEVICE double operator()(Index i) const { return values[i]; }
};

// *sum = the sum of value(i) for i in [0, count).
template <class F>
void total(const Queue& queue, F value, Index count, double* sum) {
  const Index runs = std::clamp<Index>(count / kRun, 1, kMostRuns), length = ceil_div(count, runs);
  const std::size_t shared = dev::kLanes * sizeof(double);
  if (runs == 1) {
    launch(queue, Grid{1, kThreads, shared}, run_kernel<F>, value, count, length, sum);
    return;
  }
  auto* sums = static_cast<double*>(queue.scratch(sizeof(double) * static_cast<std::size_t>(runs)));
  launch(queue, Grid{runs, kThreads, shared}, run_kernel<F>, value, count, length, sums);
  launch(queue, Grid{1, kThreads, shared}, run_kernel<Numbers>, Numbers{sums}, runs, runs, sum);
}

}  // namespace cuda
}  // namespace fastconv
