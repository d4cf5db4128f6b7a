// The geometry of a pooling problem: what the driver hands to the kernels, as plain data.
#pragma once

#include <cstdint>

namespace fastconv {

// One spatial axis. Output o touches inputs o * stride - pad_before + t * dilation for taps t in [0, kernel).
struct PoolAxis {
  std::int64_t in;
  std::int64_t out;
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t dilation;
  std::int64_t pad_before;
  std::int64_t pad_after;
};

struct PoolShape {
  std::int64_t batch;
  std::int64_t channels;
  PoolAxis axis[3];  // D, H, W
  bool count_include_pad;
  std::int64_t divisor_override;  // 0: each window is divided by its number of taps
};

enum class PoolOp : std::uint8_t { max, min, avg };

// Checks the sizes and computes each axis's `out`; refuses windows that do not fit and numbers so large that their
// arithmetic would overflow. The stride of a single window is set to 1.
void complete_pool_shape(PoolShape& shape, bool ceil_mode);

}  // namespace fastconv
