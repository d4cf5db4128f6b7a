#include "core/window.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace fastconv {
namespace {

__extension__ using Wide = __int128;  // holds any product of two 64-bit numbers

Wide floor_div(Wide a, Wide b) { return a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0); }

// Distance between the first and the last element that one window touches, plus one.
Wide reach(const Window& window) { return Wide{window.kernel - 1} * window.dilation + 1; }

// How far the last window can be from the first.
Wide room(std::int64_t in, const Window& window) {
  return Wide{in} + window.pad_before + window.pad_after - reach(window);
}

std::int64_t checked(Wide size) {
  const auto narrow = static_cast<std::int64_t>(size);
  require(narrow == size, "output size: beyond 64 bits");
  return narrow;
}

}  // namespace

std::int64_t padded_source(std::int64_t position, std::int64_t in, PadMode mode) {
  if (position >= 0 && position < in) return position;
  switch (mode) {
    case PadMode::zeros:
      return -1;
    case PadMode::reflect:
      return position < 0 ? -position : 2 * (in - 1) - position;
    case PadMode::replicate:
      return std::clamp<std::int64_t>(position, 0, in - 1);
    case PadMode::circular:
      return position < 0 ? position + in : position - in;
  }
  return -1;
}

std::int64_t most_padding(std::int64_t in, PadMode mode) {
  constexpr std::int64_t any = std::numeric_limits<std::int64_t>::max();
  switch (mode) {
    case PadMode::zeros:
      return any;
    case PadMode::reflect:
      return std::max<std::int64_t>(in - 1, 0);
    case PadMode::replicate:
      return in > 0 ? any : 0;
    case PadMode::circular:
      return in;
  }
  return 0;
}

std::int64_t output_size(std::int64_t in, const Window& window) {
  return checked(floor_div(room(in, window), window.stride) + 1);
}

std::int64_t output_size_ceil(std::int64_t in, const Window& window) {
  Wide size = floor_div(room(in, window) + window.stride - 1, window.stride) + 1;
  if ((size - 1) * window.stride >= Wide{in} + window.pad_before) --size;
  return checked(size);
}

std::int64_t transposed_output_size(std::int64_t in, const Window& window, std::int64_t output_padding) {
  return checked((Wide{in} - 1) * window.stride - window.pad_before - window.pad_after + reach(window) +
                 output_padding);
}

}  // namespace fastconv
