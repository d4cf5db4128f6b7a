#include "ops/pool.h"

#include <algorithm>
#include <string>

#include "cpu/parallel.h"
#include "cpu/pool/kernels.h"
#include "cpu/workspace.h"

namespace fastconv {
namespace {

// Elements that one work item reads and writes: enough to hide the cost of handing it out, little enough for L2.
constexpr std::int64_t kItemElements = 1 << 15;
// Columns of one segment of a row: its scratch rows stay in L1.
constexpr std::int64_t kSegment = 2048;
// Windows that reach further have no scratch row; their taps are visited one by one.
constexpr std::int64_t kLongestReach = 1 << 18;

std::int64_t reach_of(const PoolAxis& axis) { return (axis.kernel - 1) * axis.dilation + 1; }

const void* end_of(const ArrayView& x) {
  std::int64_t last = 0;
  for (int i = 0; i < kRank; ++i)
    if (x.stride[i] > 0) last += (x.shape[i] - 1) * x.stride[i];
  return static_cast<const char*>(x.data) + (last + 1) * static_cast<std::int64_t>(dtype_size(x.dtype));
}

const char* op_name(PoolOp op) { return op == PoolOp::max ? "max_pool" : op == PoolOp::min ? "min_pool" : "avg_pool"; }

PoolTask make_task(const ArrayView& x, const PoolShape& shape, void* y, std::int64_t* indices) {
  PoolTask task{};
  task.shape = &shape;
  task.x = x.data;
  task.x_end = end_of(x);
  for (int i = 0; i < kRank; ++i) task.x_stride[i] = x.stride[i];
  task.y = y;
  task.indices = indices;
  return task;
}

// How many of `units` one work item takes, when each touches `elements`; every thread gets a few items.
std::int64_t units_per_item(std::int64_t units, std::int64_t elements) {
  const std::int64_t by_size = std::max<std::int64_t>(1, kItemElements / std::max<std::int64_t>(1, elements));
  const std::int64_t total = units * std::max<std::int64_t>(1, elements);
  if (total <= kItemElements / 2) return units;  // too little to hand out
  return std::clamp<std::int64_t>(units / (4 * get_num_threads()), 1, by_size);
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Runs tasks over `units` rows or positions in segments of `columns`, each with `scratch` bytes.
void run_tasks(const PoolKernel& kernel, const PoolTask& whole, Subnormals mode, std::int64_t units,
               std::int64_t elements, std::int64_t columns, std::int64_t segment, std::int64_t scratch) {
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
    kernel.run(task);
  });
}

// The taps of very long windows, channel by channel: a lane task of one channel serves any strides.
void run_by_channel(const PoolKernel& kernel, const PoolTask& whole, Subnormals mode, std::int64_t per_plane,
                    std::size_t item_size, std::int64_t elements, std::int64_t scratch) {
  PoolShape single = *whole.shape;
  single.batch = single.channels = 1;
  const std::int64_t planes = whole.shape->batch * whole.shape->channels, channels = whole.shape->channels;
  const std::int64_t step = units_per_item(per_plane, elements), pieces = ceil_div(per_plane, step);
  const Work work{planes * pieces, 0.5 * static_cast<double>(planes * per_plane * elements)};
  parallel_for(work, mode, [&](std::int64_t item) {
    Workspace<char> workspace(scratch);
    const std::int64_t plane = item / pieces;
    PoolTask task = whole;
    task.shape = &single;
    task.scratch = workspace;
    const std::int64_t offset = plane / channels * whole.x_stride[0] + plane % channels * whole.x_stride[1];
    task.x = static_cast<const char*>(whole.x) + offset * static_cast<std::int64_t>(item_size);
    task.y = static_cast<char*>(whole.y) + plane * per_plane * static_cast<std::int64_t>(item_size);
    if (whole.indices) task.indices = whole.indices + plane * per_plane;
    task.first = item % pieces * step;
    task.last = std::min(per_plane, task.first + step);
    kernel.run(task);
  });
}

// Offsets between the taps of a window are held in lanes of the arrays' own width.
void check_offsets(const PoolShape& shape, Dtype dtype) {
  if (dtype == Dtype::f64) return;
  std::int64_t furthest = 0;
  for (const PoolAxis& axis : shape.axis) furthest = furthest * axis.in + std::min(axis.in, reach_of(axis));
  if (furthest >= std::int64_t{1} << 31)
    fail("kernel_size: with indices of float32 arrays a window may span 2**31 positions, got " +
         std::to_string(furthest));
}

std::int64_t outputs_of(const PoolShape& shape) { return shape.axis[0].out * shape.axis[1].out * shape.axis[2].out; }
std::int64_t inputs_of(const PoolShape& shape) { return shape.axis[0].in * shape.axis[1].in * shape.axis[2].in; }

// Bytes of the lists of windows that touch an input, in the backward pass.
std::int64_t cover_bytes(const PoolShape& shape) {
  std::int64_t bytes = 0;
  for (const PoolAxis& axis : shape.axis) bytes += std::min(axis.kernel, axis.out) * 16 + 128;
  return bytes;
}

}  // namespace

bool pool_in_lanes(const ArrayView& x) {
  const bool unit_columns = x.stride[4] == 1 && x.shape[4] > 1;
  return x.stride[1] == 1 && x.shape[1] > 1 && !unit_columns;
}

void pool_forward(PoolOp op, const ArrayView& x, const PoolShape& shape, bool lanes, void* y, std::int64_t* indices) {
  if (shape.batch == 0 || shape.channels == 0) return;
  if (indices) check_offsets(shape, x.dtype);
  const Subnormals mode = op == PoolOp::avg ? Subnormals::flush : Subnormals::keep;
  const PoolAxis& width = shape.axis[2];
  const std::int64_t reach = reach_of(width);
  const bool by_channel = !lanes && reach > kLongestReach;
  const PoolFamily family = lanes || by_channel ? PoolFamily::lane : PoolFamily::plane;
  const PoolKernel& kernel = choose_pool_kernel(op_name(op), family, x.dtype, active_isa_mask());
  const PoolTask task = make_task(x, shape, y, indices);
  const std::int64_t item = static_cast<std::int64_t>(dtype_size(x.dtype)), outputs = outputs_of(shape);
  const std::int64_t total = (inputs_of(shape) + outputs) * shape.channels;
  if (by_channel) {
    run_by_channel(kernel, task, mode, outputs, dtype_size(x.dtype), std::min(reach, width.in), 0);
  } else if (lanes) {
    run_tasks(kernel, task, mode, shape.batch * outputs, total / outputs, 1, 1, 0);
  } else {
    const std::int64_t segment = std::clamp<std::int64_t>((2 * kSegment - reach) / width.stride, 1, width.out);
    const std::int64_t span = (segment - 1) * width.stride + reach;
    // Scratch rows as plane.h lays them out; splitting by phase takes the span and the slack of each phase.
    const std::int64_t phases = std::min(width.stride, width.kernel);
    const std::int64_t step = segment > 1 ? width.stride : 1, columns = std::max(kPoolStrip, span + 2 * step);
    const std::int64_t split = segment > 1 ? phases * (columns / step + 1 + segment + kPoolSlack) : 0;
    const std::int64_t scratch =
        (columns + span + 2 * (columns / step) + split + 4 * segment + 16 * kPoolSlack) * item + 64 * 10;
    const std::int64_t rows = shape.batch * shape.channels * outputs / width.out;
    run_tasks(kernel, task, mode, rows, total / shape.channels * width.out / outputs, width.out, segment, scratch);
  }
}

void avg_pool_backward(const ArrayView& grad_output, const PoolShape& shape, bool lanes, void* grad_input) {
  const std::int64_t inputs = inputs_of(shape);
  if (shape.batch == 0 || shape.channels == 0) return;
  const PoolAxis& width = shape.axis[2];
  const std::int64_t reach = reach_of(width);
  const bool by_channel = !lanes && (reach > kLongestReach || width.stride > kLongestReach);
  const PoolFamily family = lanes || by_channel ? PoolFamily::lane : PoolFamily::plane;
  const PoolKernel& kernel = choose_pool_kernel("avg_pool_backward", family, grad_output.dtype, active_isa_mask());
  const PoolTask task = make_task(grad_output, shape, grad_input, nullptr);
  const std::int64_t item = static_cast<std::int64_t>(dtype_size(grad_output.dtype));
  const std::int64_t total = (inputs + outputs_of(shape)) * shape.channels, covers = cover_bytes(shape);
  if (by_channel) {
    run_by_channel(kernel, task, Subnormals::flush, inputs, dtype_size(grad_output.dtype), 2, covers);
  } else if (lanes) {
    run_tasks(kernel, task, Subnormals::flush, shape.batch * inputs, total / inputs, 1, 1, covers);
  } else {
    const std::int64_t segment = std::min(kSegment, width.in);
    const std::int64_t quotients = segment / width.stride + 2, span = quotients + reach / width.stride + 1;
    const std::int64_t results = std::max(kPoolStrip, quotients * width.stride);
    const std::int64_t scratch = (kPoolStrip + 4 * span + results + 10 * kPoolSlack) * item + covers + 64 * 8;
    const std::int64_t rows = shape.batch * shape.channels * inputs / width.in;
    run_tasks(kernel, task, Subnormals::flush, rows, total / shape.channels * width.in / inputs, width.in, segment,
              scratch);
  }
}

void global_pool_forward(PoolOp op, const ArrayView& x, bool lanes, void* y, std::int64_t* indices) {
  PoolShape shape{};
  shape.batch = x.shape[0];
  shape.channels = x.shape[1];
  for (int i = 0; i < kSpatial; ++i) shape.axis[i] = PoolAxis{x.shape[2 + i], 1, x.shape[2 + i], 1, 1, 0, 0};
  const std::int64_t inputs = inputs_of(shape), planes = shape.batch * shape.channels;
  require(inputs > 0, "x: no spatial positions");
  if (planes == 0) return;
  if (indices) check_offsets(shape, x.dtype);
  const bool mean = op == PoolOp::avg;
  const Subnormals mode = mean ? Subnormals::flush : Subnormals::keep;
  const PoolKernel& kernel =
      choose_pool_kernel(mean ? "global_avg_pool" : "global_max_pool", lanes ? PoolFamily::lane : PoolFamily::plane,
                         x.dtype, active_isa_mask());
  const PoolTask task = make_task(x, shape, y, indices);
  const std::int64_t item = static_cast<std::int64_t>(dtype_size(x.dtype));
  if (!lanes) {
    run_tasks(kernel, task, mode, planes, inputs, 1, 1, kPoolChunk * item);
  } else if (mean) {
    const std::int64_t block = std::min<std::int64_t>(shape.channels, kPoolChunk / 4);
    run_tasks(kernel, task, mode, shape.batch, inputs * block, shape.channels, block,
              (block + kPoolSlack) * (8 + item) + 128);
  } else {
    run_tasks(kernel, task, mode, shape.batch, inputs * shape.channels, 1, 1, 0);
  }
}

}  // namespace fastconv
