// Pools of powers run over the windows of average pooling with kernels of their own.
#include <cmath>

#include "ops/pool.h"
#include "ops/pool_tasks.h"

namespace fastconv {
namespace {

// The mean of a window becomes its sum when multiplied by the window's taps.
PoolPower make_power(const PoolShape& shape, double exponent, bool mean) {
  require(std::isfinite(exponent) && exponent != 0, "norm_type: expected a finite number other than 0");
  double taps = 1;
  for (const PoolAxis& axis : shape.axis) taps *= static_cast<double>(axis.kernel);
  return PoolPower{exponent, mean ? 1 : taps};
}

}  // namespace

void power_pool_forward(double exponent, bool mean, const ArrayView& x, const PoolShape& shape, bool lanes, void* y) {
  if (shape.batch == 0 || shape.channels == 0) return;
  PoolTask task = make_pool_task(x, shape, y, nullptr);
  task.power = make_power(shape, exponent, mean);
  run_pool_windows(exponent == 2 ? "square_pool" : "power_pool", task, x.dtype, lanes, subnormals_of(x.dtype));
}

void power_pool_backward(double exponent, bool mean, const ArrayView& grad_output, const ArrayView& x,
                         const ArrayView& y, const PoolShape& shape, bool lanes, void* grad_input) {
  if (shape.batch == 0 || shape.channels == 0) return;
  PoolTask task = make_pool_task(grad_output, shape, grad_input, nullptr);
  task.power = make_power(shape, exponent, mean);
  task.forward_x = pool_operand(x);
  task.forward_y = pool_operand(y);
  run_pool_windows_backward(exponent == 2 ? "square_pool_backward" : "power_pool_backward", task, grad_output.dtype,
                            lanes);
}

}  // namespace fastconv
