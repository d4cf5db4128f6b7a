#include "core/pool_shape.h"

#include <string>

#include "core/error.h"
#include "core/window.h"

namespace fastconv {
namespace {

// Products of two such numbers fit 64 bits.
constexpr std::int64_t kLargest = std::int64_t{1} << 30;

void require_range(std::int64_t value, std::int64_t least, const char* name) {
  if (value < least || value > kLargest)
    fail(std::string(name) + ": expected " + std::to_string(least) + " to " + std::to_string(kLargest) + ", got " +
         std::to_string(value));
}

}  // namespace

void complete_pool_shape(PoolShape& shape, bool ceil_mode) {
  for (PoolAxis& axis : shape.axis) {
    require_range(axis.kernel, 1, "kernel_size");
    require_range(axis.stride, 1, "stride");
    require_range(axis.dilation, 1, "dilation");
    require_range(axis.pad_before, 0, "padding");
    require_range(axis.pad_after, 0, "padding");
    const Window window{axis.kernel, axis.stride, axis.dilation, axis.pad_before, axis.pad_after};
    axis.out = axis.in > 0 ? (ceil_mode ? output_size_ceil(axis.in, window) : output_size(axis.in, window)) : 0;
    if (axis.out < 1)
      fail("kernel_size: a window of " + std::to_string(axis.kernel) + " taps with dilation " +
           std::to_string(axis.dilation) + " does not fit an input of " + std::to_string(axis.in) + " with padding (" +
           std::to_string(axis.pad_before) + ", " + std::to_string(axis.pad_after) + ")");
    if (axis.out == 1) axis.stride = 1;  // one window has no next one, however far away that would be
  }
  if (shape.axis[0].kernel * shape.axis[1].kernel > kLargest * kLargest / shape.axis[2].kernel)
    fail("kernel_size: a window of more than 2**60 taps");
}

}  // namespace fastconv
