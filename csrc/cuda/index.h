// From a flat index to the coordinates of a canonical view, the axis that is densest in memory running fastest.
#pragma once

#include "core/array_view.h"
#include "cuda/dev.h"

namespace fastconv {
namespace cuda {

struct Position {
  Index n, c, at[kSpatial];
};

// A canonical shape, with the channels running fastest (channels-last memory) or slowest within a sample.
struct Walk {
  Index channels, extent[kSpatial];
  bool channels_fast;

  FASTCONV_DEVICE Position at(Index i) const {
    Position p{};
    if (channels_fast) {
      p.c = i % channels;
      i /= channels;
    }
    for (int axis = kSpatial - 1; axis >= 0; --axis) {
      if (extent[axis] == 1) continue;
      p.at[axis] = i % extent[axis];
      i /= extent[axis];
    }
    if (!channels_fast) {
      p.c = i % channels;
      i /= channels;
    }
    p.n = i;
    return p;
  }
};

inline Walk walk_of(const ArrayView& view) {
  const Index* s = view.stride;
  const Index* e = view.shape;
  bool fast = false;  // whether some spatial axis is less dense than the channels
  for (int axis = 2; axis < kRank; ++axis)
    if (e[axis] > 1 && (s[axis] < 0 ? -s[axis] : s[axis]) > (s[1] < 0 ? -s[1] : s[1])) fast = e[1] > 1 || fast;
  return {e[1], {e[2], e[3], e[4]}, fast};
}

template <class T>
FASTCONV_DEVICE Index offset_of(const View<T>& view, const Position& p) {
  return p.n * view.stride[0] + p.c * view.stride[1] + p.at[0] * view.stride[2] + p.at[1] * view.stride[3] +
         p.at[2] * view.stride[4];
}

}  // namespace cuda
}  // namespace fastconv
