// Gather for groups of few channels of y: one channel of x (depthwise), or a few, whose taps are then one list. This
// form packs a few channels' rows one by one, padding included, and runs along the innermost dimension.
// conv_gather_lanes.cpp runs along the channels, with the same sums in the same order.
#include <algorithm>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"

namespace fastconv {
namespace {

constexpr std::int64_t kScratchElements = 16 << 10;
constexpr std::int64_t kMostScratch = 2 << 20;
constexpr std::int64_t kLongestSum = 320;  // summed in a row; longer sums are added to each other
constexpr std::int64_t kShortRow = 24;     // below it a row wastes more of its registers than a transpose costs

template <class S>
class PhaseDriver {
  using T = Compute<S>;

 public:
  PhaseDriver(const GatherProblem<S>& problem, const AxisPhase* const (&phase)[kSpatial])
      : p_(problem),
        phase_{phase[0], phase[1], phase[2]},
        kernel_(select_depthwise(DtypeOf<T>::value, active_isa_mask())),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        offset_of_tap_(weight_offsets(*phase[0], *phase[1], *phase[2], problem.weight_tap)) {
    for (std::int64_t c = 0; c < p_.x_channels; ++c)
      for (const std::int64_t offset : offset_of_tap_) weight_of_tap_.push_back(c * p_.weight_x + offset);
    group_block_ = std::clamp<std::int64_t>(16 / p_.x_channels, 1, p_.groups);
    width_ = std::min<std::int64_t>(phase_[2]->out_count, 512);
    const std::int64_t planes =
        group_block_ * p_.x_channels * static_cast<std::int64_t>(phase_[0]->taps.size() * phase_[1]->taps.size());
    while (width_ > kShortRow && axis_slots(*phase_[2], width_, true).slots * planes > kMostScratch) width_ /= 2;
    const std::int64_t row = axis_slots(*phase_[2], width_, true).slots * group_block_ * p_.x_channels;
    height_ = std::clamp<std::int64_t>(kScratchElements / std::max<std::int64_t>(row, 1), 1, phase_[1]->out_count);
  }

  void run() {
    const std::int64_t group_blocks = ceil_div(p_.groups, group_block_);
    const std::int64_t heights = ceil_div(phase_[1]->out_count, height_),
                       widths = ceil_div(phase_[2]->out_count, width_);
    const std::int64_t depths = phase_[0]->out_count;
    const double steps = static_cast<double>(p_.x.shape[0] * p_.groups * p_.y_channels * depths) *
                         static_cast<double>(phase_[1]->out_count * phase_[2]->out_count) *
                         static_cast<double>(weight_of_tap_.size() + 4);
    const Work work{p_.x.shape[0] * group_blocks * depths * heights * widths,
                    2 * steps * multiply_add_nanoseconds<T>()};
    parallel_for(work, subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
      std::int64_t j0[kSpatial];
      j0[2] = item % widths * width_;
      item /= widths;
      j0[1] = item % heights * height_;
      item /= heights;
      j0[0] = item % depths;
      item /= depths;
      run_block(item / group_blocks, item % group_blocks * group_block_, j0);
    });
  }

 private:
  void run_block(std::int64_t n, std::int64_t group0, const std::int64_t (&j0)[kSpatial]) const {
    const std::int64_t groups = std::min(group_block_, p_.groups - group0);
    const std::int64_t count[kSpatial] = {1, std::min(height_, phase_[1]->out_count - j0[1]),
                                          std::min(width_, phase_[2]->out_count - j0[2])};
    AxisSlots slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) slots[axis] = axis_slots(*phase_[axis], count[axis], axis == 2);
    const BlockPacker<S> packer{p_.x, {phase_[0], phase_[1], phase_[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_};
    const std::int64_t plane = packer.positions(), taps = static_cast<std::int64_t>(weight_of_tap_.size());
    const std::int64_t x_channels = p_.x_channels;
    Workspace<T> input(plane * groups * x_channels + kWindowSlack);
    if (taps > 0) packer.pack(input, n, group0 * x_channels, groups * x_channels, j0, 1, plane);
    const std::vector<std::int64_t> offsets = slots_of_taps(slots, plane);

    const View<const S>& y = p_.y_shape;
    const std::int64_t step = phase_[2]->out_step * y.step(2);
    const auto out = [&](int axis) { return phase_[axis]->out_start + j0[axis] * phase_[axis]->out_step; };
    S* base = p_.y + n * y.stride[0] + out(0) * y.step(0) + out(1) * y.step(1) + out(2) * y.step(2);
    const std::int64_t channels = groups * p_.y_channels, channel0 = group0 * p_.y_channels;
    const bool direct = std::is_same_v<S, T> && step == 1 && !p_.finish.map;
    Workspace<T> result(direct ? 1 : channels * count[2]);
    Workspace<T> part(taps > kLongestSum ? count[2] : 0);
    std::vector<T> weights(taps * channels);
    bool finite = true;
    for (std::int64_t k = 0; k < channels; ++k) {
      const std::int64_t channel = channel0 + k, group = channel / p_.y_channels, within = channel % p_.y_channels;
      const S* source = p_.weight + group * p_.weight_group + within * p_.weight_y;
      for (std::int64_t t = 0; t < taps; ++t) weights[k * taps + t] = widen(source[weight_of_tap_[t]]);
    }
    finite = all_finite(weights.data(), taps * channels);
    for (std::int64_t r = 0; r < count[1]; ++r) {
      S* row = base + r * phase_[1]->out_step * y.step(1);
      for (std::int64_t k = 0; k < channels; ++k) {
        const std::int64_t channel = channel0 + k;
        T* target = result + k * count[2];
        if constexpr (std::is_same_v<S, T>) {
          if (direct) target = row + channel * y.stride[1];
        }
        WindowArgs<T> args{input + k / p_.y_channels * x_channels * plane + r * slots[1].step * slots[2].slots,
                           offsets.data(),
                           weights.data() + k * taps,
                           finite ? std::min(taps, kLongestSum) : taps,
                           p_.bias ? p_.bias[channel] : T(0),
                           target,
                           count[2]};
        if (finite)
          kernel_.window(&args);
        else
          window_of_live_taps(args, j0, r);
        for (std::int64_t t = args.taps; t < taps; t += kLongestSum) {
          args.offsets = offsets.data() + t;
          args.weights = weights.data() + k * taps + t;
          args.taps = std::min(taps - t, kLongestSum);
          args.bias = T(0);
          args.y = part;
          kernel_.window(&args);
          for (std::int64_t i = 0; i < count[2]; ++i) target[i] += part[i];
        }
      }
      if (direct) continue;
      // result is [channel][position].
      if (p_.finish.map) p_.finish.map(result, nullptr, result, channels * count[2], p_.finish.parameter);
      store_run<S>(transpose_, result, count[2], channels, count[2], nullptr, row + channel0 * y.stride[1], y.stride[1],
                   step);
    }
  }

  std::vector<std::int64_t> slots_of_taps(const AxisSlots (&slots)[kSpatial], std::int64_t plane) const {
    std::vector<std::int64_t> offsets;
    for (std::int64_t c = 0; c < p_.x_channels; ++c)
      for (std::int64_t d : slots[0].base)
        for (std::int64_t h : slots[1].base)
          for (std::int64_t w : slots[2].base)
            offsets.push_back(c * plane + (d * slots[1].slots + h) * slots[2].slots + w);
    return offsets;
  }

  // Calls body(tap) for the taps of output (row r, column i of the block) that read inside the input.
  template <class Body>
  void for_each_live_tap(const std::int64_t (&j0)[kSpatial], std::int64_t r, std::int64_t i, Body&& body) const {
    const std::int64_t at[kSpatial] = {j0[0], j0[1] + r, j0[2] + i};
    const auto live = [&](int axis, const Tap& tap) {
      const std::int64_t position = at[axis] * phase_[axis]->in_step + tap.offset;
      return padded_source(position, p_.x.extent(axis), phase_[axis]->mode) >= 0;
    };
    std::int64_t t = 0;
    for (std::int64_t c = 0; c < p_.x_channels; ++c)
      for (const Tap& d : phase_[0]->taps)
        for (const Tap& h : phase_[1]->taps)
          for (const Tap& w : phase_[2]->taps) {
            if (live(0, d) && live(1, h) && live(2, w)) body(t);
            ++t;
          }
  }

  // The same sum one output at a time without the taps in the padding: for weights that are not finite.
  void window_of_live_taps(const WindowArgs<T>& args, const std::int64_t (&j0)[kSpatial], std::int64_t r) const {
    std::vector<std::int64_t> offsets;
    std::vector<T> weights;
    for (std::int64_t i = 0; i < args.count; ++i) {
      offsets.clear();
      weights.clear();
      for_each_live_tap(j0, r, i, [&](std::int64_t t) {
        offsets.push_back(args.offsets[t]);
        weights.push_back(args.weights[t]);
      });
      WindowArgs<T> one = args;
      one.x = args.x + i;
      one.offsets = offsets.data();
      one.weights = weights.data();
      one.taps = static_cast<std::int64_t>(weights.size());
      one.y = args.y + i;
      one.count = 1;
      kernel_.window(&one);
    }
  }

  const GatherProblem<S>& p_;
  const AxisPhase* phase_[kSpatial];
  const DepthwiseKernel& kernel_;
  const TransposeKernel& transpose_;
  std::vector<std::int64_t> offset_of_tap_, weight_of_tap_;
  std::int64_t group_block_ = 1, width_ = 1, height_ = 1;
};

}  // namespace

template <class S>
void gather_depthwise(const GatherProblem<S>& problem) {
  // Lanes pay for arrays that have them, and for rows that do not fill registers; they know no padding that is read.
  const AxisPhase& rows = problem.phases[2].front();
  const bool lanes = problem.x_channels == 1 && problem.y_channels == 1 && problem.groups >= 8 &&
                     rows.mode == PadMode::zeros &&
                     (problem.y_shape.stride[1] == 1 || rows.out_count < kShortRow || rows.in_step > 1 ||
                      problem.phases[2].size() > 1);
  if (lanes && gather_lanes(problem)) return;
  for_each_phase(problem, [&](const AxisPhase* const(&phase)[kSpatial]) { PhaseDriver<S>(problem, phase).run(); });
}

template void gather_depthwise<float>(const GatherProblem<float>&);
template void gather_depthwise<double>(const GatherProblem<double>&);
template void gather_depthwise<Float16>(const GatherProblem<Float16>&);
template void gather_depthwise<BFloat16>(const GatherProblem<BFloat16>&);

}  // namespace fastconv
