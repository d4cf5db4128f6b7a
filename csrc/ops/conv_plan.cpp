#include "ops/conv_plan.h"

#include <algorithm>

#include "core/arithmetic.h"

namespace fastconv {

std::vector<AxisPhase> forward_phases(const Window& window, std::int64_t out) {
  AxisPhase phase;
  phase.out_count = out;
  phase.in_step = window.stride;
  phase.mode = window.mode;
  for (std::int64_t k = 0; k < window.kernel; ++k) phase.taps.push_back({k, k * window.dilation - window.pad_before});
  return {phase};
}

std::vector<AxisPhase> backward_phases(const Window& window, std::int64_t in) {
  std::vector<AxisPhase> phases;
  for (std::int64_t start = 0; start < std::min(window.stride, in); ++start) {
    AxisPhase phase;
    phase.out_start = start;
    phase.out_step = window.stride;
    phase.out_count = ceil_div(in - start, window.stride);
    for (std::int64_t k = window.kernel - 1; k >= 0; --k) {
      const std::int64_t distance = start + window.pad_before - k * window.dilation;
      if (distance % window.stride == 0) phase.taps.push_back({k, distance / window.stride});
    }
    phases.push_back(phase);
  }
  return phases;
}

bool three_even_taps(const AxisPhase& phase) {
  if (phase.in_step != 1 || phase.out_step != 1 || phase.taps.size() != 3) return false;
  const std::int64_t distance = phase.taps[1].offset - phase.taps[0].offset;
  return distance > 0 && phase.taps[2].offset - phase.taps[1].offset == distance;
}

std::int64_t dilation_of(const AxisPhase& phase) {
  return phase.in_step > 1 || phase.taps.size() < 2 ? 1 : phase.taps[1].offset - phase.taps[0].offset;
}

AxisPhase lattice(const AxisPhase& phase, std::int64_t first) {
  const std::int64_t dilation = dilation_of(phase);
  if (dilation == 1) return phase;
  AxisPhase one = phase;
  one.out_start += first * phase.out_step;
  one.out_step *= dilation;
  one.in_step = dilation;
  one.out_count = ceil_div(phase.out_count - first, dilation);
  for (Tap& tap : one.taps) tap.offset += first;
  return one;
}

std::vector<AxisPhase> lattices(const AxisPhase& phase) {
  std::vector<AxisPhase> all;
  for (std::int64_t first = 0; first < std::min(dilation_of(phase), phase.out_count); ++first)
    all.push_back(lattice(phase, first));
  return all;
}

std::int64_t lattice_tiles(const AxisPhase& phase) {
  const std::int64_t dilation = dilation_of(phase);
  const std::int64_t least = phase.out_count / dilation, longer = phase.out_count % dilation;
  return longer * ceil_div(least + 1, std::int64_t{2}) + (dilation - longer) * ceil_div(least, std::int64_t{2});
}

std::vector<std::int64_t> weight_offsets(const AxisPhase& d, const AxisPhase& h, const AxisPhase& w,
                                         const std::int64_t* step) {
  std::vector<std::int64_t> offsets;
  offsets.reserve(d.taps.size() * h.taps.size() * w.taps.size());
  for (const Tap& td : d.taps)
    for (const Tap& th : h.taps)
      for (const Tap& tw : w.taps) offsets.push_back(td.index * step[0] + th.index * step[1] + tw.index * step[2]);
  return offsets;
}

std::int64_t locate_block(std::int64_t index, const std::int64_t (&blocks)[kSpatial],
                          const std::int64_t (&size)[kSpatial], std::int64_t (&start)[kSpatial]) {
  for (int axis = kSpatial - 1; axis >= 0; --axis) {
    start[axis] = index % blocks[axis] * size[axis];
    index /= blocks[axis];
  }
  return index;
}

bool one_run(const std::vector<std::int64_t>& offsets) {
  const auto [least, most] = std::minmax_element(offsets.begin(), offsets.end());
  return !offsets.empty() && *least == 0 && *most == static_cast<std::int64_t>(offsets.size()) - 1;
}

AxisSlots axis_slots(const AxisPhase& phase, std::int64_t count, bool unit_step) {
  AxisSlots result;
  if (phase.taps.empty()) return result;
  const std::int64_t first = phase.taps.front().offset, step = phase.in_step;
  const std::int64_t contiguous = (count - 1) * step + phase.taps.back().offset - first + 1;
  if (step == 1 || !unit_step) {
    result.slots = contiguous;
    result.step = step;
    for (const Tap& tap : phase.taps) result.base.push_back(tap.offset - first);
    result.runs.push_back({0, first, 1, contiguous});
  } else {
    // Taps of one residue class modulo the step share a run of every step-th input.
    result.base.resize(phase.taps.size());
    std::vector<std::int64_t> residues;
    for (const Tap& tap : phase.taps) residues.push_back((tap.offset - first) % step);
    std::sort(residues.begin(), residues.end());
    residues.erase(std::unique(residues.begin(), residues.end()), residues.end());
    for (const std::int64_t residue : residues) {
      AxisSlots::Run run{result.slots, 0, step, 0};
      for (std::size_t t = 0; t < phase.taps.size(); ++t) {
        const std::int64_t offset = phase.taps[t].offset;
        if ((offset - first) % step != residue) continue;
        if (run.count == 0) run.start = offset;
        result.base[t] = run.slot + (offset - run.start) / step;
        run.count = (offset - run.start) / step + count;
      }
      result.runs.push_back(run);
      result.slots += run.count;
    }
  }
  const auto taps = static_cast<std::int64_t>(phase.taps.size());
  return result.slots <= taps * count ? result : slots_by_tap(phase, count);
}

AxisSlots slots_by_tap(const AxisPhase& phase, std::int64_t count) {
  AxisSlots result;
  for (const Tap& tap : phase.taps) {
    result.base.push_back(result.slots);
    result.runs.push_back({result.slots, tap.offset, phase.in_step, count});
    result.slots += count;
  }
  return result;
}

Range live_outputs(const AxisPhase& phase, const Tap& tap, std::int64_t j0, std::int64_t count, std::int64_t in) {
  if (phase.mode != PadMode::zeros) return {0, count};
  const std::int64_t origin = j0 * phase.in_step + tap.offset, step = phase.in_step;
  const std::int64_t begin = origin >= 0 ? 0 : ceil_div(-origin, step);
  const std::int64_t end = in - origin <= 0 ? 0 : ceil_div(in - origin, step);
  return {std::min(begin, count), std::clamp(end, std::min(begin, count), count)};
}

std::int64_t live_products(const AxisPhase& phase, std::int64_t in) {
  std::int64_t live = 0;
  for (const Tap& tap : phase.taps) {
    const Range range = live_outputs(phase, tap, 0, phase.out_count, in);
    live += std::max<std::int64_t>(0, range.end - range.begin);
  }
  return live;
}

namespace {

// Outputs j in [begin, end) of one phase. The live taps of an output are neighbours in the list, [first, last).
void list_runs(std::vector<AxisRun>& runs, const AxisPhase& phase, std::int64_t begin, std::int64_t end,
               std::int64_t in) {
  const auto taps = static_cast<std::int64_t>(phase.taps.size());
  const auto offset = [&](std::int64_t t) { return phase.taps[static_cast<std::size_t>(t)].offset; };
  const auto index = [&](std::int64_t t) { return phase.taps[static_cast<std::size_t>(t)].index; };
  std::int64_t first = taps, last = taps;
  for (std::int64_t j = begin; j < end;) {
    while (first > 0 && offset(first - 1) + j * phase.in_step >= 0) --first;
    while (last > first && offset(last - 1) + j * phase.in_step >= in) --last;
    // The next output that gains a tap, or loses one.
    std::int64_t next = end;
    if (first > 0) next = std::min(next, ceil_div(-offset(first - 1), phase.in_step));
    if (last > first) next = std::min(next, ceil_div(in - offset(last - 1), phase.in_step));
    AxisRun run{
        phase.out_start + j * phase.out_step, phase.out_step, next - j, 0, phase.in_step, last - first, 0, 0, 0, first};
    if (run.taps > 0) {
      run.x = offset(first) + j * phase.in_step;
      run.w = index(first);
    }
    if (run.taps > 1) {
      run.x_tap = offset(first + 1) - offset(first);
      run.w_tap = index(first + 1) - index(first);
    }
    runs.push_back(run);
    j = next;
  }
}

}  // namespace

std::vector<LivePart> by_live_taps(const AxisPhase& phase, std::int64_t in) {
  if (phase.mode != PadMode::zeros) return {{phase, 0}};
  std::vector<AxisRun> runs;
  list_runs(runs, phase, 0, phase.out_count, in);
  std::vector<LivePart> parts;
  for (const AxisRun& run : runs) {
    LivePart part{phase, run.first_tap};
    part.phase.out_start = run.y;
    part.phase.out_count = run.count;
    const auto first = phase.taps.begin() + run.first_tap;
    part.phase.taps.assign(first, first + run.taps);
    for (Tap& tap : part.phase.taps) tap.offset += (run.y - phase.out_start) / phase.out_step * phase.in_step;
    parts.push_back(std::move(part));
  }
  return parts;
}

std::vector<AxisBlock> axis_blocks(const std::vector<AxisPhase>& phases, std::int64_t out, std::int64_t in,
                                   std::int64_t size) {
  std::vector<AxisBlock> blocks;
  for (std::int64_t y = 0; y < out; y += size) {
    AxisBlock block;
    block.y_begin = y;
    block.y_end = std::min(out, y + size);
    for (const AxisPhase& phase : phases)
      list_runs(block.runs, phase, std::max<std::int64_t>(0, ceil_div(block.y_begin - phase.out_start, phase.out_step)),
                ceil_div(block.y_end - phase.out_start, phase.out_step), in);
    block.x_begin = in;
    for (const AxisRun& run : block.runs)
      if (run.taps > 0) {
        block.x_begin = std::min(block.x_begin, run.x);
        block.x_end = std::max(block.x_end, run.x + (run.count - 1) * run.x_step + (run.taps - 1) * run.x_tap + 1);
      }
    block.x_begin = std::min(block.x_begin, block.x_end);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace fastconv
