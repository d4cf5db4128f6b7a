// Pooling 16-bit arrays with the kernels of float32: a task is cut into boxes of results, the operands of each are
// widened into scratch memory, and its results are rounded from there. What a box has is bounded, whatever the arrays'
// sizes are, and no value depends on how they are cut.
#pragma once

#include "cpu/pool/kernels.h"

namespace fastconv {

// Which of its operands' values a stretch of results depends on, along one axis.
enum class PoolReach : std::uint8_t {
  windows,     // the inputs of windows
  covers,      // the windows that hold inputs
  bins,        // the inputs of bins
  bin_covers,  // the bins that hold inputs
  whole,       // every input; the columns of a lane task are channels
};

// What a task's arrays hold, and where its operands lie.
struct PoolData {
  Dtype dtype;
  PoolReach reach;
};

// Runs a kernel of Compute<dtype> on a task.
void run_pool_kernel(const PoolKernel& kernel, const PoolTask& task, const PoolData& data);

}  // namespace fastconv
