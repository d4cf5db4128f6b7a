// One home for the arithmetic of sliding windows: forward, transposed and pooling output sizes.
#pragma once

#include <cstdint>

namespace fastconv {

// What a tap in the padding reads: nothing, or the element that the input's border repeats.
enum class PadMode : std::uint8_t { zeros, reflect, replicate, circular };

// The element of [0, in) that stands at `position`, which may lie in the padding; -1 where there is none.
std::int64_t padded_source(std::int64_t position, std::int64_t in, PadMode mode);

// The most padding on one side that the mode can fill from `in` elements.
std::int64_t most_padding(std::int64_t in, PadMode mode);

// A window sliding along one dimension.
struct Window {
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t pad_before = 0;
  std::int64_t pad_after = 0;
  PadMode mode = PadMode::zeros;
};

// Every number of a window is at most this, so that sums of window positions stay inside 64 bits.
constexpr std::int64_t kLargestWindow = std::int64_t{1} << 60;

// Each of the following fails where the result is beyond 64 bits.

// Number of window positions over `in` elements; not positive when the padded input is smaller than the window.
std::int64_t output_size(std::int64_t in, const Window& window);

// The same with a last, partial window allowed, provided that it starts inside the input or the padding before it
// (PyTorch's ceil_mode rule).
std::int64_t output_size_ceil(std::int64_t in, const Window& window);

// Output size of the transposed convolution.
std::int64_t transposed_output_size(std::int64_t in, const Window& window, std::int64_t output_padding);

}  // namespace fastconv
