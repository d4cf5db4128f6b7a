#include "core/window.h"

namespace fastconv {
namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0);
}

}  // namespace

std::int64_t output_size(std::int64_t in, const Window& window) {
  return floor_div(in + window.pad_before + window.pad_after - window.reach(), window.stride) + 1;
}

std::int64_t output_size_ceil(std::int64_t in, const Window& window) {
  std::int64_t size =
      floor_div(in + window.pad_before + window.pad_after - window.reach() + window.stride - 1, window.stride) + 1;
  if ((size - 1) * window.stride >= in + window.pad_before) --size;
  return size;
}

std::int64_t transposed_output_size(std::int64_t in, const Window& window, std::int64_t output_padding) {
  return (in - 1) * window.stride - window.pad_before - window.pad_after + window.reach() + output_padding;
}

}  // namespace fastconv
