// The geometry of pooling windows on a device: taps inside the input, divisors, and extremes.
#pragma once

#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/pool/pool.h"

namespace fastconv {
namespace cuda {

// Taps first, first + 1, ... of a window that lie inside the input; `nearest` is the input next to the window's start.
struct Live {
  Index first, count, nearest;
};

FASTCONV_DEVICE Live live_taps(const PoolAxis& axis, Index o) {
  const Index start = o * axis.stride - axis.pad_before;
  const Index skip = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
  const Index end = start < axis.in ? dev::smaller(axis.kernel, (axis.in - 1 - start) / axis.dilation + 1) : 0;
  const Index nearest = start < 0 ? 0 : dev::smaller(start, axis.in - 1);
  return {skip, end > skip ? end - skip : 0, nearest};
}

// One axis's factor of the divisor: the taps inside the input, or inside the padded input. A divisor that the caller
// chose counts as a factor of W alone.
FASTCONV_DEVICE Index counted_taps(const PoolShape& shape, int i, Index o) {
  const PoolAxis& axis = shape.axis[i];
  if (shape.divisor_override != 0) return i == 2 ? shape.divisor_override : 1;
  if (!shape.count_include_pad) return dev::larger(live_taps(axis, o).count, 1);
  const Index padded = axis.in + axis.pad_before + axis.pad_after;
  return dev::larger(dev::smaller(axis.kernel, (padded - 1 - o * axis.stride) / axis.dilation + 1), 1);
}

FASTCONV_DEVICE Index divisor_of(const PoolShape& shape, const Index (&o)[kSpatial]) {
  return counted_taps(shape, 0, o[0]) * counted_taps(shape, 1, o[1]) * counted_taps(shape, 2, o[2]);
}

// The best value so far, and its place. A NaN wins, the last one; of equal values the first.
template <class T>
struct Extreme {
  bool smallest;
  T value;
  Index place;

  FASTCONV_DEVICE void take(T x, Index at) {
    if (x != x || (smallest ? x < value : x > value)) {
      value = x;
      place = at;
    }
  }
};

template <class T>
FASTCONV_DEVICE Extreme<T> no_extreme(bool smallest, Index place) {
  const T infinity = static_cast<T>(INFINITY);
  return {smallest, smallest ? infinity : -infinity, place};
}

// Calls take(the input's coordinates) for every tap of window o that lies inside the input.
template <class Take>
FASTCONV_DEVICE void taps_of(const PoolShape& shape, const Index (&o)[kSpatial], Take&& take) {
  Live live[kSpatial];
  for (int axis = 0; axis < kSpatial; ++axis) live[axis] = live_taps(shape.axis[axis], o[axis]);
  const auto input = [&](int axis, Index tap) {
    return o[axis] * shape.axis[axis].stride - shape.axis[axis].pad_before + tap * shape.axis[axis].dilation;
  };
  for (Index a = live[0].first; a < live[0].first + live[0].count; ++a)
    for (Index b = live[1].first; b < live[1].first + live[1].count; ++b)
      for (Index c = live[2].first; c < live[2].first + live[2].count; ++c) {
        const Index from[kSpatial] = {input(0, a), input(1, b), input(2, c)};
        take(from);
      }
}

// Calls take(the output's coordinates) for every window that input i lies in.
template <class Take>
FASTCONV_DEVICE void windows_over(const PoolShape& shape, const Index (&i)[kSpatial], Take&& take) {
  Index o[kSpatial];
  const auto window = [](const PoolAxis& axis, Index at, Index t) {
    const Index start = at + axis.pad_before - t * axis.dilation;
    if (start < 0) return Index{-1};
    const Index reader = start / axis.stride;
    return reader * axis.stride == start && reader < axis.out ? reader : Index{-1};
  };
  for (Index d = shape.axis[0].kernel - 1; d >= 0; --d) {
    o[0] = window(shape.axis[0], i[0], d);
    if (o[0] < 0) continue;
    for (Index h = shape.axis[1].kernel - 1; h >= 0; --h) {
      o[1] = window(shape.axis[1], i[1], h);
      if (o[1] < 0) continue;
      for (Index w = shape.axis[2].kernel - 1; w >= 0; --w) {
        o[2] = window(shape.axis[2], i[2], w);
        if (o[2] >= 0) take(o);
      }
    }
  }
}

template <class T>
FASTCONV_DEVICE Index spatial_offset(const View<T>& view, Index n, Index c, const Index (&at)[kSpatial]) {
  return offset_of(view, Position{n, c, {at[0], at[1], at[2]}});
}

}  // namespace cuda
}  // namespace fastconv
