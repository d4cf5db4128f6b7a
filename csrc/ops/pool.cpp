#include "ops/pool.h"

#include <algorithm>

#include "ops/pool_tasks.h"

namespace fastconv {
namespace {

const char* op_name(PoolOp op) { return op == PoolOp::max ? "max_pool" : op == PoolOp::min ? "min_pool" : "avg_pool"; }

}  // namespace

bool pool_in_lanes(const ArrayView& x) {
  const bool unit_columns = x.stride[4] == 1 && x.shape[4] > 1;
  return x.stride[1] == 1 && x.shape[1] > 1 && !unit_columns;
}

void pool_forward(PoolOp op, const ArrayView& x, const PoolShape& shape, bool lanes, void* y, std::int64_t* indices) {
  if (shape.batch == 0 || shape.channels == 0) return;
  if (indices) check_pool_offsets(shape, x.dtype);
  const Subnormals mode = op == PoolOp::avg ? subnormals_of(x.dtype) : Subnormals::keep;
  run_pool_windows(op_name(op), make_pool_task(x, shape, y, indices), x.dtype, lanes, mode);
}

void avg_pool_backward(const ArrayView& grad_output, const PoolShape& shape, bool lanes, void* grad_input) {
  if (shape.batch == 0 || shape.channels == 0) return;
  const PoolTask task = make_pool_task(grad_output, shape, grad_input, nullptr);
  run_pool_windows_backward("avg_pool_backward", task, grad_output.dtype, lanes);
}

void global_pool_forward(PoolOp op, const ArrayView& x, bool lanes, void* y, std::int64_t* indices) {
  PoolShape shape{};
  shape.batch = x.shape[0];
  shape.channels = x.shape[1];
  for (int i = 0; i < kSpatial; ++i) shape.axis[i] = PoolAxis{x.shape[2 + i], 1, x.shape[2 + i], 1, 1, 0, 0};
  const std::int64_t inputs = pool_inputs(shape), planes = shape.batch * shape.channels;
  require(inputs > 0, "x: no spatial positions");
  if (planes == 0) return;
  if (indices) check_pool_offsets(shape, x.dtype);
  const bool mean = op == PoolOp::avg;
  const Subnormals mode = mean ? subnormals_of(x.dtype) : Subnormals::keep;
  const PoolKernel& kernel =
      choose_pool_kernel(mean ? "global_avg_pool" : "global_max_pool", lanes ? PoolFamily::lane : PoolFamily::plane,
                         compute_dtype(x.dtype), active_isa_mask());
  const PoolTask task = make_pool_task(x, shape, y, indices);
  const PoolData data{x.dtype, PoolReach::whole};
  const std::int64_t item = static_cast<std::int64_t>(dtype_size(compute_dtype(x.dtype)));
  if (!lanes) {
    run_pool_tasks(kernel, task, data, mode, planes, inputs, 1, 1, kPoolChunk * item);
  } else if (mean) {
    const std::int64_t block = std::min<std::int64_t>(shape.channels, kPoolChunk / 4);
    run_pool_tasks(kernel, task, data, mode, shape.batch, inputs * block, shape.channels, block,
                   (block + kPoolSlack) * (8 + item) + 128);
  } else {
    run_pool_tasks(kernel, task, data, mode, shape.batch, inputs * shape.channels, shape.channels, shape.channels, 0);
  }
}

}  // namespace fastconv
