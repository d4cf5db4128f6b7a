#include "ops/conv_plan.h"

#include <algorithm>

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
    phase.out_count = (in - start + window.stride - 1) / window.stride;
    for (std::int64_t k = window.kernel - 1; k >= 0; --k) {
      const std::int64_t distance = start + window.pad_before - k * window.dilation;
      if (distance % window.stride == 0) phase.taps.push_back({k, distance / window.stride});
    }
    phases.push_back(phase);
  }
  return phases;
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
  if (result.slots <= taps * count) return result;
  result = AxisSlots{};
  result.slots = taps * count;
  for (std::int64_t t = 0; t < taps; ++t) {
    result.base.push_back(t * count);
    result.runs.push_back({t * count, phase.taps[t].offset, step, count});
  }
  return result;
}

Range live_outputs(const AxisPhase& phase, const Tap& tap, std::int64_t j0, std::int64_t count, std::int64_t in) {
  if (phase.mode != PadMode::zeros) return {0, count};
  const std::int64_t origin = j0 * phase.in_step + tap.offset, step = phase.in_step;
  const std::int64_t begin = origin >= 0 ? 0 : (-origin + step - 1) / step;
  const std::int64_t end = in - origin <= 0 ? 0 : (in - origin + step - 1) / step;
  return {std::min(begin, count), std::clamp(end, std::min(begin, count), count)};
}

}  // namespace fastconv
