// Weight gradient of depthwise convolution: grad_weight[c][t] = sum over samples and outputs o of grad_output[c][o] *
// input[c][o * stride + offset(t)]. Blocks of output rows, channels side by side. Runs of the reduction are clipped to
// the live outputs of each tap, so nothing is multiplied by padding. Work is split over channels, and over blocks by a
// number that depends on the shape only; the parts are added in order.
#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"

namespace fastconv {
namespace {

constexpr std::int64_t kBlockPositions = 224;
constexpr std::int64_t kItems = 16;                        // items worth having when the shape allows
constexpr std::int64_t kPartials = std::int64_t{4} << 20;  // elements of all parts together

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class T>
class WeightGradient {
 public:
  WeightGradient(const ConvShape& shape, const View<const T>& grad_output, const View<const T>& input,
                 const View<T>& grad_weight)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        groups_(shape.groups),
        dot_(select_depthwise(DtypeOf<T>::value, active_isa_mask())),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      phase_[axis] = forward_phases(shape.window[axis], grad_output.extent(axis))[0];
      out_phase_[axis] = forward_phases(Window{}, grad_output.extent(axis))[0];
    }
    taps_ = static_cast<std::int64_t>(phase_[0].taps.size() * phase_[1].taps.size() * phase_[2].taps.size());
    c_block_ = kLaneBlock;
    c_blocks_ = ceil_div(groups_, c_block_);
    sums_ = c_block_ * taps_;
    width_ = std::min<std::int64_t>(gy_.extent(2), kBlockPositions);
    height_ = std::clamp<std::int64_t>(kBlockPositions / std::max<std::int64_t>(1, width_), 1, gy_.extent(1));
    rows_ = ceil_div(gy_.extent(1), height_);
    columns_ = ceil_div(gy_.extent(2), width_);
    blocks_ = gy_.shape[0] * gy_.extent(0) * rows_ * columns_;
  }

  void run() {
    const std::int64_t items = c_blocks_;
    parts_ =
        std::clamp<std::int64_t>(ceil_div(kItems, items), 1, std::max<std::int64_t>(1, kPartials / (items * sums_)));
    parts_ = std::clamp<std::int64_t>(parts_, 1, std::max<std::int64_t>(1, blocks_));
    const double steps = static_cast<double>(items * sums_) * static_cast<double>(gy_.shape[0] * gy_.extent(0)) *
                         static_cast<double>(gy_.extent(1) * gy_.extent(2));
    const double nanoseconds = steps * multiply_add_nanoseconds<T>();
    if (parts_ == 1) {
      parallel_for({items, nanoseconds}, subnormals<T>(), [&](std::int64_t item) {
        Workspace<T> sums(sums_);
        accumulate(item, 0, sums);
        store(item, sums);
      });
      return;
    }
    Workspace<T> sums(parts_ * items * sums_);
    parallel_for({items * parts_, nanoseconds}, subnormals<T>(),
                 [&](std::int64_t i) { accumulate(i / parts_, i % parts_, sums + i * sums_); });
    parallel_for({items, 0.5 * static_cast<double>(items * parts_ * sums_)}, subnormals<T>(), [&](std::int64_t item) {
      T* total = sums + item * parts_ * sums_;
      for (std::int64_t part = 1; part < parts_; ++part)
        for (std::int64_t i = 0; i < sums_; ++i) total[i] += total[part * sums_ + i];
      store(item, total);
    });
  }

 private:
  struct Item {
    std::int64_t c0, channels;
  };

  Item item_of(std::int64_t index) const {
    const std::int64_t c0 = index * c_block_;
    return {c0, std::min(c_block_, groups_ - c0)};
  }

  void accumulate(std::int64_t index, std::int64_t part, T* sums) const {
    const Item item = item_of(index);
    std::fill_n(sums, sums_, T(0));
    const std::int64_t first = blocks_ * part / parts_, last = blocks_ * (part + 1) / parts_;
    AxisSlots probe[kSpatial];
    std::int64_t positions = 1;
    const std::int64_t largest[kSpatial] = {1, height_, width_};
    for (int axis = 0; axis < kSpatial; ++axis) {
      probe[axis] = axis_slots(phase_[axis], largest[axis], axis == 2);
      positions *= probe[axis].slots;
    }
    Workspace<T> input(positions * c_block_), grad(height_ * width_ * c_block_);
    if (item.channels < c_block_) {
      std::fill_n(input.data(), positions * c_block_, T(0));
      std::fill_n(grad.data(), height_ * width_ * c_block_, T(0));
    }
    std::vector<Segment> segments;
    for (std::int64_t b = first; b < last; ++b) {
      std::int64_t rest = b;
      std::int64_t j0[kSpatial];
      j0[2] = rest % columns_ * width_;
      rest /= columns_;
      j0[1] = rest % rows_ * height_;
      rest /= rows_;
      j0[0] = rest % gy_.extent(0);
      const std::int64_t n = rest / gy_.extent(0);
      add_block(item, n, j0, input, grad, segments, sums);
    }
  }

  void add_block(const Item& item, std::int64_t n, const std::int64_t (&j0)[kSpatial], T* input, T* grad,
                 std::vector<Segment>& segments, T* sums) const {
    const std::int64_t count[kSpatial] = {1, std::min(height_, gy_.extent(1) - j0[1]),
                                          std::min(width_, gy_.extent(2) - j0[2])};
    AxisSlots slots[kSpatial], out_slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) {
      slots[axis] = axis_slots(phase_[axis], count[axis], axis == 2);
      out_slots[axis] = axis_slots(out_phase_[axis], count[axis], true);
    }
    const BlockPacker<T> input_packer{
        x_, {&phase_[0], &phase_[1], &phase_[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_};
    const BlockPacker<T> grad_packer{gy_,
                                     {&out_phase_[0], &out_phase_[1], &out_phase_[2]},
                                     {&out_slots[0], &out_slots[1], &out_slots[2]},
                                     transpose_};
    input_packer.pack(input, n, item.c0, item.channels, j0, c_block_, 1);
    grad_packer.pack(grad, n, item.c0, item.channels, j0, c_block_, 1);
    std::int64_t t = 0;
    for (std::size_t d = 0; d < phase_[0].taps.size(); ++d)
      for (std::size_t h = 0; h < phase_[1].taps.size(); ++h)
        for (std::size_t w = 0; w < phase_[2].taps.size(); ++w, ++t) {
          list_segments(segments, slots, d, h, w, j0, count);
          if (segments.empty()) continue;
          const LanesDotArgs<T> args{input, grad, segments.data(), static_cast<std::int64_t>(segments.size()),
                                     sums + t * c_block_};
          dot_.lanes_dot(&args);
        }
  }

  void list_segments(std::vector<Segment>& segments, const AxisSlots (&slots)[kSpatial], std::size_t d, std::size_t h,
                     std::size_t w, const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial]) const {
    segments.clear();
    const Range rd = live_outputs(phase_[0], phase_[0].taps[d], j0[0], count[0], x_.extent(0));
    const Range rh = live_outputs(phase_[1], phase_[1].taps[h], j0[1], count[1], x_.extent(1));
    const Range rw = live_outputs(phase_[2], phase_[2].taps[w], j0[2], count[2], x_.extent(2));
    if (rd.begin >= rd.end || rw.begin >= rw.end) return;
    for (std::int64_t r = rh.begin; r < rh.end; ++r) {
      const std::int64_t line = slots[0].base[d] * slots[1].slots + slots[1].base[h] + r * slots[1].step;
      segments.push_back(
          {line * slots[2].slots + slots[2].base[w] + rw.begin, r * count[2] + rw.begin, rw.end - rw.begin});
    }
  }

  void store(std::int64_t index, const T* sums) const {
    const Item item = item_of(index);
    std::int64_t t = 0;
    for (const Tap& d : phase_[0].taps)
      for (const Tap& h : phase_[1].taps)
        for (const Tap& w : phase_[2].taps) {
          T* target = dw_.data + d.index * dw_.step(0) + h.index * dw_.step(1) + w.index * dw_.step(2);
          for (std::int64_t c = 0; c < item.channels; ++c)
            target[(item.c0 + c) * dw_.stride[0]] = sums[t * c_block_ + c];
          ++t;
        }
  }

  View<const T> gy_, x_;
  View<T> dw_;
  std::int64_t groups_;
  const DepthwiseKernel& dot_;
  const TransposeKernel& transpose_;
  AxisPhase phase_[kSpatial], out_phase_[kSpatial];
  std::int64_t taps_ = 0, c_block_ = 1, c_blocks_ = 1, sums_ = 1;
  std::int64_t width_ = 1, height_ = 1, rows_ = 1, columns_ = 1, blocks_ = 1, parts_ = 1;
};

}  // namespace

template <class T>
void backward_weight_depthwise(const ConvShape& shape, const View<const T>& grad_output, const View<const T>& input,
                               const View<T>& grad_weight) {
  WeightGradient<T>(shape, grad_output, input, grad_weight).run();
}

template void backward_weight_depthwise<float>(const ConvShape&, const View<const float>&, const View<const float>&,
                                               const View<float>&);
template void backward_weight_depthwise<double>(const ConvShape&, const View<const double>&, const View<const double>&,
                                                const View<double>&);

}  // namespace fastconv
