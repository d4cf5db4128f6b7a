// How Winograd's algorithm cuts one dimension of a phase into tiles of two outputs and runs of one to three taps, which
// are added up: five taps are a run of three and one of two; with a stride of two, four taps are two runs of two, as
// even and odd inputs are images of their own. A plane of one row, as the images of one dimension are, has tiles of one
// row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/conv/kernels.h"
#include "ops/conv_plan.h"

namespace fastconv {

// For how many outputs the kernel of the products is chosen: its tiles must be whole registers of the transforms, which
// those for few outputs are not on AVX-512.
template <class T>
std::int64_t winograd_columns(const WinogradKernel& kernel, std::int64_t outputs) {
  return kernel.isa == Isa::avx512 ? std::max(outputs, 64 / static_cast<std::int64_t>(sizeof(T))) : outputs;
}

// Taps of a run along rows (or kWinogradLine) and columns.
struct WinogradRun {
  int down, across;

  bool has(std::int64_t point) const {
    return winograd_has(down, static_cast<int>(point) / kWinogradSide) &&
           winograd_has(across, static_cast<int>(point) % kWinogradSide);
  }
};

struct WinogradAxis {
  static constexpr std::size_t kMostTaps = 16;
  enum Direction { down, across };
  // Of a plane that is one row.
  static bool is_line(const AxisPhase& rows) { return rows.out_count == 1 && rows.taps.size() == 1; }
  struct Run {
    std::int64_t slot;  // of its first tap, in the inputs of the first output
    int taps = 0;
    std::size_t place[kWinogradTaps] = {};  // of each tap in the phase's list
  };
  std::int64_t in_step = 1;           // inputs from one slot to the next
  std::int64_t step = 1;              // slots from one output to the next
  std::int64_t last = 0;              // the slot of the last tap
  std::int64_t tile = kWinogradTile;  // outputs of one
  std::vector<Run> runs;
  // Whether taps are so few and so near that what lies between them may be packed with them.
  bool serves = false;

  // The phase of a lattice (conv_plan.h).
  WinogradAxis(const AxisPhase& phase, Direction direction) {
    const std::vector<Tap>& list = phase.taps;
    if (list.empty() || list.size() > kMostTaps) return;
    if (direction == down && is_line(phase)) tile = 1;
    const auto distance = [&](const Tap& tap) { return tap.offset - list[0].offset; };
    const bool alike =
        std::all_of(list.begin(), list.end(), [&](const Tap& tap) { return distance(tap) % phase.in_step == 0; });
    (alike ? in_step : step) = phase.in_step;
    last = distance(list.back()) / in_step;
    serves = slots(kWinogradTile) <= 4 * (static_cast<std::int64_t>(list.size()) + 1);
    if (!serves) return;
    std::vector<bool> taken(list.size());
    for (std::size_t first = 0; first < list.size(); ++first) {
      if (taken[first]) continue;
      // The taps that follow each other from this on, in as few runs as hold them.
      std::vector<std::size_t> chain{first};
      for (std::size_t t = first + 1; t < list.size(); ++t)
        if (list[t].offset == list[chain.back()].offset + phase.in_step) chain.push_back(t);
      for (const std::size_t t : chain) taken[t] = true;
      const std::size_t count = (chain.size() + kWinogradTaps - 1) / kWinogradTaps;
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t begin = chain.size() * i / count, end = chain.size() * (i + 1) / count;
        Run run{distance(list[chain[begin]]) / in_step};
        for (std::size_t t = begin; t < end; ++t) run.place[run.taps++] = chain[t];
        runs.push_back(run);
      }
    }
  }

  // What so many outputs side by side, at least one, read.
  std::int64_t slots(std::int64_t outputs) const { return last + (outputs - 1) * step + 1; }
  // What serves a run: its taps, or kWinogradLine.
  int form(const Run& run) const { return tile == 1 ? kWinogradLine : run.taps; }
  // The form of the longest run.
  int longest_form() const {
    int most = 0;
    for (const Run& run : runs) most = std::max(most, form(run));
    return most;
  }
  // Products of a tile.
  std::int64_t points() const {
    std::int64_t sum = 0;
    for (const Run& run : runs) sum += winograd_points(form(run));
    return sum;
  }
};

// The first so many of kWinogradPoints have products.
inline std::int64_t winograd_points_of(const WinogradAxis& rows) {
  return rows.tile == 1 ? kWinogradSide : kWinogradPoints;
}

// Of both dimensions, for phases or the first of their lattices; more runs are not worth it.
constexpr std::size_t kMostWinogradRuns = 9;
inline bool winograd_serves(const WinogradAxis& rows, const WinogradAxis& columns) {
  return rows.serves && columns.serves && rows.runs.size() * columns.runs.size() <= kMostWinogradRuns;
}

}  // namespace fastconv
