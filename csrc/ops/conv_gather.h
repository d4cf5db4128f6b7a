// The gather sum of conv_plan.h over whole arrays: one driver for forward and input gradient, dense, grouped and
// depthwise. "x" is what is read (input or output gradient) and "y" what is written; the weight comes as a view whose
// axis 0 counts y's channels per group and axis 1 x's, whatever its own order.
#pragma once

#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "core/array_view.h"
#include "cpu/conv/kernels.h"
#include "cpu/eltwise/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv.h"
#include "ops/conv_plan.h"
#include "ops/matmul.h"

namespace fastconv {

// S is the type of the arrays' elements; sums are of type Compute<S>.
template <class S>
struct GatherProblem {
  View<const S> x, y_shape;  // y_shape: y's shape and strides
  S* y = nullptr;
  const S* weight = nullptr;
  std::int64_t groups = 1;
  std::int64_t x_channels = 0, y_channels = 0;                                           // per group
  std::int64_t weight_group = 0, weight_y = 0, weight_x = 0, weight_tap[kSpatial] = {};  // strides
  const Compute<S>* bias = nullptr;  // contiguous, one value per channel of y
  Finish<Compute<S>> finish;
  Precision precision = Precision::highest;
  bool rows_are_samples = false;
  std::vector<AxisPhase> phases[kSpatial];
  bool fills_around = false;  // one_phase_has_taps(phases)

  View<S> result() const {
    View<S> view;
    view.data = y;
    std::copy_n(y_shape.shape, kRank, view.shape);
    std::copy_n(y_shape.stride, kRank, view.stride);
    return view;
  }
  bool has_one_phase() const {
    return std::all_of(phases, phases + kSpatial, [](const auto& of_axis) { return of_axis.size() == 1; });
  }
  // Windows of one element at most, for neighbouring outputs.
  bool is_point() const {
    return has_one_phase() &&
           std::all_of(phases, phases + kSpatial, [](const auto& of_axis) { return of_axis.front().taps.size() <= 1; });
  }
  // Taps along a dimension: one more than the last that is some phase's.
  std::int64_t kernel_extent(int axis) const {
    std::int64_t extent = 0;
    for (const AxisPhase& phase : phases[axis])
      for (const Tap& tap : phase.taps) extent = std::max(extent, tap.index + 1);
    return extent;
  }
};

template <class S>
void gather_dense(const GatherProblem<S>& problem);
template <class S>
void gather_rows(const GatherProblem<S>& problem);

// Winograd's algorithm (conv_winograd.cpp), for the phases where it is faster; `otherwise` computes the others. False
// where there is none. `on_tiles`: its products may be made on tile registers.
template <class S>
bool gather_winograd(const GatherProblem<S>& problem, bool on_tiles, void (*otherwise)(const GatherProblem<S>&));
// The kernel that it would take for a problem of one phase, or null, and the cycles of a sample if tile registers could
// serve instead.
struct WinogradChoice {
  const WinogradKernel* kernel = nullptr;
  double cycles = 0;
  double gain = 1;  // other kernels' time over its own, on vectors
};
template <class S>
WinogradChoice choose_winograd(const GatherProblem<S>& problem, bool on_tiles);

// From products of inputs with all weights (conv_gather_scatter.cpp); false where a gather is faster, by this kernel if
// it is not null.
template <class S>
bool gather_by_scatter(const GatherProblem<S>& problem, const TileKernel* tiles);

// The same sum as gather_dense with the channels side by side, for one channel a group of x and of y; false where its
// scratch would not do.
template <class S>
bool gather_lanes(const GatherProblem<S>& problem);

// The weight gradient where every group has one channel of each array, and the padding is not read.
template <class S>
void backward_weight_depthwise(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                               const View<S>& grad_weight);

// The weight gradient along rows, for few channels; false where tiles of channels are faster.
template <class S>
bool backward_weight_rows(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                          const View<S>& grad_weight);

// The weight's gradient from few outputs; false, with nothing of the result that counts, where it does not serve.
template <class S>
bool backward_weight_few(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                         const View<S>& grad_weight);

// The weight gradient from windows' rows that are one run in memory, for long rows of few channels; false where others
// are faster.
template <class S>
bool backward_weight_runs(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                          const View<S>& grad_weight);

// The weight gradient on tile registers; false where they are not chosen or do not hold the values.
template <class S>
bool backward_weight_tiles(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                           const View<S>& grad_weight);

// The weight gradient by Winograd's algorithm, where it applies; false where it is not chosen, or some of the result
// would not be what the definition has.
template <class S>
bool backward_weight_winograd(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                              const View<S>& grad_weight);
// The direct kernel's time over its own, as far as that can be told from the shape; zero where it does not apply.
template <class S>
double gain_of_winograd_weight(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input);

// Parts that a sum over blocks is cut into, each with `sums` elements an item: enough of them for all threads, within
// memory. By the shape only, since they are the order of the sum.
template <class T>
std::int64_t parts_of_sum(std::int64_t items, std::int64_t sums, std::int64_t blocks) {
  constexpr std::int64_t kItems = 16;  // worth having when the shape allows
  const std::int64_t most = std::min(blocks, kMostElements<T> / (items * sums));
  return std::clamp<std::int64_t>(ceil_div(kItems, items), 1, std::max<std::int64_t>(1, most));
}

// Panels of packed weights that an item computes: neighbours of one group. `slot` counts from the first that is packed.
struct PanelJob {
  std::int64_t group, panel, count, slot;
};

// The panels [first, first + count), of which a group has `panels`, in jobs of at most `span`.
std::vector<PanelJob> panel_jobs(std::int64_t first, std::int64_t count, std::int64_t panels, std::int64_t span);

// Calls body(problem of these samples) for every run of samples that `chosen` names.
template <class S, class Chosen, class Body>
void for_sample_runs(const GatherProblem<S>& problem, Chosen&& chosen, Body&& body) {
  const std::int64_t samples = problem.x.shape[0];
  for (std::int64_t n = 0, count; n < samples; n += count) {
    for (count = 0; n + count < samples && chosen(n + count);) ++count;
    if (count > 0) {
      GatherProblem<S> part = problem;
      part.x.data += n * part.x.stride[0];
      part.y += n * part.y_shape.stride[0];
      part.x.shape[0] = part.y_shape.shape[0] = count;
      body(part);
    }
    count = std::max<std::int64_t>(count, 1);
  }
}

// A multiply-add of a convolution, in nanoseconds of one thread: an estimate for sharing out the work.
template <class T>
constexpr double multiply_add_nanoseconds() {
  return sizeof(T) / 64.0;
}

// Some channels of a sample, from begin to end along each dimension.
struct OutputBox {
  std::int64_t sample, channel, channels, begin[kSpatial], end[kSpatial];
};

// Sets outputs of a box, or all in the order of memory, to their bias, or zero.
template <class S>
void fill_with_bias(const GatherProblem<S>& problem, const OutputBox& box);
template <class S>
void fill_with_bias(const GatherProblem<S>& problem);

inline bool some_outputs_have_no_taps(const std::vector<AxisPhase> (&phases)[kSpatial]) {
  return std::any_of(phases, phases + kSpatial, [](const std::vector<AxisPhase>& of_axis) {
    return std::any_of(of_axis.begin(), of_axis.end(), [](const AxisPhase& phase) { return phase.taps.empty(); });
  });
}

// When outputs without taps, as the stride is longer than the kernel, get their bias: all outputs before the others are
// computed, or those around a block with the block (store_block), which is then in the cache. The second needs a driver
// that stores so, and a problem with one phase that has taps along each dimension, beside others.
enum class Fill { before, around };
inline bool one_phase_has_taps(const std::vector<AxisPhase> (&phases)[kSpatial]) {
  if (!some_outputs_have_no_taps(phases)) return false;
  return std::all_of(phases, phases + kSpatial, [](const std::vector<AxisPhase>& of_axis) {
    std::int64_t live = 0, outputs = 0;
    for (const AxisPhase& phase : of_axis)
      if (!phase.taps.empty()) {
        ++live;
        outputs += phase.out_count;
      }
    return live == 1 && outputs > 0;
  });
}

// Calls body(phase) for every combination of one phase per dimension that has taps.
template <class S, class Body>
void for_each_live_phase(const GatherProblem<S>& problem, Body&& body) {
  const auto dead = [](const AxisPhase& phase) { return phase.taps.empty(); };
  for (const AxisPhase& d : problem.phases[0])
    for (const AxisPhase& h : problem.phases[1])
      for (const AxisPhase& w : problem.phases[2]) {
        const AxisPhase* phase[kSpatial] = {&d, &h, &w};
        if (!dead(d) && !dead(h) && !dead(w)) body(phase);
      }
}

// The same; where some have no taps, all outputs are filled first, unless body fills around its own.
template <class S, class Body>
void for_each_phase(const GatherProblem<S>& problem, Fill fill, Body&& body) {
  if (!(fill == Fill::around && problem.fills_around) && some_outputs_have_no_taps(problem.phases))
    fill_with_bias(problem);
  for_each_live_phase(problem, body);
}

}  // namespace fastconv
