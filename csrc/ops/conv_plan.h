// The geometry of a convolution pass, one dimension at a time.
//
// Forward and input gradient are the same sum, "gather": out[j] = sum over taps of in[j * step + offset(tap)] * w[tap].
//   forward         step = stride, offset(k) = k * dilation - pad; one phase
//   input gradient  the positions i of one residue class modulo the stride form a phase, i = start + stride * j;
//                   its live taps are those with (start + pad - k * dilation) divisible by the stride; step = 1
// so strided gradients visit live taps only, and transposed convolution is the input gradient's loop.
#pragma once

#include <cstdint>
#include <vector>

#include "core/array_view.h"
#include "core/window.h"

namespace fastconv {

// A running sum takes about this many products before it is added to its result: the error of the whole is least where
// the sums are as long as they are many, and a short one costs loads and stores of its result. The packed panel of
// as many steps stays in the first-level cache.
constexpr std::int64_t kReductionBlock = 128;

struct Tap {
  std::int64_t index;   // in the weight
  std::int64_t offset;  // in the input
};

struct AxisPhase {
  std::int64_t out_start = 0, out_step = 1, out_count = 0;
  std::int64_t in_step = 1;
  PadMode mode = PadMode::zeros;
  std::vector<Tap> taps;  // by ascending offset
};

std::vector<AxisPhase> forward_phases(const Window& window, std::int64_t out);
std::vector<AxisPhase> backward_phases(const Window& window, std::int64_t in);

// The offset of each tap's weight, in the order of the lists; `step` holds the weight's stride along each dimension.
std::vector<std::int64_t> weight_offsets(const AxisPhase& d, const AxisPhase& h, const AxisPhase& w,
                                         const std::int64_t* step);

// Whether these are the offsets of elements that lie in one run, from the first, with none missing.
bool one_run(const std::vector<std::int64_t>& offsets);

// With dilation, outputs of one residue modulo it read inputs of one residue and are a convolution without dilation:
// the phase of each of these. Its steps are those of the taps, which must be alike.
std::vector<AxisPhase> lattices(const AxisPhase& phase);
AxisPhase lattice(const AxisPhase& phase, std::int64_t first);  // the one whose first output this is
// Tiles of two outputs that all of them have.
std::int64_t lattice_tiles(const AxisPhase& phase);
// Three taps at equal distances, of all outputs one after the other.
bool three_even_taps(const AxisPhase& phase);
// 1 where outputs skip inputs.
std::int64_t dilation_of(const AxisPhase& phase);

// Where one block of `count` outputs finds its inputs in a packed scratch: output j, tap t at slot j * step + base[t].
// Three forms, the one with fewest slots that serves: all inputs side by side; split by residue modulo the step
// (outputs side by side); or one run of `count` inputs a tap, where taps lie far apart or the step skips inputs.
struct AxisSlots {
  std::int64_t slots = 0;
  std::int64_t step = 1;
  std::vector<std::int64_t> base;
  // The runs to pack: slot + i holds input start + i * in_step, i < count, relative to output 0 of the block.
  struct Run {
    std::int64_t slot, start, in_step, count;
  };
  std::vector<Run> runs;
};

// `unit_step` asks for slots with step 1 (outputs side by side).
AxisSlots axis_slots(const AxisPhase& phase, std::int64_t count, bool unit_step);
// The third form.
AxisSlots slots_by_tap(const AxisPhase& phase, std::int64_t count);

// The outputs j < count of a block starting at j0 whose tap has an element to read: inside [0, in), or anywhere where
// the padding repeats the input.
struct Range {
  std::int64_t begin, end;
};
Range live_outputs(const AxisPhase& phase, const Tap& tap, std::int64_t j0, std::int64_t count, std::int64_t in);
// How many there are of all taps together.
std::int64_t live_products(const AxisPhase& phase, std::int64_t in);

// Outputs of a phase that have the same live taps, as a phase of their own; `first_tap` is the place of the first of
// these in the phase's list.
struct LivePart {
  AxisPhase phase;
  std::int64_t first_tap = 0;
};
std::vector<LivePart> by_live_taps(const AxisPhase& phase, std::int64_t in);

// Where block `index` starts, of `blocks` along each dimension that are `size` long, the last dimension's neighbours
// first; what is left of the index counts samples.
std::int64_t locate_block(std::int64_t index, const std::int64_t (&blocks)[kSpatial],
                          const std::int64_t (&size)[kSpatial], std::int64_t (&start)[kSpatial]);

// Outputs along one dimension that have the same live taps, so that a kernel needs no padding: output y + i * y_step,
// i < count, reads x + i * x_step + t * x_tap with the weight of index w + t * w_tap, t < taps.
struct AxisRun {
  std::int64_t y, y_step, count;
  std::int64_t x, x_step;
  std::int64_t taps, x_tap;
  std::int64_t w, w_tap;
  std::int64_t first_tap;  // the place of the first in the phase's list
};

// The outputs [y_begin, y_end) as runs, and the inputs [x_begin, x_end) that they read.
struct AxisBlock {
  std::int64_t y_begin = 0, y_end = 0;
  std::int64_t x_begin = 0, x_end = 0;
  std::vector<AxisRun> runs;
};

// Blocks of `size` of the `out` outputs of all phases, over `in` inputs.
std::vector<AxisBlock> axis_blocks(const std::vector<AxisPhase>& phases, std::int64_t out, std::int64_t in,
                                   std::int64_t size);

}  // namespace fastconv
