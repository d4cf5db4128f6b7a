// What convolutions along rows share: conv_gather_rows.cpp and conv_backward_weight_rows.cpp pack a block's input
// channel by channel, padding included, and have its taps, of all input channels of a group, as one list.
#pragma once

#include <cstdint>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/conv/kernels.h"
#include "ops/conv_plan.h"

namespace fastconv {

using Phases = const AxisPhase* const (&)[kSpatial];

// Calls body(d, h, channel, w) for every tap, in the order of the list: with the channels inside, the taps of some rows
// of the window follow each other.
template <class Body>
void for_each_tap(Phases phase, std::int64_t channels, Body&& body) {
  for (const Tap& d : phase[0]->taps)
    for (const Tap& h : phase[1]->taps)
      for (std::int64_t c = 0; c < channels; ++c)
        for (const Tap& w : phase[2]->taps) body(d, h, c, w);
}

// The offset of each tap's weight; `step` holds the weight's stride along each dimension.
std::vector<std::int64_t> weights_of_taps(Phases phase, std::int64_t channels, std::int64_t channel_step,
                                          const std::int64_t* step);

// Where each tap finds the first output's input in a packed block, of which a channel has `plane` positions.
std::vector<std::int64_t> slots_of_taps(const AxisSlots (&slots)[kSpatial], std::int64_t channels, std::int64_t plane);

// Blocks of outputs: as wide as rows are, up to a limit, and as high as the first caches have room for the packed input
// of `channels`, and for `beside` numbers of each output. Taps that lie far apart are packed for each row anew, so that
// more than that may be packed; but never more than a call may have, down to the least width.
struct RowBlock {
  std::int64_t width, height;
};
RowBlock row_block(Phases phase, std::int64_t channels, std::int64_t beside, std::int64_t least_width);

// A group's output channels in nearly equal parts, whose channels share what a kernel reads.
struct ChannelPart {
  std::int64_t first, count;
};
inline std::int64_t channel_parts(std::int64_t channels) { return ceil_div(channels, kMostWindowRows); }
inline std::int64_t largest_part(std::int64_t channels) { return ceil_div(channels, channel_parts(channels)); }
inline ChannelPart channel_part(std::int64_t channels, std::int64_t index) {
  const std::int64_t parts = channel_parts(channels), first = channels * index / parts;
  return {first, channels * (index + 1) / parts - first};
}

}  // namespace fastconv
