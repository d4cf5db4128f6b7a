// Adaptive pooling: one bin is the whole plane, bins of one size are windows, and the others have kernels of their own.
#include <algorithm>

#include "core/arithmetic.h"
#include "ops/pool.h"
#include "ops/pool_tasks.h"

namespace fastconv {
namespace {

// The most inputs that `count` neighbouring of `bins` bins of an axis of `size` span.
std::int64_t widest_span(std::int64_t size, std::int64_t bins, std::int64_t count) {
  return std::min(size, ceil_div(count * size, bins) + 1);
}

// How many neighbouring bins share a scratch row.
std::int64_t bins_per_segment(std::int64_t size, std::int64_t bins) {
  return std::clamp<std::int64_t>(2 * kPoolSegment * bins / size, 1, std::min(bins, 2 * kPoolSegment));
}

// Sets each axis's window to its bin where all bins have one size; else to the largest bin, and returns false.
bool bins_are_windows(PoolShape& shape) {
  bool equal = true;
  for (PoolAxis& axis : shape.axis) {
    equal = equal && axis.in % axis.out == 0;
    axis.kernel = axis.stride = widest_span(axis.in, axis.out, 1);
    if (axis.in % axis.out == 0) axis.kernel = axis.stride = axis.in / axis.out;
    axis.dilation = 1;
  }
  shape.count_include_pad = true;
  return equal;
}

bool is_global(const PoolShape& shape) { return pool_outputs(shape) == 1; }

}  // namespace

void adaptive_pool_forward(PoolOp op, const ArrayView& x, const PoolShape& sizes, bool lanes, void* y,
                           std::int64_t* indices) {
  PoolShape shape = sizes;
  if (shape.batch == 0 || shape.channels == 0) return;
  if (is_global(shape)) return global_pool_forward(op, x, lanes, y, indices);
  if (bins_are_windows(shape)) return pool_forward(op, x, shape, lanes, y, indices);
  if (indices) check_pool_offsets(shape, x.dtype);
  const bool mean = op == PoolOp::avg;
  const Subnormals mode = mean ? subnormals_of(x.dtype) : Subnormals::keep;
  const PoolAxis& width = shape.axis[2];
  const bool by_channel = !lanes && width.kernel > kPoolLongestReach;
  const PoolFamily family = lanes || by_channel ? PoolFamily::lane : PoolFamily::plane;
  const PoolKernel& kernel = choose_pool_kernel(mean ? "adaptive_avg_pool" : "adaptive_max_pool", family,
                                                compute_dtype(x.dtype), active_isa_mask());
  const PoolData data{x.dtype, PoolReach::bins};
  const PoolTask task = make_pool_task(x, shape, y, indices);
  const std::int64_t outputs = pool_outputs(shape), total = (pool_inputs(shape) + outputs) * shape.channels;
  if (by_channel) {
    run_pool_by_channel(kernel, task, data, mode, outputs, width.kernel, 0);
  } else if (lanes) {
    run_pool_tasks(kernel, task, data, mode, shape.batch * outputs, total / outputs + 1, 1, 1, 0);
  } else {
    const std::int64_t segment = bins_per_segment(width.in, width.out);
    const std::int64_t span = widest_span(width.in, width.out, segment);
    const std::int64_t item = static_cast<std::int64_t>(dtype_size(compute_dtype(x.dtype)));
    const std::int64_t scratch = 3 * (span + kPoolSlack) * item + 16 * segment + 64 * 4;
    const std::int64_t rows = shape.batch * shape.channels * outputs / width.out;
    run_pool_tasks(kernel, task, data, mode, rows, total / shape.channels * width.out / outputs + 1, width.out, segment,
                   scratch);
  }
}

void adaptive_avg_pool_backward(const ArrayView& grad_output, const PoolShape& sizes, bool lanes, void* grad_input) {
  PoolShape shape = sizes;
  if (shape.batch == 0 || shape.channels == 0) return;
  if (is_global(shape)) return global_avg_pool_backward(grad_output, pool_inputs(shape), lanes, grad_input);
  if (bins_are_windows(shape)) return avg_pool_backward(grad_output, shape, lanes, grad_input);
  const PoolAxis& width = shape.axis[2];
  const bool by_channel = !lanes && width.out / width.in > kPoolLongestReach;
  const PoolFamily family = lanes || by_channel ? PoolFamily::lane : PoolFamily::plane;
  const PoolKernel& kernel =
      choose_pool_kernel("adaptive_avg_pool_backward", family, compute_dtype(grad_output.dtype), active_isa_mask());
  const PoolData data{grad_output.dtype, PoolReach::bin_covers};
  const PoolTask task = make_pool_task(grad_output, shape, grad_input, nullptr);
  const std::int64_t inputs = pool_inputs(shape), total = (inputs + pool_outputs(shape)) * shape.channels;
  std::int64_t covers = 0;  // bytes of the lists of bins that hold an input
  for (const PoolAxis& axis : shape.axis) covers += (axis.out / axis.in + 2) * 16 + 128;
  if (by_channel) {
    run_pool_by_channel(kernel, task, data, subnormals_of(grad_output.dtype), inputs, width.out / width.in, covers);
  } else if (lanes) {
    run_pool_tasks(kernel, task, data, subnormals_of(grad_output.dtype), shape.batch * inputs, total / inputs + 1, 1, 1,
                   covers);
  } else {
    const std::int64_t segment = bins_per_segment(width.out, width.in);
    const std::int64_t span = widest_span(width.out, width.in, segment);
    const std::int64_t item = static_cast<std::int64_t>(dtype_size(compute_dtype(grad_output.dtype)));
    const std::int64_t scratch = 3 * (span + kPoolSlack) * item + 16 * segment + covers + 64 * 5;
    const std::int64_t rows = shape.batch * shape.channels * inputs / width.in;
    run_pool_tasks(kernel, task, data, subnormals_of(grad_output.dtype), rows,
                   total / shape.channels * width.in / inputs + 1, width.in, segment, scratch);
  }
}

}  // namespace fastconv
