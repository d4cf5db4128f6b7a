// Where in the input a product of the convolution finds its factor: an output position and a step of its sum, which is
// one tap of one channel, each bring their part of the offset.
#pragma once

#include <algorithm>
#include <limits>

#include "cuda/conv/tiles.h"
#include "cuda/odometer.h"

namespace fastconv {
namespace cuda {

constexpr Index kNothing = std::numeric_limits<Index>::min();  // no offset, of which negative ones are some

struct Gather {
  SumAxis axis[kSpatial];
  Index sample, channel, along[kSpatial];    // strides of the input
  int out[kSpatial];                         // what an odometer of positions counts to; its `high` is the sample
  int inner[kSpatial], taps, steps, inputs;  // of an odometer of steps: taps of two axes, channels; `high` is the first

  // Where an output's window begins, and what a step adds to that. One that is not live is so far out on the first axis
  // that it is outside with any of the other kind, also with one that is not live (sizes are below 2^29).
  struct Corner {
    Index offset;
    int start[kSpatial];
  };
  struct Reach {
    Index offset;
    int ahead[kSpatial];
  };
  static constexpr int kFarBefore = std::numeric_limits<int>::min(), kFarAhead = 1 << 30;

  FASTCONV_DEVICE Corner corner(const Odometer& position, bool live) const {
    Corner result{position.high * sample, {}};
    FASTCONV_UNROLL
    for (int i = 0; i < kSpatial; ++i) {
      result.start[i] = position.digit[i] * axis[i].stride - axis[i].pad;
      result.offset += result.start[i] * along[i];
    }
    if (!live) result.start[0] = kFarBefore;
    return result;
  }
  FASTCONV_DEVICE Reach reach(const Odometer& step, bool live) const {
    const int tap[kSpatial] = {static_cast<int>(step.high), step.digit[0], step.digit[1]};
    Reach result{step.digit[2] * channel, {}};
    FASTCONV_UNROLL
    for (int i = 0; i < kSpatial; ++i) {
      result.ahead[i] = tap[i] * axis[i].dilation;
      result.offset += result.ahead[i] * along[i];
    }
    if (!live) result.ahead[0] = kFarAhead;
    return result;
  }
  // kNothing in the padding and beyond the ends.
  FASTCONV_DEVICE Index at(const Corner& corner, const Reach& reach) const {
    bool inside = true;
    FASTCONV_UNROLL
    for (int i = 0; i < kSpatial; ++i)
      inside = inside && static_cast<unsigned>(corner.start[i] + reach.ahead[i]) < static_cast<unsigned>(axis[i].in);
    return inside ? corner.offset + reach.offset : kNothing;
  }
};

inline Gather gather_of(const TileSum& sum, const ArrayView& x) {
  const SumAxis* a = sum.axis;
  Gather gather{};
  gather.sample = x.stride[0];
  gather.channel = x.stride[1];
  for (int i = 0; i < kSpatial; ++i) {
    gather.axis[i] = a[i];
    gather.along[i] = x.step(i);
    gather.out[i] = std::max(a[i].out, 1);
  }
  gather.inputs = static_cast<int>(sum.group_inputs);
  gather.taps = a[0].taps * a[1].taps * a[2].taps;
  gather.steps = gather.taps * gather.inputs;
  const int inner[kSpatial] = {a[1].taps, a[2].taps, gather.inputs};
  for (int i = 0; i < kSpatial; ++i) gather.inner[i] = std::max(inner[i], 1);  // a phase may have no taps
  return gather;
}

}  // namespace cuda
}  // namespace fastconv
