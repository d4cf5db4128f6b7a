// What the pooling drivers share: tasks for the kernels, cut into work items for the threads.
#pragma once

#include <cstdint>

#include "core/array_view.h"
#include "core/pool_shape.h"
#include "cpu/parallel.h"
#include "cpu/pool/kernels.h"
#include "ops/pool_boxes.h"

namespace fastconv {

// Columns of one segment of a row: its scratch rows stay in L1.
constexpr std::int64_t kPoolSegment = 2048;
// Windows that reach further have no scratch row; their taps are visited one by one.
constexpr std::int64_t kPoolLongestReach = 1 << 18;

PoolTask make_pool_task(const ArrayView& x, const PoolShape& shape, void* y, std::int64_t* indices);
PoolOperand pool_operand(const ArrayView& x);

std::int64_t pool_outputs(const PoolShape& shape);
std::int64_t pool_inputs(const PoolShape& shape);

// Offsets between the taps of a window are held in lanes of the arrays' own width: refuses windows too large for that.
void check_pool_offsets(const PoolShape& shape, Dtype dtype);

// Runs tasks over `units` rows or positions, of which each touches `elements`, in segments of `columns`, each with
// `scratch` bytes.
void run_pool_tasks(const PoolKernel& kernel, const PoolTask& whole, const PoolData& data, Subnormals mode,
                    std::int64_t units, std::int64_t elements, std::int64_t columns, std::int64_t segment,
                    std::int64_t scratch);

// The taps of very long windows, channel by channel: a lane task of one channel serves any strides.
void run_pool_by_channel(const PoolKernel& kernel, const PoolTask& whole, const PoolData& data, Subnormals mode,
                         std::int64_t per_plane, std::int64_t elements, std::int64_t scratch);

// The windows of a task by the kernels of `op`, forward and backward.
void run_pool_windows(const char* op, const PoolTask& task, Dtype dtype, bool lanes, Subnormals mode);
void run_pool_windows_backward(const char* op, const PoolTask& task, Dtype dtype, bool lanes);

}  // namespace fastconv
