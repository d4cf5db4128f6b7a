// Weight gradient of depthwise convolution: grad_weight[c][t] = sum over samples and outputs o of grad_output[c][o] *
// input[c][o * stride + offset(t)]. Channels side by side; rectangles of outputs that have the same live taps, so that
// nothing is multiplied by padding; a running sum no longer than kSumPositions (or a row), added to the total. Work is
// split over channels, and over blocks of outputs by a number that depends on the shape only; the parts are added in
// order.
#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_lanes.h"
#include "ops/conv_weight_sums.h"

namespace fastconv {
namespace {

constexpr std::int64_t kLanes = 32;
// Channels-last memory is read in longer stretches: its lines would else come one by one, each from another page.
constexpr std::int64_t kStreamedLanes = 128;
constexpr std::int64_t kSumPositions = 128;
constexpr std::int64_t kPackedElements = 16 << 10;    // of one block's output gradient
constexpr std::int64_t kScratchElements = 256 << 10;  // of one block's input, at most

template <class S>
class WeightGradient {
  using T = Compute<S>;

 public:
  WeightGradient(const View<const S>& grad_output, const View<const S>& input, const View<S>& grad_weight,
                 const AxisPhase* const (&phase)[kSpatial])
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        phase_{phase[0], phase[1], phase[2]},
        kernel_(select_depthwise(DtypeOf<T>::value, grad_output.shape[1], active_isa_mask())),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        lanes_(gy_.shape[1], kernel_.tile_cols, x_.stride[1] == 1 && gy_.stride[1] == 1 ? kStreamedLanes : kLanes) {
    slots_ = rounded_up(lanes_.widest(), kernel_.tile_cols);
    for (int axis = 0; axis < kSpatial; ++axis) taps_ *= static_cast<std::int64_t>(phase_[axis]->taps.size());
    sums_ = taps_ * slots_;
    // A block's columns fit the scratch also where the stride leaves most of the input out.
    const std::int64_t width = std::min(
        {gy_.extent(2), kSumPositions, std::max<std::int64_t>(1, kScratchElements / slots_ / phase_[2]->in_step)});
    const std::int64_t height = std::clamp<std::int64_t>(kSumPositions / std::max<std::int64_t>(1, width), 1,
                                                         std::max<std::int64_t>(1, gy_.extent(1)));
    const std::int64_t size[kSpatial] = {1, height, std::max<std::int64_t>(1, width)};
    for (int axis = 0; axis < kSpatial; ++axis)
      blocks_[axis] = axis_blocks({*phase_[axis]}, gy_.extent(axis), x_.extent(axis), size[axis]);
    band_ = height * size[2];
    // Rows that share a packed copy.
    const std::int64_t bands = static_cast<std::int64_t>(blocks_[1].size());
    joined_ = std::clamp<std::int64_t>(kPackedElements / (slots_ * band_), 1, std::max<std::int64_t>(1, bands));
    if (x_scratch() > kScratchElements) joined_ = 1;
    items_ = lanes_.blocks;
    outer_ = gy_.shape[0] * gy_.extent(0) * ceil_div(bands, joined_) * static_cast<std::int64_t>(blocks_[2].size());
  }

  // Whether a block's input can be packed; taps may lie far apart.
  bool serves() const { return taps_ == 1 || x_scratch() <= kScratchElements; }

  void run() {
    const double nanoseconds = static_cast<double>(items_ * sums_) * static_cast<double>(gy_.shape[0] * gy_.extent(0)) *
                               static_cast<double>(gy_.extent(1) * gy_.extent(2)) * multiply_add_nanoseconds<T>();
    sum_in_parts<T>(
        items_, sums_, outer_, nanoseconds,
        [&](std::int64_t item, std::int64_t part, std::int64_t parts, T* sums) {
          accumulate(item, outer_ * part / parts, outer_ * (part + 1) / parts, sums);
        },
        [&](std::int64_t item, const T* sums) { store(item, sums); });
  }

 private:
  struct Rows {
    std::int64_t x_begin, x_end;
  };

  // The inputs that blocks [first, first + count) of one axis read.
  Rows inputs(int axis, std::int64_t first, std::int64_t count) const {
    Rows all{0, 0};
    for (std::int64_t i = first; i < first + count; ++i) {
      const AxisBlock& block = blocks_[axis][static_cast<std::size_t>(i)];
      if (block.x_begin == block.x_end) continue;
      all.x_begin = all.x_end == 0 ? block.x_begin : std::min(all.x_begin, block.x_begin);
      all.x_end = std::max(all.x_end, block.x_end);
    }
    return all;
  }

  std::int64_t x_scratch() const {
    std::int64_t elements = slots_;
    for (int axis = 0; axis < kSpatial; ++axis) {
      const std::int64_t count = static_cast<std::int64_t>(blocks_[axis].size()), together = axis == 1 ? joined_ : 1;
      std::int64_t span = 0;
      for (std::int64_t i = 0; i < count; i += together) {
        const Rows rows = inputs(axis, i, std::min(together, count - i));
        span = std::max(span, rows.x_end - rows.x_begin);
      }
      elements *= span;
    }
    return elements;
  }

  void accumulate(std::int64_t item, std::int64_t first, std::int64_t last, T* sums) const {
    const std::int64_t c0 = lanes_.begin(item), channels = lanes_.end(item) - c0, lanes = lanes_.lanes(channels);
    std::fill_n(sums, sums_, T(0));
    Workspace<T> x_block(x_scratch()), gy_block(slots_ * joined_ * band_);
    const std::int64_t bands = ceil_div(static_cast<std::int64_t>(blocks_[1].size()), joined_);
    const std::int64_t columns = static_cast<std::int64_t>(blocks_[2].size());
    for (std::int64_t b = first; b < last; ++b) {
      std::int64_t rest = b;
      const AxisBlock& w = blocks_[2][rest % columns];
      rest /= columns;
      const std::int64_t h_first = rest % bands * joined_;
      const std::int64_t h_last = std::min(h_first + joined_, static_cast<std::int64_t>(blocks_[1].size())) - 1;
      const Rows rows = inputs(1, h_first, h_last + 1 - h_first);
      rest /= bands;
      const AxisBlock& d = blocks_[0][rest % gy_.extent(0)];
      const std::int64_t n = rest / gy_.extent(0);
      const std::int64_t x_begin[kSpatial] = {d.x_begin, rows.x_begin, w.x_begin};
      const std::int64_t x_end[kSpatial] = {d.x_end, rows.x_end, w.x_end};
      const std::int64_t y_begin[kSpatial] = {d.y_begin, blocks_[1][h_first].y_begin, w.y_begin};
      const std::int64_t y_end[kSpatial] = {d.y_end, blocks_[1][h_last].y_end, w.y_end};
      const Lanes<const T> x = pack_lanes<S>(transpose_, x_, n, c0, channels, lanes, x_begin, x_end, x_block.data());
      const Lanes<const T> gy = pack_lanes<S>(transpose_, gy_, n, c0, channels, lanes, y_begin, y_end, gy_block.data());
      for (std::int64_t band = h_first; band <= h_last; ++band) add_band(lanes, x, gy, d, blocks_[1][band], w, sums);
    }
  }

  void add_band(std::int64_t lanes, const Lanes<const T>& x, const Lanes<const T>& gy, const AxisBlock& d_block,
                const AxisBlock& h_block, const AxisBlock& w_block, T* sums) const {
    const std::int64_t w_taps = static_cast<std::int64_t>(phase_[2]->taps.size()),
                       h_taps = static_cast<std::int64_t>(phase_[1]->taps.size());
    for (const AxisRun& d : d_block.runs)
      for (const AxisRun& h : h_block.runs)
        for (const AxisRun& w : w_block.runs) {
          if (h.taps == 0 || w.taps == 0) continue;
          for (std::int64_t t = 0; t < d.taps; ++t) {
            const LanesDotArgs<T> args{
                x.at(d.x + t * d.x_tap, h.x, w.x),
                gy.at(d.y, h.y, w.y),
                sums + (((d.first_tap + t) * h_taps + h.first_tap) * w_taps + w.first_tap) * slots_,
                lanes,
                {h.count, w.count},
                {h.x_step * x.step[1], w.x_step * x.step[2]},
                {gy.step[1], gy.step[2]},
                {h.taps, w.taps},
                {h.x_tap * x.step[1], w.x_tap * x.step[2]},
                {w_taps * slots_, slots_}};
            kernel_.lanes_dot(&args);
          }
        }
  }

  void store(std::int64_t item, const T* sums) const {
    const std::int64_t c0 = lanes_.begin(item), channels = lanes_.end(item) - c0, lanes = lanes_.lanes(channels);
    for (const std::int64_t offset : weight_offsets(*phase_[0], *phase_[1], *phase_[2], dw_.stride + 2)) {
      S* target = dw_.data + offset;
      for (std::int64_t c = 0; c < channels; ++c)
        target[(c0 + c) * dw_.stride[0]] = narrow(sums[lane_slot(c, lanes, kernel_.tile_cols)], S{});
      sums += slots_;
    }
  }

  View<const S> gy_, x_;
  View<S> dw_;
  const AxisPhase* phase_[kSpatial];
  const DepthwiseKernel& kernel_;
  const TransposeKernel& transpose_;
  LaneBlocks lanes_;
  std::vector<AxisBlock> blocks_[kSpatial];
  std::int64_t taps_ = 1, slots_ = 1, sums_ = 1, joined_ = 1, band_ = 1, items_ = 1, outer_ = 1;
};

}  // namespace

template <class S>
void backward_weight_depthwise(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                               const View<S>& grad_weight) {
  AxisPhase phase[kSpatial];
  for (int axis = 0; axis < kSpatial; ++axis)
    phase[axis] = forward_phases(shape.window[axis], grad_output.extent(axis))[0];
  WeightGradient<S> whole(grad_output, input, grad_weight, {&phase[0], &phase[1], &phase[2]});
  if (whole.serves()) {
    whole.run();
    return;
  }
  // One tap at a time.
  for (const Tap& d : phase[0].taps)
    for (const Tap& h : phase[1].taps)
      for (const Tap& w : phase[2].taps) {
        AxisPhase one[kSpatial] = {phase[0], phase[1], phase[2]};
        one[0].taps = {d};
        one[1].taps = {h};
        one[2].taps = {w};
        WeightGradient<S>(grad_output, input, grad_weight, {&one[0], &one[1], &one[2]}).run();
      }
}

#define FASTCONV_INSTANTIATE(S)                                                                            \
  template void backward_weight_depthwise<S>(const ConvShape&, const View<const S>&, const View<const S>&, \
                                             const View<S>&)
FASTCONV_INSTANTIATE(float);
FASTCONV_INSTANTIATE(double);
FASTCONV_INSTANTIATE(Float16);
FASTCONV_INSTANTIATE(BFloat16);
#undef FASTCONV_INSTANTIATE

}  // namespace fastconv
