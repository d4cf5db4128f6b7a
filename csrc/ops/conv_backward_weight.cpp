// Weight gradient: grad_weight[k][c][t] = sum over samples and outputs o of grad_output[k][o] * input[c][o * stride +
// offset(t)]. Blocks of output rows: the input packed channel by channel, the output gradient in panels of output
// channels. Runs of the reduction are clipped to the live outputs of each tap, so nothing is multiplied by padding.
// Work is split over channels, and over blocks by a number that depends on the shape only; the parts are added in
// order. Few outputs: conv_backward_weight_few.cpp; few channels: _rows.cpp and _runs.cpp; depthwise: _depthwise.cpp.
#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv.h"
#include "ops/conv_gather.h"
#include "ops/conv_matrices.h"
#include "ops/conv_pack.h"
#include "ops/conv_weight_sums.h"

namespace fastconv {
namespace {

constexpr std::int64_t kBlockPositions = 224, kChannels = 96;
constexpr std::int64_t kPointPositions = 112, kPointChannels = 256;  // of one tap, whose packing costs beside its sums
constexpr std::int64_t kSums = std::int64_t{1} << 19;                // elements of one item's sums
constexpr std::int64_t kSumsOfFew = std::int64_t{96} << 10;  // of few positions: adding up parts costs beside them
constexpr std::int64_t kFewPositions = 4096;
constexpr std::int64_t kRowPad = 16;
constexpr std::int64_t kInPlaceChannels = 192;
constexpr std::int64_t kDepthwisePairs = 4;  // of an input and an output channel of a group, at most
constexpr std::int64_t kDepthwiseSamples = 8;
constexpr std::int64_t kProductDepth = 512;  // a longer sum over positions is shared out among the threads

template <class S>
class WeightGradient {
  using T = Compute<S>;

 public:
  WeightGradient(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& input,
                 const ArrayView& grad_weight)
      : gy_(grad_output.as<const S>()),
        x_(input.as<const S>()),
        dw_(grad_weight.as<S>()),
        items_(shape.groups, input.shape[1] / shape.groups, grad_output.shape[1] / shape.groups),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      phase_[axis] = forward_phases(shape.window[axis], grad_output.extent(axis))[0];
      out_phase_[axis] = forward_phases(Window{}, grad_output.extent(axis))[0];
    }
    taps_ = static_cast<std::int64_t>(phase_[0].taps.size() * phase_[1].taps.size() * phase_[2].taps.size());
    gemm_ = &select_conv(DtypeOf<T>::value, items_.k, active_isa_mask());
    cols_ = gemm_->tile_cols;
    const std::int64_t panels = ceil_div(items_.k, cols_);
    const std::int64_t k_block = std::min<std::int64_t>(panels, std::max<std::int64_t>(1, 256 / cols_)) * cols_;
    const std::int64_t c_block = std::clamp<std::int64_t>(most_sums() / (taps_ * k_block), 1,
                                                          std::min(items_.c, taps_ == 1 ? kPointChannels : kChannels));
    items_.cut(balanced(items_.c, c_block), k_block);
    sums_ = items_.c_block * taps_ * k_block;
    outer_ = taps_ == 1 && x_.stride[1] == 1;
    for (int axis = 0; axis < kSpatial; ++axis) {
      const AxisPhase& phase = phase_[axis];
      const Range live = live_outputs(phase, phase.taps[0], 0, phase.out_count, x_.extent(axis));
      outer_ = outer_ && live.begin == 0 && live.end == phase.out_count;
    }
    in_place_ = outer_ && lies_as_read(x_) && lies_as_read(gy_) && items_.k % cols_ == 0;
    for (int axis = 0; axis < kSpatial; ++axis) {  // output by output the input at its place, where padding repeats too
      const AxisPhase& phase = phase_[axis];
      in_place_ = in_place_ && phase.in_step == 1 && phase.taps[0].offset == 0 && x_.extent(axis) == gy_.extent(axis);
    }
    const std::int64_t positions = taps_ == 1 ? kPointPositions : kBlockPositions;
    width_ = std::min<std::int64_t>(gy_.extent(2), positions);
    height_ = std::clamp<std::int64_t>(positions / std::max<std::int64_t>(1, width_), 1, gy_.extent(1));
    rows_ = ceil_div(gy_.extent(1), height_);
    columns_ = ceil_div(gy_.extent(2), width_);
    blocks_ = gy_.shape[0] * gy_.extent(0) * rows_ * columns_;
  }

  void run() {
    const std::int64_t items = items_.count();
    const double steps = static_cast<double>(items * sums_) * static_cast<double>(gy_.shape[0] * gy_.extent(0)) *
                         static_cast<double>(gy_.extent(1) * gy_.extent(2));
    const std::vector<std::int64_t> weight_of_tap = weight_offsets(phase_[0], phase_[1], phase_[2], dw_.stride + 2);
    sum_in_parts<T>(
        items, sums_, blocks_, steps * multiply_add_nanoseconds<T>(),
        [&](std::int64_t item, std::int64_t part, std::int64_t parts, T* sums) {
          accumulate(items_[item], part, parts, sums);
        },
        [&](std::int64_t item, const T* sums) {
          items_.store(dw_, weight_of_tap, item, sums, items_.c_block * items_.k_block);
        });
  }

 private:
  // Whether outer products may read a block of an array where it lies: all positions in one row, with few enough
  // channels that what tiles of channels read again is still in the first-level cache.
  static bool lies_as_read(const View<const S>& view) {
    return is_wide<S> && view.stride[1] == 1 && view.extent(0) == 1 && view.extent(1) == 1 &&
           view.step(2) >= view.shape[1] && view.step(2) <= kInPlaceChannels;
  }

  std::int64_t most_sums() const { return gy_.size() / gy_.shape[1] < kFewPositions ? kSumsOfFew : kSums; }

  void accumulate(const WeightItem& item, std::int64_t part, std::int64_t parts, T* sums) const {
    std::fill_n(sums, sums_, T(0));
    const std::int64_t first = blocks_ * part / parts, last = blocks_ * (part + 1) / parts;
    AxisSlots probe[kSpatial];
    std::int64_t positions = 1;
    const std::int64_t largest[kSpatial] = {1, height_, width_};
    for (int axis = 0; axis < kSpatial; ++axis) {
      probe[axis] = axis_slots(phase_[axis], largest[axis], axis == 2);
      positions *= probe[axis].slots;
    }
    Workspace<T> input(in_place_ ? 0 : positions * input_row());
    Workspace<T> grad(in_place_ ? 0 : height_ * width_ * gradient_row());
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

  void add_block(const WeightItem& item, std::int64_t n, const std::int64_t (&j0)[kSpatial], T* input, T* grad,
                 std::vector<Segment>& segments, T* sums) const {
    if constexpr (is_wide<S>) {
      if (in_place_) {
        const std::int64_t depth = std::min(width_, gy_.extent(2) - j0[2]);
        const T* const a = x_.data + n * x_.stride[0] + item.group * items_.c + item.c0 + j0[2] * x_.step(2);
        const T* const b = gy_.data + n * gy_.stride[0] + item.group * items_.k + item.k0 + j0[2] * gy_.step(2);
        add_outer_sums<T>(*gemm_, item, {a, x_.step(2), b, gy_.step(2), depth, sums, items_.k_block});
        return;
      }
    }
    const std::int64_t count[kSpatial] = {1, std::min(height_, gy_.extent(1) - j0[1]),
                                          std::min(width_, gy_.extent(2) - j0[2])};
    AxisSlots slots[kSpatial], out_slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) {
      slots[axis] = axis_slots(phase_[axis], count[axis], axis == 2);
      out_slots[axis] = axis_slots(out_phase_[axis], count[axis], true);
    }
    const BlockPacker<S> input_packer{
        x_, {&phase_[0], &phase_[1], &phase_[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_};
    const BlockPacker<S> grad_packer{gy_,
                                     {&out_phase_[0], &out_phase_[1], &out_phase_[2]},
                                     {&out_slots[0], &out_slots[1], &out_slots[2]},
                                     transpose_};
    const std::int64_t plane = input_packer.positions(), outputs = count[1] * count[2];
    if (outer_) {
      input_packer.pack(input, n, item.group * items_.c + item.c0, item.channels, j0, input_row(), 1);
      if (item.outputs % cols_ != 0) std::fill_n(grad, outputs * gradient_row(), T(0));
      grad_packer.pack(grad, n, item.group * items_.k + item.k0, item.outputs, j0, gradient_row(), 1);
      add_outer_sums<T>(*gemm_, item, {input, input_row(), grad, gradient_row(), outputs, sums, items_.k_block});
      return;
    }
    input_packer.pack(input, n, item.group * items_.c + item.c0, item.channels, j0, 1, plane);
    for (std::int64_t k = 0; k < item.outputs; k += cols_) {
      T* panel = grad + k * outputs;
      const std::int64_t live = std::min<std::int64_t>(cols_, item.outputs - k);
      if (live < cols_) std::fill_n(panel, outputs * cols_, T(0));
      grad_packer.pack(panel, n, item.group * items_.k + item.k0 + k, live, j0, cols_, 1);
    }
    // Channels that do not fill a tile's rows share it with those of other taps. All taps must then have the same
    // outputs, those in the padding too, whose packed zeros meet finite gradients only.
    const bool few = item.channels == items_.c_block && item.channels < 2 * gemm_->tile_rows;
    if (few && taps_ > 1 && all_finite(grad, rounded_up(item.outputs, cols_) * outputs)) {
      list_rows(segments, slots, count);
      std::vector<const T*> rows;
      for (std::int64_t d : slots[0].base)
        for (std::int64_t h : slots[1].base)
          for (std::int64_t w : slots[2].base)
            for (std::int64_t c = 0; c < item.channels; ++c)
              rows.push_back(input + c * plane + (d * slots[1].slots + h) * slots[2].slots + w);
      add_tiles(item, rows, grad, outputs, segments, sums);
      return;
    }
    std::vector<const T*> rows(static_cast<std::size_t>(item.channels));
    for (std::int64_t c = 0; c < item.channels; ++c) rows[static_cast<std::size_t>(c)] = input + c * plane;
    std::int64_t t = 0;
    for (std::size_t d = 0; d < phase_[0].taps.size(); ++d)
      for (std::size_t h = 0; h < phase_[1].taps.size(); ++h)
        for (std::size_t w = 0; w < phase_[2].taps.size(); ++w, ++t) {
          list_segments(segments, slots, d, h, w, j0, count);
          if (!segments.empty())
            add_tiles(item, rows, grad, outputs, segments, sums + t * items_.c_block * items_.k_block);
        }
  }

  // Rows of channels, a position each, at a step that is no power of two.
  std::int64_t input_row() const { return items_.c_block + (outer_ ? kRowPad : 0); }
  std::int64_t gradient_row() const { return items_.k_block + (outer_ ? kRowPad : 0); }

  // All outputs of a block, row by row, relative to a tap's first slot.
  static void list_rows(std::vector<Segment>& segments, const AxisSlots (&slots)[kSpatial],
                        const std::int64_t (&count)[kSpatial]) {
    segments.clear();
    for (std::int64_t r = 0; r < count[1]; ++r)
      segments.push_back({r * slots[1].step * slots[2].slots, r * count[2], count[2]});
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

  // Adds to the sums of rows that lie items_.k_block apart.
  void add_tiles(const WeightItem& item, const std::vector<const T*>& rows, const T* grad, std::int64_t outputs,
                 const std::vector<Segment>& segments, T* sums) const {
    const auto all = static_cast<std::int64_t>(rows.size());
    for (std::int64_t k = 0; k < item.outputs; k += cols_)
      in_equal_parts(all, gemm_->tile_rows, [&](std::int64_t begin, std::int64_t end) {
        T* const to = sums + begin * items_.k_block + k;
        const GemmArgs<T> args{rows.data() + begin,
                               grad + k * outputs,
                               segments.data(),
                               static_cast<std::int64_t>(segments.size()),
                               to,
                               items_.k_block,
                               to,
                               items_.k_block};
        gemm_->gemm[end - begin - 1](&args);
      });
  }

  View<const S> gy_, x_;
  View<S> dw_;
  WeightItems items_;
  const TransposeKernel& transpose_;
  const ConvKernel* gemm_ = nullptr;
  AxisPhase phase_[kSpatial], out_phase_[kSpatial];
  bool outer_ = false;     // one tap, channels side by side
  bool in_place_ = false;  // and nothing needs packing
  std::int64_t taps_ = 0, cols_ = 1, sums_ = 1;
  std::int64_t width_ = 1, height_ = 1, rows_ = 1, columns_ = 1, blocks_ = 1;
};

}  // namespace

namespace {

// Every `step`-th element along an axis, from `first` on.
template <class T>
View<T> every(View<T> view, int axis, std::int64_t first, std::int64_t step) {
  view.data += first * view.stride[axis];
  view.shape[axis] /= step;
  view.stride[axis] *= step;
  return view;
}

// One channel of all samples as the channels of one sample.
template <class T>
View<T> samples_as_channels(View<T> view, std::int64_t channel) {
  view.data += channel * view.stride[1];
  view.shape[1] = view.shape[0];
  view.stride[1] = view.stride[0];
  view.shape[0] = 1;
  return view;
}

// Few channels fill no register; samples do. Each sample's gradient, then their sum in order.
template <class T>
void backward_weight_by_sample(const ConvShape& shape, const View<const T>& gy, const View<const T>& x,
                               const View<T>& dw) {
  const std::int64_t samples = x.shape[0], taps = dw.extent(0) * dw.extent(1) * dw.extent(2);
  Workspace<T> parts(samples * taps);
  View<T> part = dw;
  part.data = parts;
  part.shape[0] = samples;
  part.shape[1] = 1;
  part.stride[0] = taps;
  part.stride[2] = dw.extent(1) * dw.extent(2);
  part.stride[3] = dw.extent(2);
  part.stride[4] = 1;
  ConvShape own = shape;
  own.groups = samples;
  for (std::int64_t k = 0; k < dw.shape[0]; ++k)
    for (std::int64_t c = 0; c < dw.shape[1]; ++c) {
      backward_weight_depthwise<T>(own, samples_as_channels(gy, k), samples_as_channels(x, c), part);
      for (std::int64_t n = 1; n < samples; ++n)
        for (std::int64_t t = 0; t < taps; ++t) parts[t] += parts[n * taps + t];
      T* to = dw.data + k * dw.stride[0] + c * dw.stride[1];
      for (std::int64_t t = 0; t < taps; ++t) {
        const std::int64_t w = t % dw.extent(2), h = t / dw.extent(2) % dw.extent(1),
                           d = t / dw.extent(2) / dw.extent(1);
        to[d * dw.step(0) + h * dw.step(1) + w * dw.step(2)] = parts[t];
      }
    }
}

// A window of one element that the padding does not reach: the outputs see every `stride`-th input and nothing else.
bool point_of(ConvShape& shape, ArrayView& x, const ArrayView& gy) {
  for (const Window& window : shape.window)
    if (window.kernel != 1 || window.pad_before != 0 || window.pad_after > 0) return false;
  for (int axis = 0; axis < kSpatial; ++axis) {
    x.shape[2 + axis] = gy.extent(axis);
    if (gy.extent(axis) > 1) x.stride[2 + axis] *= shape.window[axis].stride;
    shape.window[axis] = Window{};
  }
  return true;
}

// Both arrays are then alike, and either may have its channels turned to be rows of positions. That costs more than to
// pack them as they lie, so it is done to the one with fewer.
bool exchange_pays(const ArrayView& x, const ArrayView& gy) {
  if (x.stride[1] == 1 && gy.stride[1] == 1) return x.shape[1] > gy.shape[1];
  return x.stride[4] == 1 && gy.stride[4] == 1 && x.shape[1] < gy.shape[1];
}

template <class S>
void clear(const View<S>& view) {
  for (std::int64_t i = 0; i < view.size(); ++i) {
    std::int64_t rest = i, offset = 0;
    for (int axis = kRank - 1; axis >= 0; --axis) {
      offset += rest % view.shape[axis] * view.stride[axis];
      rest /= view.shape[axis];
    }
    view.data[offset] = S{};
  }
}

}  // namespace

void conv_backward_weight(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& input,
                          const ArrayView& grad_weight) {
  check_conv(shape, input, grad_weight, grad_output);
  if (grad_weight.size() == 0) return;
  if (grad_output.size() == 0 || input.size() == 0) {  // not a walk over the positions of an empty batch
    dispatch_storage(input.dtype, [&](auto zero) { clear(grad_weight.as<decltype(zero)>()); });
    return;
  }
  if (std::int64_t together;
      as_matrices_of_planes(shape, input, grad_weight, grad_output, together) && together == input.shape[0]) {
    Planes planes(input, together);
    planes.read(input);
    return conv_backward_weight(shape, grad_output, planes.of(together), grad_weight);
  }
  ConvMatrices matrices;
  if (as_matrices(shape, input, grad_weight, grad_output, matrices) && matrices.rows <= kProductDepth) {
    dispatch_storage(input.dtype, [&](auto zero) {
      multiply(matrices.backward_weight<decltype(zero)>(grad_output, input, grad_weight));
    });
    return;
  }
  ArrayView x = input, gy = grad_output, dw = grad_weight;
  ConvShape problem = shape;
  if (point_of(problem, x, gy)) {
    join_positions(problem, x, gy);
    if (shape.groups == 1 && exchange_pays(x, gy)) {
      std::swap(x, gy);
      std::swap(dw.shape[0], dw.shape[1]);
      std::swap(dw.stride[0], dw.stride[1]);
    }
  }
  const std::int64_t inputs = x.shape[1] / shape.groups, outputs = gy.shape[1] / shape.groups;
  const bool few = inputs * outputs <= kDepthwisePairs && problem.window[2].mode == PadMode::zeros;
  dispatch_storage(input.dtype, [&](auto zero) {
    using S = decltype(zero);
    if (backward_weight_few(problem, gy.as<const S>(), x.as<const S>(), dw.as<S>())) return;
    if (backward_weight_tiles(problem, gy.as<const S>(), x.as<const S>(), dw.as<S>())) return;
    if (backward_weight_winograd(problem, gy.as<const S>(), x.as<const S>(), dw.as<S>())) return;
    if (few && is_wide<S> && shape.groups == 1 && x.shape[0] >= kDepthwiseSamples) {
      if constexpr (is_wide<S>) backward_weight_by_sample(problem, gy.as<const S>(), x.as<const S>(), dw.as<S>());
      return;
    }
    if (!few || shape.groups == 1) {
      if (backward_weight_rows(problem, gy.as<const S>(), x.as<const S>(), dw.as<S>())) return;
      if (backward_weight_runs(problem, gy.as<const S>(), x.as<const S>(), dw.as<S>())) return;
      WeightGradient<S>(problem, gy, x, dw).run();
      return;
    }
    // Groups of few channels: an input and an output channel of each at a time.
    for (std::int64_t k = 0; k < outputs; ++k)
      for (std::int64_t c = 0; c < inputs; ++c)
        backward_weight_depthwise<S>(problem, every(gy.as<const S>(), 1, k, outputs),
                                     every(x.as<const S>(), 1, c, inputs),
                                     every(every(dw.as<S>(), 0, k, outputs), 1, c, inputs));
  });
}

namespace {

template <class S>
void bias_gradient(const View<const S>& gy, S* result) {
  const std::int64_t channels = gy.shape[1], planes = gy.shape[0] * gy.extent(0);
  // One part a sample and depth, up to a number fixed by the shape; float64 sums, combined in order.
  const std::int64_t parts = std::clamp<std::int64_t>(
      planes, 1, std::clamp<std::int64_t>((1 << 18) / std::max<std::int64_t>(channels, 1), 1, 64));
  Workspace<double> sums(parts * channels);
  parallel_for({parts, 0.5 * static_cast<double>(gy.size())}, Subnormals::keep, [&](std::int64_t part) {
    double* sum = sums + part * channels;
    std::fill_n(sum, channels, 0.0);
    for (std::int64_t p = planes * part / parts; p < planes * (part + 1) / parts; ++p) {
      const S* plane = gy.data + p / gy.extent(0) * gy.stride[0] + p % gy.extent(0) * gy.step(0);
      if (gy.stride[1] == 1) {
        for (std::int64_t h = 0; h < gy.extent(1); ++h)
          for (std::int64_t w = 0; w < gy.extent(2); ++w) {
            const S* values = plane + h * gy.step(1) + w * gy.step(2);
            for (std::int64_t c = 0; c < channels; ++c) sum[c] += widen(values[c]);
          }
      } else {
        for (std::int64_t c = 0; c < channels; ++c)
          for (std::int64_t h = 0; h < gy.extent(1); ++h) {
            const S* row = plane + c * gy.stride[1] + h * gy.step(1);
            double lanes[8] = {};
            std::int64_t w = 0;
            for (; w + 8 <= gy.extent(2); w += 8)
              for (int i = 0; i < 8; ++i) lanes[i] += widen(row[(w + i) * gy.step(2)]);
            for (; w < gy.extent(2); ++w) lanes[0] += widen(row[w * gy.step(2)]);
            sum[c] += ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
          }
      }
    }
  });
  for (std::int64_t c = 0; c < channels; ++c) {
    double total = 0;
    for (std::int64_t part = 0; part < parts; ++part) total += sums[part * channels + c];
    result[c] = narrow(static_cast<Compute<S>>(total), S{});
  }
}

}  // namespace

void conv_backward_bias(const ArrayView& grad_output, const ArrayView& grad_bias) {
  require(grad_output.dtype == grad_bias.dtype, "arrays of one call must share a dtype");
  require(grad_bias.size() == grad_output.shape[1], "grad_bias: wrong length");
  dispatch_storage(grad_output.dtype, [&](auto zero) {
    using S = decltype(zero);
    bias_gradient(grad_output.as<const S>(), static_cast<S*>(grad_bias.data));
  });
}

}  // namespace fastconv
