#include "ops/conv_rows.h"

#include <algorithm>

namespace fastconv {
namespace {

constexpr std::int64_t kScratchElements = 16 << 10, kMostScratch = 2 << 20, kMostWidth = 512;

}  // namespace

std::vector<std::int64_t> weights_of_taps(Phases phase, std::int64_t channels, std::int64_t channel_step,
                                          const std::int64_t* step) {
  std::vector<std::int64_t> offsets;
  for_each_tap(phase, channels, [&](const Tap& d, const Tap& h, std::int64_t c, const Tap& w) {
    offsets.push_back(d.index * step[0] + h.index * step[1] + c * channel_step + w.index * step[2]);
  });
  return offsets;
}

std::vector<std::int64_t> slots_of_taps(const AxisSlots (&slots)[kSpatial], std::int64_t channels, std::int64_t plane) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t d : slots[0].base)
    for (std::int64_t h : slots[1].base)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t w : slots[2].base)
          offsets.push_back(c * plane + (d * slots[1].slots + h) * slots[2].slots + w);
  return offsets;
}

RowBlock row_block(Phases phase, std::int64_t channels, std::int64_t beside, std::int64_t least_width) {
  const std::int64_t lines = channels * axis_slots(*phase[0], 1, false).slots;
  const auto rows = [&](std::int64_t height) { return axis_slots(*phase[1], height, false).slots; };
  RowBlock block{std::min(phase[2]->out_count, kMostWidth), 1};
  const auto row = [&] { return lines * axis_slots(*phase[2], block.width, true).slots; };
  while (block.width > least_width && row() * rows(1) > kMostScratch) block.width /= 2;
  const std::int64_t elements = std::max<std::int64_t>({1, row() * phase[1]->in_step, block.width * beside});
  block.height = std::clamp<std::int64_t>(kScratchElements / elements, 1, phase[1]->out_count);
  while (block.height > 1 && row() * rows(block.height) > kMostScratch) block.height = ceil_div(block.height, 2);
  return block;
}

}  // namespace fastconv
