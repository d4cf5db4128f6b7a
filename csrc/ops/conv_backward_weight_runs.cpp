// Weight gradient where the channels of neighbouring inputs follow each other in one run, which then is the row of a
// window: its outer product with the gradient of its output is added up for all outputs of a row. For long
// rows of few channels, where packing each tap's inputs costs as much as the sums: inputs are read where they lie, or
// rows of them copied with their padding. Its zeros must not meet what is not finite, so sums that are not finite are
// made again, from runs of outputs that have the same live taps.
#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_lanes.h"
#include "ops/conv_pack.h"
#include "ops/conv_weight_sums.h"

namespace fastconv {
namespace {

constexpr std::int64_t kChannels = 96;               // of the input, at most
constexpr std::int64_t kPositions = 224;             // of a block of outputs
constexpr std::int64_t kOutputs = 256;               // channels of an item
constexpr std::int64_t kSums = 128 << 10;            // of an item
constexpr std::int64_t kInPlaceOutputs = 192;        // gradients further apart are packed: their lines crowd cache sets
constexpr std::int64_t kScratchElements = 64 << 10;  // of one block's input
constexpr std::int64_t kShortestRow = 24;            // outputs whose sums pay for adding them to the total

template <class S>
class RunWeightGradient {
  using T = Compute<S>;

 public:
  RunWeightGradient(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                    const View<S>& grad_weight)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        items_(1, input.shape[1], grad_output.shape[1]),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        kernel_(select_conv(DtypeOf<T>::value, items_.k, active_isa_mask())) {
    const std::int64_t width = std::min(gy_.extent(2), kPositions);
    const std::int64_t size[kSpatial] = {1, std::clamp<std::int64_t>(kPositions / width, 1, gy_.extent(1)), width};
    positions_ = size[1] * size[2];
    for (int axis = 0; axis < kSpatial; ++axis) {
      phase_[axis] = forward_phases(shape.window[axis], gy_.extent(axis))[0];
      taps_ *= static_cast<std::int64_t>(phase_[axis].taps.size());
      blocks_[axis] = axis_blocks({phase_[axis]}, gy_.extent(axis), x_.extent(axis), size[axis]);
    }
    padded_ = shape.window[2].pad_before > 0 || shape.window[2].pad_after > 0;
    for (AxisBlock& block : blocks_[2]) whole_.push_back(with_padding(block));
    x_scratch_ = items_.c;
    for (const std::int64_t span : {longest(blocks_[0]), longest(blocks_[1]), longest(whole_)})
      x_scratch_ =
          span > kScratchElements / x_scratch_ ? kScratchElements + 1 : x_scratch_ * std::max<std::int64_t>(span, 1);
    const std::int64_t cols = kernel_.tile_cols;
    items_.cut(items_.c, std::min(rounded_up(items_.k, cols), std::max<std::int64_t>(1, kOutputs / cols) * cols));
    sums_ = items_.c * taps_ * items_.k_block;
    const bool dense = x_.step(2) == items_.c && (x_.stride[1] == 1 || items_.c == 1);
    x_in_place_ = is_wide<S> && dense && !padded_;
    gy_in_place_ = is_wide<S> && gy_.stride[1] == 1 && items_.k % cols == 0 && gy_.step(2) <= kInPlaceOutputs;
  }

  bool serves() const { return sums_ <= kSums && (x_in_place_ || x_scratch_ <= kScratchElements); }

  void run() {
    const auto count = [&](int axis) { return static_cast<std::int64_t>(blocks_[axis].size()); };
    const double steps = static_cast<double>(items_.count() * sums_) * static_cast<double>(gy_.shape[0]) *
                         static_cast<double>(gy_.extent(0) * gy_.extent(1) * gy_.extent(2));
    const std::vector<std::int64_t> weight_of_tap = weight_offsets(phase_[0], phase_[1], phase_[2], dw_.stride + 2);
    sum_in_parts<T>(
        items_.count(), sums_, gy_.shape[0] * count(0) * count(1) * count(2), steps * multiply_add_nanoseconds<T>(),
        [&](std::int64_t item, std::int64_t part, std::int64_t parts, T* sums) {
          accumulate(items_[item], part, parts, whole_, sums);
          if (padded_ && !all_finite(sums, sums_)) accumulate(items_[item], part, parts, blocks_[2], sums);
        },
        [&](std::int64_t item, const T* sums) {
          items_.store(dw_, weight_of_tap, item, sums, items_.c_block * items_.k_block);
        });
  }

 private:
  static std::int64_t longest(const std::vector<AxisBlock>& blocks) {
    std::int64_t most = 0;
    for (const AxisBlock& block : blocks) most = std::max(most, block.x_end - block.x_begin);
    return most;
  }

  // A block of a row whose outputs all have all taps, of which some read the padding.
  AxisBlock with_padding(const AxisBlock& block) const {
    const AxisPhase& phase = phase_[2];
    const auto taps = static_cast<std::int64_t>(phase.taps.size());
    const std::int64_t count = block.y_end - block.y_begin, first = block.y_begin * phase.in_step;
    const std::int64_t begin = first + phase.taps.front().offset, span = (count - 1) * phase.in_step + taps;
    const AxisRun all{block.y_begin, 1, count, begin, phase.in_step, taps, 1, phase.taps.front().index, 1, 0};
    return {block.y_begin, block.y_end, begin, begin + span, {all}};
  }

  // Rows of the input, the channels of a position side by side, zeros where it has no elements.
  Lanes<const T> pack(std::int64_t n, const std::int64_t (&begin)[kSpatial], const std::int64_t (&end)[kSpatial],
                      T* scratch) const {
    const std::int64_t channels = items_.c, plane = x_.stride[1], step = x_.step(2);
    const std::int64_t first = std::clamp<std::int64_t>(0, begin[2], end[2]),
                       last = std::clamp<std::int64_t>(x_.extent(2), first, end[2]);
    T* to = scratch;
    for (std::int64_t d = begin[0]; d < end[0]; ++d)
      for (std::int64_t h = begin[1]; h < end[1]; ++h) {
        const S* const from = Lanes<const S>::of(x_, n, 0).at(d, h, last > first ? first : 0);
        to = std::fill_n(to, (first - begin[2]) * channels, T(0));
        if (step == channels && plane == 1)
          widen_run(from, to, (last - first) * channels);
        else if (step == 1 && channels >= kTransposeChannels)
          widen_transposed(transpose_, channels, last - first, from, plane, to, channels);
        else
          for (std::int64_t c = 0; c < channels; ++c)
            for (std::int64_t i = 0; i < last - first; ++i) to[i * channels + c] = widen(from[i * step + c * plane]);
        to += (last - first) * channels;
        to = std::fill_n(to, (end[2] - last) * channels, T(0));
      }
    const Lanes<T> box = Lanes<T>::in(scratch, channels, begin, end);
    return {box.data, {box.step[0], box.step[1], box.step[2]}, {begin[0], begin[1], begin[2]}};
  }

  void accumulate(const WeightItem& item, std::int64_t part, std::int64_t parts, const std::vector<AxisBlock>& columns,
                  T* sums) const {
    std::fill_n(sums, sums_, T(0));
    std::int64_t blocks = gy_.shape[0];
    for (const std::vector<AxisBlock>& of_axis : blocks_) blocks *= static_cast<std::int64_t>(of_axis.size());
    const std::int64_t lanes = rounded_up(item.outputs, std::int64_t{kernel_.tile_cols});
    Workspace<T> x_scratch(x_in_place_ ? 1 : x_scratch_), gy_scratch(gy_in_place_ ? 1 : positions_ * lanes);
    for (std::int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b) {
      const AxisBlock* block[kSpatial];
      std::int64_t n = b, x_begin[kSpatial], x_end[kSpatial], y_begin[kSpatial], y_end[kSpatial];
      for (int axis = kSpatial - 1; axis >= 0; --axis) {
        const auto count = static_cast<std::int64_t>(blocks_[axis].size());
        block[axis] = &(axis == 2 ? columns : blocks_[axis])[static_cast<std::size_t>(n % count)];
        n /= count;
        x_begin[axis] = block[axis]->x_begin;
        x_end[axis] = block[axis]->x_end;
        y_begin[axis] = block[axis]->y_begin;
        y_end[axis] = block[axis]->y_end;
      }
      Lanes<const T> x, gy;
      if constexpr (is_wide<S>) {
        if (x_in_place_) x = Lanes<const T>::of(x_, n, 0);
        if (gy_in_place_) gy = Lanes<const T>::of(gy_, n, item.k0);
      }
      if (!x_in_place_) x = pack(n, x_begin, x_end, x_scratch);
      if (!gy_in_place_)
        gy = pack_lanes<S>(transpose_, gy_, n, item.k0, item.outputs, lanes, y_begin, y_end, gy_scratch.data());
      for (const AxisRun& d : block[0]->runs)
        for (const AxisRun& h : block[1]->runs)
          for (std::int64_t r = 0; r < h.count; ++r)
            for (std::int64_t k = 0; k < lanes; k += kernel_.tile_cols) add_row(x, gy, d, h, r, *block[2], k, sums);
    }
  }

  // Row r of a run of rows, for a panel of outputs.
  void add_row(const Lanes<const T>& x, const Lanes<const T>& gy, const AxisRun& d, const AxisRun& h, std::int64_t r,
               const AxisBlock& block, std::int64_t k, T* sums) const {
    const auto h_taps = static_cast<std::int64_t>(phase_[1].taps.size()),
               w_taps = static_cast<std::int64_t>(phase_[2].taps.size());
    for (std::int64_t i = 0; i < d.taps; ++i)
      for (std::int64_t j = 0; j < h.taps; ++j)
        for (const AxisRun& w : block.runs) {
          const std::int64_t first = ((d.first_tap + i) * h_taps + h.first_tap + j) * w_taps + w.first_tap;
          const OuterArgs<T> args{x.at(d.x + i * d.x_tap, h.x + r * h.x_step + j * h.x_tap, w.x),
                                  w.x_step * x.step[2],
                                  gy.at(d.y, h.y + r, w.y) + k,
                                  gy.step[2],
                                  w.count,
                                  sums + first * items_.c * items_.k_block + k,
                                  items_.k_block};
          add_outer_sums<T>(kernel_, {0, 0, w.taps * items_.c, k, kernel_.tile_cols}, args);
        }
  }

  View<const S> gy_, x_;
  View<S> dw_;
  WeightItems items_;
  const TransposeKernel& transpose_;
  const ConvKernel& kernel_;
  AxisPhase phase_[kSpatial];
  std::vector<AxisBlock> blocks_[kSpatial], whole_;  // columns by live taps, and with padding
  bool padded_ = false, x_in_place_ = false, gy_in_place_ = false;
  std::int64_t taps_ = 1, sums_ = 1, positions_ = 1, x_scratch_ = 1;
};

}  // namespace

template <class S>
bool backward_weight_runs(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                          const View<S>& grad_weight) {
  if (shape.groups != 1 || shape.window[2].dilation != 1) return false;
  if (input.shape[1] > kChannels || grad_output.extent(2) < kShortestRow) return false;
  for (const Window& window : shape.window)
    if (window.mode != PadMode::zeros) return false;
  RunWeightGradient<S> gradient(shape, grad_output, input, grad_weight);
  if (!gradient.serves()) return false;
  gradient.run();
  return true;
}

#define FASTCONV_INSTANTIATE(S) \
  template bool backward_weight_runs<S>(const ConvShape&, const View<const S>&, const View<const S>&, const View<S>&)
FASTCONV_INSTANTIATE(float);
FASTCONV_INSTANTIATE(double);
FASTCONV_INSTANTIATE(Float16);
FASTCONV_INSTANTIATE(BFloat16);
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv
