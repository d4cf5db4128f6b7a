// Which input a tap reads, and which positions of the padded input hold one input element.
#pragma once

#include "cuda/conv/conv.h"
#include "cuda/dev.h"

namespace fastconv {
namespace cuda {

// The element of [0, in) at a position of the padded input; -1 in zero padding.
FASTCONV_DEVICE Index source(const ConvAxis& axis, Index position) {
  if (position >= 0 && position < axis.in) return position;
  if (axis.mode == PadMode::zeros) return -1;
  if (axis.mode == PadMode::reflect) return position < 0 ? -position : 2 * (axis.in - 1) - position;
  if (axis.mode == PadMode::replicate) return position < 0 ? 0 : axis.in - 1;
  return position < 0 ? position + axis.in : position - axis.in;
}

// The number of positions that may show element i, itself first; the others are checked by `shown`.
FASTCONV_DEVICE Index positions_of(const ConvAxis& axis, Index i) {
  if (axis.mode == PadMode::zeros) return 1;
  if (axis.mode != PadMode::replicate) return 3;
  return 1 + (i == 0 ? axis.pad_before : 0) + (i == axis.in - 1 ? axis.pad_after : 0);
}
FASTCONV_DEVICE Index position_of(const ConvAxis& axis, Index i, Index number) {
  if (number == 0) return i;
  if (axis.mode == PadMode::reflect) return number == 1 ? -i : 2 * (axis.in - 1) - i;
  if (axis.mode == PadMode::circular) return number == 1 ? i - axis.in : i + axis.in;
  if (i == 0 && number <= axis.pad_before) return -number;
  return axis.in - 1 + number - (i == 0 ? axis.pad_before : 0);
}
// Whether a position that is not the element's own lies in the padding.
FASTCONV_DEVICE bool shown(const ConvAxis& axis, Index position, Index number) {
  if (number == 0) return true;
  return position < 0 ? position >= -axis.pad_before : position >= axis.in && position < axis.in + axis.pad_after;
}

// The output that reads `position` with tap t; -1 where none does.
FASTCONV_DEVICE Index reader(const ConvAxis& axis, Index position, Index t) {
  const Index start = position + axis.pad_before - t * axis.dilation;
  if (start < 0) return -1;
  if (axis.stride == 1) return start < axis.out ? start : -1;
  const Index o = start / axis.stride;
  return o * axis.stride == start && o < axis.out ? o : -1;
}

}  // namespace cuda
}  // namespace fastconv
