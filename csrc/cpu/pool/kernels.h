// Contract of the pooling kernels.
//
//   max, min   y[o] = the extreme of x over the window's taps inside the input; indices[o] its flat spatial position
//   avg        y[o] = (sum over the window's taps inside the input) / divisor(o)
//   square     y[o] = sqrt(scale * (sum of x^2 over these taps) / divisor(o))
//   power      y[o] = (scale * (sum of x^p over these taps) / divisor(o))^(1/p)
//   backward   of avg: gx[i] = sum over the windows o that touch i of gy[o] / divisor(o); of square and power:
//              gx[i] = scale * x[i]^(p-1) * (sum over these windows of gy[o] * y[o]^(1-p) / divisor(o)), where a window
//              whose sum of powers is zero hands nothing down
//   adaptive   avg and max over bins of inputs [floor(o * in / out), ceil((o + 1) * in / out)) instead of windows
//
// Padding never contributes. A NaN wins an extreme (the last one, as in PyTorch); of equal values the first in
// row-major order wins. A window wholly in padding gives the identity (-inf, +inf; 0 for avg) and the position of the
// input nearest to its start. Two families:
//
//   plane   the vector lies along W. x has any strides; y (and indices) is contiguous in the order (N, C, D, H, W).
//           A task is the output rows [first, last) of the flattened (N, C, D, H), columns [col_first, col_last).
//   lane    the vector lies along C, and x has unit stride there. y is contiguous in the order (N, D, H, W, C).
//           A task is the output positions [first, last) of the flattened (N, D, H, W).
//
// For the backward pass x is the output's gradient and y the input's, and rows and positions are the input's.
// For the global ops a plane task is the planes [first, last) of (N, C), and a lane task the samples [first, last) in
// channels [col_first, col_last).
//
// Kernels may read any address from the view's first element up to `x_end`, and write any y of their own task twice.
// Sums add in an order that the shape alone fixes: along D and H, then W in planes; row-major in lanes.
#pragma once

#include <cstdint>

#include "core/pool_shape.h"
#include "cpu/registry.h"

namespace fastconv {

// The power p of the pools of powers, and what the mean of the powers is multiplied by.
struct PoolPower {
  double exponent;
  double scale;
};

// What a backward kernel reads beside the output's gradient.
struct PoolOperand {
  const void* data;
  const void* end;         // one past the element with the highest address
  std::int64_t stride[5];  // elements
};

struct PoolTask {
  const PoolShape* shape;
  const void* x;
  const void* x_end;         // one past the element of the view with the highest address
  std::int64_t x_stride[5];  // elements
  void* y;                   // the whole result
  std::int64_t* indices;     // null when not asked for
  std::int64_t first, last;
  std::int64_t col_first, col_last;
  void* scratch;  // as large as the kernel needs, cache-line aligned
  PoolPower power;
  PoolOperand forward_x, forward_y;  // of the backward passes of square and power
};

enum class PoolFamily : std::uint8_t { plane, lane };

struct PoolKernel : KernelInfo {
  PoolFamily family;
  void (*run)(const PoolTask& task);
};

// Elements of room that vectors may write past the end of each scratch row.
constexpr std::int64_t kPoolSlack = 64;
// Columns of the rows that a plane kernel reduces side by side, unless one row alone has more.
constexpr std::int64_t kPoolStrip = 2048;
// Elements a global kernel adds up in the arrays' dtype before it goes on in float64.
constexpr std::int64_t kPoolChunk = 2048;

// One table per instruction set that the build has.
extern const PoolKernel pool_kernels_baseline[], pool_kernels_avx2[], pool_kernels_avx512[];
extern const int pool_kernel_count_baseline, pool_kernel_count_avx2, pool_kernel_count_avx512;

// The kernel for an op ("max_pool", "avg_pool_backward", ...) on the instruction sets of `mask`.
const PoolKernel& choose_pool_kernel(const char* op, PoolFamily family, Dtype dtype, IsaMask mask);

}  // namespace fastconv
