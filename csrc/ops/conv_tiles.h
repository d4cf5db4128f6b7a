// What the passes on tile registers (cpu/conv/tile_kernels.h) share: how inputs lie in scratch, and which values keep
// their accuracy when they are split into parts.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/conv/tile_kernels.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"

namespace fastconv {

// Positions of a block, about, and of a tile.
constexpr std::int64_t kTilePositions = 256, kRowTile = 16;

// A block's inputs such that outputs that are neighbours, along a row and from one row to the next, read neighbouring
// slots, whatever the stride: output (r, c) of a block finds tap t at slot r * pitch + c + base[t]. Positions of
// scratch between the last output of a row and the first of the next are computed and thrown away.
struct TileSlots {
  AxisSlots depth, height;
  std::vector<AxisSlots> planes;  // a plane of slots for each run along the width
  std::int64_t pitch = 0, plane = 0, slots = 0;
  std::vector<std::int64_t> base;  // of each tap, in the order of weight_offsets

  // Positions of a block, with those between its rows.
  std::int64_t positions(const std::int64_t (&count)[kSpatial]) const { return (count[1] - 1) * pitch + count[2]; }

  // Channel c of slot s to dst[s * slot_stride + c * channel_stride], one of which is 1; zeros where there is no input.
  template <class S>
  void pack(const View<const S>& x, const AxisPhase* const (&phase)[kSpatial], const TransposeKernel& transpose,
            std::int64_t n, std::int64_t c0, std::int64_t channels, const std::int64_t (&j0)[kSpatial], Compute<S>* dst,
            std::int64_t slot_stride, std::int64_t channel_stride) const {
    for (std::size_t i = 0; i < planes.size(); ++i)
      BlockPacker<S>{x, {phase[0], phase[1], phase[2]}, {&depth, &height, &planes[i]}, transpose}.pack(
          dst + static_cast<std::int64_t>(i) * plane * slot_stride, n, c0, channels, j0, slot_stride, channel_stride);
  }
  // Whether `pack` leaves slots as they are.
  bool has_gaps() const {
    return std::any_of(planes.begin(), planes.end(), [&](const AxisSlots& p) { return p.runs[0].count < pitch; });
  }
};

// `by_tap`: each tap along the width has a plane of its own, and nothing is thrown away.
TileSlots tile_slots(const AxisPhase* const (&phase)[kSpatial], const std::int64_t (&count)[kSpatial], bool by_tap);

// What decides whether tiles serve, and in which blocks: the kernel's work, and for 16-bit arrays that of float32 ones
// at the highest level, so that both have the same sums.
struct TileWork {
  int parts, products;
};
template <class S>
TileWork work_of(const TileKernel& kernel) {
  return is_wide<S> ? TileWork{kernel.parts, kernel.products} : TileWork{3, 6};
}

// Blocks of outputs, and what they cost in cycles.
struct TilePlan {
  std::int64_t block[kSpatial] = {1, 1, 1}, blocks[kSpatial] = {1, 1, 1};
  bool by_tap = false;
  double cycles = 0;       // of one sample, for all its blocks
  std::int64_t slots = 0;  // of a block

  std::int64_t blocks_of_sample() const { return blocks[0] * blocks[1] * blocks[2]; }
  // Where block `index` of a sample begins, and its size.
  void locate(std::int64_t index, const AxisPhase* const (&phase)[kSpatial], std::int64_t (&start)[kSpatial],
              std::int64_t (&count)[kSpatial]) const {
    locate_block(index, blocks, block, start);
    for (int axis = 0; axis < kSpatial; ++axis)
      count[axis] = std::min(block[axis], phase[axis]->out_count - start[axis]);
  }
};

// Cycles of a product of tiles, and multiply-adds a cycle of the kernels that would run instead, as far as either is
// reached. Choice wants the first to take at most kLeastGain of the others' time.
constexpr double kTileCycles = 16 / 0.65, kOtherRate = 32 * 0.85, kLeastGain = 0.9;

// Cycles for 16 positions and for a slot, with all channels.
struct TileCosts {
  double tile, slot;
};
TilePlan plan_tiles(const AxisPhase* const (&phase)[kSpatial], const TileCosts& costs);

// Whether some channels of a block's slots, as numbers and as parts, are within the memory of an item.
inline bool slots_fit(const TilePlan& plan, std::int64_t channels, int parts) {
  constexpr std::int64_t kMostBytes = std::int64_t{8} << 20;
  return plan.slots * channels * (4 + 2 * parts) <= kMostBytes;
}

// The slots behind the last that tiles of positions may reach into.
constexpr std::int64_t kTileSlack = 32;

// Whether sums of `length` products of values, the largest of which are given by their bits, are as exact in parts as
// they should be: finite, within float32's range whatever their order, and so far from its lower end that parts which
// are flushed to zero do not count. The largest values decide, and sums of small ones among them lose at most what
// such a part can hold.
bool parts_serve(std::uint32_t largest_x, std::uint32_t largest_w, std::int64_t length);

// The kernel if tiles are chosen. A pure function of the shape without its samples, dtype, level and instruction sets.
template <class S>
const TileKernel* choose_tiles(const GatherProblem<S>& problem);
// `otherwise` computes the samples whose values parts do not hold.
template <class S>
void gather_tiles(const GatherProblem<S>& problem, const TileKernel& kernel,
                  void (*otherwise)(const GatherProblem<S>&));

}  // namespace fastconv
