#include "ops/pool_tasks.h"

#include <algorithm>
#include <string>

#include "core/arithmetic.h"
#include "cpu/workspace.h"

namespace fastconv {
namespace {

// Elements that one work item reads and writes: enough to hide the cost of handing it out, little enough for L2.
constexpr std::int64_t kItemElements = 1 << 15;

std::int64_t reach_of(const PoolAxis& axis) { return (axis.kernel - 1) * axis.dilation + 1; }

const void* end_of(const ArrayView& x) {
  std::int64_t last = 0;
  for (int i = 0; i < kRank; ++i)
    if (x.stride[i] > 0) last += (x.shape[i] - 1) * x.stride[i];
  return static_cast<const char*>(x.data) + (last + 1) * static_cast<std::int64_t>(dtype_size(x.dtype));
}

// How many of `units` one work item takes, when each touches `elements`; every thread gets a few items.
std::int64_t units_per_item(std::int64_t units, std::int64_t elements) {
  const std::int64_t by_size = std::max<std::int64_t>(1, kItemElements / std::max<std::int64_t>(1, elements));
  const std::int64_t total = units * std::max<std::int64_t>(1, elements);
  if (total <= kItemElements / 2) return units;  // too little to hand out
  return std::clamp<std::int64_t>(units / (4 * get_num_threads()), 1, by_size);
}

// Bytes of the lists of windows that touch an input, in the backward pass.
std::int64_t cover_bytes(const PoolShape& shape) {
  std::int64_t bytes = 0;
  for (const PoolAxis& axis : shape.axis) bytes += std::min(axis.kernel, axis.out) * 16 + 128;
  return bytes;
}

}  // namespace

PoolTask make_pool_task(const ArrayView& x, const PoolShape& shape, void* y, std::int64_t* indices) {
  PoolTask task{};
  task.shape = &shape;
  task.x = x.data;
  task.x_end = end_of(x);
  for (int i = 0; i < kRank; ++i) task.x_stride[i] = x.stride[i];
  task.y = y;
  task.indices = indices;
  return task;
}

PoolOperand pool_operand(const ArrayView& x) {
  PoolOperand operand{x.data, end_of(x), {}};
  for (int i = 0; i < kRank; ++i) operand.stride[i] = x.stride[i];
  return operand;
}

std::int64_t pool_outputs(const PoolShape& shape) { return shape.axis[0].out * shape.axis[1].out * shape.axis[2].out; }
std::int64_t pool_inputs(const PoolShape& shape) { return shape.axis[0].in * shape.axis[1].in * shape.axis[2].in; }

void check_pool_offsets(const PoolShape& shape, Dtype dtype) {
  if (dtype == Dtype::f64) return;
  std::int64_t furthest = 0;
  for (const PoolAxis& axis : shape.axis) furthest = furthest * axis.in + std::min(axis.in, reach_of(axis)) - 1;
  if (furthest >= std::int64_t{1} << 31)
    fail("kernel_size: with indices of float32 or 16-bit arrays a window may span 2**31 positions, got " +
         std::to_string(furthest));
}

void run_pool_tasks(const PoolKernel& kernel, const PoolTask& whole, const PoolData& data, Subnormals mode,
                    std::int64_t units, std::int64_t elements, std::int64_t columns, std::int64_t segment,
                    std::int64_t scratch) {
  const std::int64_t step = units_per_item(units, elements), segments = ceil_div(columns, segment);
  const Work work{ceil_div(units, step) * segments, 0.5 * static_cast<double>(units * elements)};
  parallel_for(work, mode, [&](std::int64_t item) {
    Workspace<char> workspace(scratch);
    PoolTask task = whole;
    task.scratch = workspace;
    task.first = item / segments * step;
    task.last = std::min(units, task.first + step);
    task.col_first = item % segments * segment;
    task.col_last = std::min(columns, task.col_first + segment);
    run_pool_kernel(kernel, task, data);
  });
}

void run_pool_by_channel(const PoolKernel& kernel, const PoolTask& whole, const PoolData& data, Subnormals mode,
                         std::int64_t per_plane, std::int64_t elements, std::int64_t scratch) {
  PoolShape single = *whole.shape;
  single.batch = single.channels = 1;
  const std::int64_t planes = whole.shape->batch * whole.shape->channels, channels = whole.shape->channels;
  const std::int64_t step = units_per_item(per_plane, elements), pieces = ceil_div(per_plane, step);
  const auto item_size = static_cast<std::int64_t>(dtype_size(data.dtype));
  const Work work{planes * pieces, 0.5 * static_cast<double>(planes * per_plane * elements)};
  parallel_for(work, mode, [&](std::int64_t item) {
    Workspace<char> workspace(scratch);
    const std::int64_t plane = item / pieces;
    const auto plane_of = [&](const void* array, const std::int64_t* stride) -> const void* {
      if (!array) return nullptr;
      return static_cast<const char*>(array) +
             (plane / channels * stride[0] + plane % channels * stride[1]) * item_size;
    };
    PoolTask task = whole;
    task.shape = &single;
    task.scratch = workspace;
    task.x = plane_of(whole.x, whole.x_stride);
    task.forward_x.data = plane_of(whole.forward_x.data, whole.forward_x.stride);
    task.forward_y.data = plane_of(whole.forward_y.data, whole.forward_y.stride);
    task.y = static_cast<char*>(whole.y) + plane * per_plane * item_size;
    if (whole.indices) task.indices = whole.indices + plane * per_plane;
    task.first = item % pieces * step;
    task.last = std::min(per_plane, task.first + step);
    run_pool_kernel(kernel, task, data);
  });
}

void run_pool_windows(const char* op, const PoolTask& task, Dtype dtype, bool lanes, Subnormals mode) {
  const PoolShape& shape = *task.shape;
  const PoolAxis& width = shape.axis[2];
  const std::int64_t reach = reach_of(width);
  const bool by_channel = !lanes && reach > kPoolLongestReach;
  const PoolFamily family = lanes || by_channel ? PoolFamily::lane : PoolFamily::plane;
  const PoolData data{dtype, PoolReach::windows};
  const PoolKernel& kernel = choose_pool_kernel(op, family, compute_dtype(dtype), active_isa_mask());
  const std::int64_t item = static_cast<std::int64_t>(dtype_size(compute_dtype(dtype))), outputs = pool_outputs(shape);
  const std::int64_t total = (pool_inputs(shape) + outputs) * shape.channels;
  if (by_channel) {
    run_pool_by_channel(kernel, task, data, mode, outputs, std::min(reach, width.in), 0);
  } else if (lanes) {
    run_pool_tasks(kernel, task, data, mode, shape.batch * outputs, total / outputs, 1, 1, 0);
  } else {
    const std::int64_t segment = std::clamp<std::int64_t>((2 * kPoolSegment - reach) / width.stride, 1, width.out);
    const std::int64_t span = (segment - 1) * width.stride + reach;
    // Scratch rows as plane.h lays them out; splitting by phase takes the span and the slack of each phase.
    const std::int64_t phases = std::min(width.stride, width.kernel);
    const std::int64_t step = segment > 1 ? width.stride : 1, columns = std::max(kPoolStrip, span + 2 * step);
    const std::int64_t split = segment > 1 ? phases * (columns / step + 1 + segment + kPoolSlack) : 0;
    const std::int64_t scratch =
        (columns + span + 2 * (columns / step) + split + 4 * segment + 16 * kPoolSlack) * item + 64 * 10;
    const std::int64_t rows = shape.batch * shape.channels * outputs / width.out;
    run_pool_tasks(kernel, task, data, mode, rows, total / shape.channels * width.out / outputs, width.out, segment,
                   scratch);
  }
}

void run_pool_windows_backward(const char* op, const PoolTask& task, Dtype dtype, bool lanes) {
  const PoolShape& shape = *task.shape;
  const PoolAxis& width = shape.axis[2];
  const std::int64_t reach = reach_of(width), inputs = pool_inputs(shape);
  const bool by_channel = !lanes && (reach > kPoolLongestReach || width.stride > kPoolLongestReach);
  const PoolFamily family = lanes || by_channel ? PoolFamily::lane : PoolFamily::plane;
  const PoolData data{dtype, PoolReach::covers};
  const PoolKernel& kernel = choose_pool_kernel(op, family, compute_dtype(dtype), active_isa_mask());
  const auto item = static_cast<std::int64_t>(dtype_size(compute_dtype(dtype)));
  const std::int64_t total = (inputs + pool_outputs(shape)) * shape.channels, covers = cover_bytes(shape);
  const Subnormals mode = subnormals_of(dtype);
  if (by_channel) {
    run_pool_by_channel(kernel, task, data, mode, inputs, 2, covers);
  } else if (lanes) {
    run_pool_tasks(kernel, task, data, mode, shape.batch * inputs, total / inputs, 1, 1, covers);
  } else {
    const std::int64_t segment = std::min(kPoolSegment, width.in);
    const std::int64_t quotients = segment / width.stride + 2, span = quotients + reach / width.stride + 1;
    const std::int64_t results = std::max(kPoolStrip, quotients * width.stride);
    const std::int64_t scratch = (kPoolStrip + 5 * span + results + 11 * kPoolSlack) * item + covers + 64 * 9;
    const std::int64_t rows = shape.batch * shape.channels * inputs / width.in;
    run_pool_tasks(kernel, task, data, mode, rows, total / shape.channels * width.in / inputs, width.in, segment,
                   scratch);
  }
}

}  // namespace fastconv
