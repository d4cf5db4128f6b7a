// How Winograd's algorithm cuts one dimension of a phase: into tiles of 2 outputs of 3 taps each, or of 3 of 2. Other
// numbers of taps are sums of runs of so many, the last filled up with zeros: five are two of three; with a stride of
// two, four taps are two runs, as even and odd inputs are images of their own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/conv/kernels.h"
#include "ops/conv_plan.h"

namespace fastconv {

struct WinogradAxis {
  struct Run {
    std::int64_t slot;      // of its first tap, in the inputs of the first output
    std::int64_t place[3];  // of each tap in the phase's list; -1: a zero
  };
  std::int64_t tile = kWinogradTile, taps = 0;
  std::int64_t in_step = 1;  // inputs from one slot to the next
  std::int64_t step = 1;     // slots from one output to the next
  std::vector<Run> runs;     // by ascending slots
  std::int64_t last = 0;     // the slot of the last tap

  // The phase of a lattice (conv_plan.h).
  WinogradAxis(const AxisPhase& phase, std::int64_t tile_size) : tile(tile_size), taps(kWinogradSide + 1 - tile_size) {
    const std::vector<Tap>& list = phase.taps;
    const auto distance = [&](const Tap& tap) { return tap.offset - list[0].offset; };
    const bool alike =
        std::all_of(list.begin(), list.end(), [&](const Tap& tap) { return distance(tap) % phase.in_step == 0; });
    (alike ? in_step : step) = phase.in_step;
    last = distance(list.back()) / in_step;
    std::vector<bool> taken(list.size());
    for (std::size_t first = 0; first < list.size(); ++first) {
      if (taken[first]) continue;
      Run run{distance(list[first]) / in_step, {-1, -1, -1}};
      for (std::size_t t = first; t < list.size(); ++t) {
        const std::int64_t ahead = list[t].offset - list[first].offset, place = ahead / phase.in_step;
        if (ahead % phase.in_step != 0 || place >= taps) continue;
        run.place[place] = static_cast<std::int64_t>(t);
        taken[t] = true;
      }
      runs.push_back(run);
    }
  }

  // What so many outputs side by side read, and what they need: zeros among the taps read more.
  std::int64_t slots(std::int64_t outputs) const { return runs.back().slot + (outputs + taps - 2) * step + 1; }
  std::int64_t inputs(std::int64_t outputs) const { return last + (outputs - 1) * step + 1; }
};

}  // namespace fastconv
