// Gather for groups of few channels: one channel of x (depthwise), or a few, whose taps are then one list. This form
// packs a few channels' rows one by one, padding included, and runs along the innermost dimension, for a few channels
// of y at a time. Taps whose rows are in the padding are left out.
// conv_gather_lanes.cpp runs along the channels, with the same sums in the same order up to kLongestSum taps.
#include <algorithm>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"
#include "ops/conv_rows.h"

namespace fastconv {
namespace {

constexpr std::int64_t kLongestSum = 320;  // summed in a row; longer sums are added to each other
constexpr std::int64_t kLeastWidth = 24;   // of a block, where rows have as many outputs
constexpr std::int64_t kSharedWidth = 96;  // least of a block that is cut for the threads
constexpr double kSharedWork = 100e3;      // nanoseconds that are worth cutting blocks
constexpr std::int64_t kLongRow = 64;      // of a few taps: worth more than the transposes that lanes take
constexpr std::int64_t kFewTaps = 9;
constexpr std::int64_t kStoredChannels = 16;                    // that are turned together
constexpr std::int64_t kPackedWeights = std::int64_t{1} << 20;  // elements packed at a time

template <class S>
class PhaseDriver {
  using T = Compute<S>;

 public:
  PhaseDriver(const GatherProblem<S>& problem, const AxisPhase* const (&phase)[kSpatial])
      : p_(problem),
        phase_{phase[0], phase[1], phase[2]},
        kernel_(select_depthwise(DtypeOf<T>::value, phase[2]->out_count, active_isa_mask())),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        weight_of_tap_(weights_of_taps(phase, problem.x_channels, problem.weight_x, problem.weight_tap)),
        row_taps_(problem.x_channels * static_cast<std::int64_t>(phase[2]->taps.size())),
        taps_(static_cast<std::int64_t>(weight_of_tap_.size())),
        group_block_(std::clamp<std::int64_t>(16 / problem.x_channels, 1, problem.groups)),
        block_(row_block(phase, group_block_ * problem.x_channels, 0, kLeastWidth)) {}

  void run() {
    const std::int64_t of_group = std::max<std::int64_t>(1, taps_ * p_.y_channels);
    const std::int64_t blocks = ceil_div(p_.groups, group_block_);
    const std::int64_t at_once = std::clamp<std::int64_t>(kPackedWeights / (of_group * group_block_), 1, blocks);
    Workspace<T> weights(std::min(at_once * group_block_, p_.groups) * of_group);
    for (std::int64_t block = 0; block < blocks; block += at_once) {
      const std::int64_t group = block * group_block_;
      const std::int64_t groups = std::min(at_once * group_block_, p_.groups - group);
      pack_weights(group, groups, weights);
      weights_ = weights;
      finite_ = all_finite<T>(weights, groups * of_group);
      compute(group, groups);
    }
  }

 private:
  void pack_weights(std::int64_t group, std::int64_t groups, T* weights) const {
    for (std::int64_t k = 0; k < groups * p_.y_channels; ++k) {
      const S* source = p_.weight + (group + k / p_.y_channels) * p_.weight_group + k % p_.y_channels * p_.weight_y;
      for (std::int64_t t = 0; t < taps_; ++t) *weights++ = widen(source[weight_of_tap_[t]]);
    }
  }

  std::int64_t blocks_of(const RowBlock& block) const {
    return ceil_div(phase_[1]->out_count, block.height) * ceil_div(phase_[2]->out_count, block.width);
  }

  // Blocks as they are, or smaller where threads would have none.
  RowBlock shared_block(std::int64_t blocks, double nanoseconds) const {
    RowBlock block = block_;
    const std::int64_t threads = get_num_threads();
    if (nanoseconds < kSharedWork || threads == 1) return block;
    const auto idle = [&] { return blocks * blocks_of(block) < 4 * threads; };
    while (idle() && block.height > 1) block.height = ceil_div(block.height, 2);
    while (idle() && block.width > kSharedWidth) block.width = rounded_up(block.width / 2, kSharedWidth / 2);
    return block;
  }

  void compute(std::int64_t group, std::int64_t groups) const {
    const std::int64_t group_blocks = ceil_div(groups, group_block_), depths = phase_[0]->out_count;
    const double steps = static_cast<double>(p_.x.shape[0] * groups * p_.y_channels * depths) *
                         static_cast<double>(phase_[1]->out_count * phase_[2]->out_count) *
                         static_cast<double>(taps_ + 4);
    const double nanoseconds = 2 * steps * multiply_add_nanoseconds<T>();
    const std::int64_t planes = p_.x.shape[0] * group_blocks * depths;
    const RowBlock block = shared_block(planes, nanoseconds);
    const std::int64_t heights = ceil_div(phase_[1]->out_count, block.height),
                       widths = ceil_div(phase_[2]->out_count, block.width);
    const Work work{planes * heights * widths, nanoseconds};
    parallel_for(work, subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
      std::int64_t j0[kSpatial];
      j0[2] = item % widths * block.width;
      item /= widths;
      j0[1] = item % heights * block.height;
      item /= heights;
      j0[0] = item % depths;
      item /= depths;
      const std::int64_t first = item % group_blocks * group_block_;
      run_block(item / group_blocks, group + first, std::min(group_block_, groups - first),
                weights_ + first * p_.y_channels * taps_, block, j0);
    });
  }

  void run_block(std::int64_t n, std::int64_t group0, std::int64_t groups, const T* weights, const RowBlock& block,
                 const std::int64_t (&j0)[kSpatial]) const {
    const std::int64_t count[kSpatial] = {1, std::min(block.height, phase_[1]->out_count - j0[1]),
                                          std::min(block.width, phase_[2]->out_count - j0[2])};
    AxisSlots slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) slots[axis] = axis_slots(*phase_[axis], count[axis], axis == 2);
    const BlockPacker<S> packer{p_.x, {phase_[0], phase_[1], phase_[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_};
    const std::int64_t plane = packer.positions(), x_channels = p_.x_channels;
    Workspace<T> input(plane * groups * x_channels + kWindowSlack);
    if (taps_ > 0) packer.pack(input, n, group0 * x_channels, groups * x_channels, j0, 1, plane);
    const std::vector<std::int64_t> offsets = slots_of_taps(slots, x_channels, plane);

    const View<const S>& y = p_.y_shape;
    const std::int64_t step = phase_[2]->out_step * y.step(2);
    const auto out = [&](int axis) { return phase_[axis]->out_start + j0[axis] * phase_[axis]->out_step; };
    const std::int64_t channel0 = group0 * p_.y_channels;
    S* base =
        p_.y + n * y.stride[0] + channel0 * y.stride[1] + out(0) * y.step(0) + out(1) * y.step(1) + out(2) * y.step(2);
    const bool direct = std::is_same_v<S, T> && step == 1;
    Workspace<T> result(direct ? 1 : kStoredChannels * count[2]);
    Workspace<T> part(taps_ > kLongestSum ? kMostWindowRows * count[2] : 0);
    const std::int64_t parts = channel_parts(p_.y_channels);
    for (std::int64_t r = 0; r < count[1]; ++r) {
      S* row = base + r * phase_[1]->out_step * y.step(1);
      const Range live = live_taps(j0, r);
      std::int64_t first = 0, held = 0;  // channels of the result
      for (std::int64_t i = 0; i < groups * parts; ++i) {
        const ChannelPart channels = channel_part(p_.y_channels, i % parts);
        const std::int64_t group = i / parts, k = group * p_.y_channels + channels.first, rows = channels.count;
        T* target = result + held * count[2];
        if constexpr (std::is_same_v<S, T>) {
          if (direct) target = row + k * y.stride[1];
        }
        const WindowArgs<T> args{input + group * x_channels * plane + r * slots[1].step * slots[2].slots,
                                 offsets.data() + live.begin,
                                 weights + k * taps_ + live.begin,
                                 taps_,
                                 live.end - live.begin,
                                 p_.bias ? p_.bias + channel0 + k : nullptr,
                                 target,
                                 direct ? y.stride[1] : count[2],
                                 count[2]};
        if (finite_)
          sum_windows(args, rows, part);
        else
          windows_of_live_taps(args, rows, j0, r);
        p_.finish.planes(target, args.y_step, channel0 + k, rows, count[2]);
        if (direct) continue;
        held += rows;
        if (held + channel_part(p_.y_channels, (i + 1) % parts).count <= kStoredChannels && i + 1 < groups * parts)
          continue;
        // The result is [channel][position].
        store_run<S>(transpose_, result, count[2], held, count[2], nullptr, row + first * y.stride[1], y.stride[1],
                     step);
        first += held;
        held = 0;
      }
    }
  }

  // Long sums in parts, which are added in order.
  void sum_windows(WindowArgs<T> args, std::int64_t rows, T* part) const {
    const std::int64_t taps = args.taps, y_step = args.y_step;
    T* const target = args.y;
    args.taps = std::min(taps, kLongestSum);
    kernel_.window[rows - 1](&args);
    for (std::int64_t done = kLongestSum; done < taps; done += kLongestSum) {
      args.offsets += kLongestSum;
      args.weights += kLongestSum;
      args.taps = std::min(taps - done, kLongestSum);
      args.bias = nullptr;
      args.y = part;
      args.y_step = args.count;
      kernel_.window[rows - 1](&args);
      for (std::int64_t m = 0; m < rows; ++m)
        for (std::int64_t i = 0; i < args.count; ++i) target[m * y_step + i] += part[m * args.count + i];
    }
  }

  // The taps whose input row exists, for row r of a block: of the depths, or of the rows where there is one depth.
  Range live_taps(const std::int64_t (&j0)[kSpatial], std::int64_t r) const {
    if (!finite_ || taps_ == 0) return {0, taps_};
    const auto reads = [&](int axis, const Tap& tap, std::int64_t output) {
      const Range live = live_outputs(*phase_[axis], tap, output, 1, p_.x.extent(axis));
      return live.begin < live.end;
    };
    const int axis = phase_[0]->taps.size() == 1 ? 1 : 0;
    const std::vector<Tap>& taps = phase_[axis]->taps;
    const std::int64_t each = axis == 1 ? row_taps_ : row_taps_ * static_cast<std::int64_t>(phase_[1]->taps.size());
    const std::int64_t output = j0[axis] + (axis == 1 ? r : 0);
    std::size_t begin = 0, end = taps.size();
    while (begin < end && !reads(axis, taps[begin], output)) ++begin;
    while (end > begin && !reads(axis, taps[end - 1], output)) --end;
    return {static_cast<std::int64_t>(begin) * each, static_cast<std::int64_t>(end) * each};
  }

  // The same sums one output at a time without the taps in the padding: for weights that are not finite.
  void windows_of_live_taps(const WindowArgs<T>& args, std::int64_t rows, const std::int64_t (&j0)[kSpatial],
                            std::int64_t r) const {
    std::vector<std::int64_t> offsets;
    std::vector<T> weights;
    for (std::int64_t i = 0; i < args.count; ++i) {
      const std::int64_t at[kSpatial] = {j0[0], j0[1] + r, j0[2] + i};
      const auto live = [&](int axis, const Tap& tap) {
        const std::int64_t position = at[axis] * phase_[axis]->in_step + tap.offset;
        return padded_source(position, p_.x.extent(axis), phase_[axis]->mode) >= 0;
      };
      for (std::int64_t m = 0; m < rows; ++m) {
        offsets.clear();
        weights.clear();
        std::int64_t t = 0;
        for_each_tap(phase_, p_.x_channels, [&](const Tap& d, const Tap& h, std::int64_t, const Tap& w) {
          if (live(0, d) && live(1, h) && live(2, w)) {
            offsets.push_back(args.offsets[t]);
            weights.push_back(args.weights[m * args.weight_step + t]);
          }
          ++t;
        });
        WindowArgs<T> one = args;
        one.x = args.x + i;
        one.offsets = offsets.data();
        one.weights = weights.data();
        one.taps = static_cast<std::int64_t>(weights.size());
        one.bias = args.bias ? args.bias + m : nullptr;
        one.y = args.y + m * args.y_step + i;
        one.count = 1;
        kernel_.window[0](&one);
      }
    }
  }

  const GatherProblem<S>& p_;
  const AxisPhase* phase_[kSpatial];
  const DepthwiseKernel& kernel_;
  const TransposeKernel& transpose_;
  std::vector<std::int64_t> weight_of_tap_;
  std::int64_t row_taps_, taps_;  // of a row of the window, and of all of it
  std::int64_t group_block_;
  RowBlock block_;
  const T* weights_ = nullptr;  // of a run's groups, [channel][tap]
  bool finite_ = true;
};

}  // namespace

template <class S>
void gather_rows(const GatherProblem<S>& problem) {
  // Lanes pay for arrays that have them, and for all but long rows of few taps; they know no padding that is read.
  const AxisPhase& rows = problem.phases[2].front();
  std::size_t taps = 1;
  for (const std::vector<AxisPhase>& phases : problem.phases) taps *= phases.front().taps.size();
  const bool lanes = problem.x_channels == 1 && problem.y_channels == 1 && problem.groups >= 8 &&
                     rows.mode == PadMode::zeros &&
                     (problem.y_shape.stride[1] == 1 || rows.out_count < kLongRow || taps > kFewTaps ||
                      rows.in_step > 1 || problem.phases[2].size() > 1);
  if (lanes && gather_lanes(problem)) return;
  for_each_phase(problem, Fill::before,
                 [&](const AxisPhase* const(&phase)[kSpatial]) { PhaseDriver<S>(problem, phase).run(); });
}

template void gather_rows<float>(const GatherProblem<float>&);
template void gather_rows<double>(const GatherProblem<double>&);
template void gather_rows<Float16>(const GatherProblem<Float16>&);
template void gather_rows<BFloat16>(const GatherProblem<BFloat16>&);

}  // namespace fastconv
