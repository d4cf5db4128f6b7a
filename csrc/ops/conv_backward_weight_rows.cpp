// Weight gradient of few channels, along rows: for each pair of channels and each tap, the product of a row of the
// output's gradient with the input row that the tap reads, register by register; lanes are added up at the very end. So
// no register idles for want of channels, and the gradient is read where it lies, unless its channels lie side by side.
// Padding is packed as zeros, which must not meet what is not finite: sums that are not finite are made again, output
// by output.
#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"
#include "ops/conv_rows.h"
#include "ops/conv_weight_sums.h"

namespace fastconv {
namespace {

constexpr std::int64_t kFewOutputs = 4;
constexpr std::int64_t kMostTaps = 1 << 15;  // of all input channels of a group

template <class S>
class RowWeightGradient {
  using T = Compute<S>;

 public:
  RowWeightGradient(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                    const View<S>& grad_weight)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        k_(grad_output.shape[1] / shape.groups),
        c_(input.shape[1] / shape.groups),
        kernel_(find_depthwise(DtypeOf<T>::value, grad_output.extent(2), active_isa_mask())),
        groups_(shape.groups) {
    for (int axis = 0; axis < kSpatial; ++axis) own_[axis] = forward_phases(shape.window[axis], gy_.extent(axis))[0];
    taps_ = c_;
    for (const AxisPhase& phase : own_) taps_ *= static_cast<std::int64_t>(phase.taps.size());
    lanes_ = kernel_.tile_cols;
    // Groups whose channels are turned together where they lie side by side.
    const bool turned = x_.stride[1] == 1 || gy_.stride[1] == 1;
    together_ = turned ? std::clamp<std::int64_t>(lanes_ / std::max(c_, k_), 1, groups_) : 1;
    item_parts_ = turned ? 1 : channel_parts(k_);
    const std::int64_t outputs = together_ * ceil_div(k_, item_parts_);
    sums_ = outputs * taps_ * lanes_;
    const RowBlock block = row_block(phase_, together_ * c_, outputs, 2 * lanes_);
    width_ = block.width;
    rows_ = ceil_div(gy_.extent(1), block.height);
    height_ = ceil_div(gy_.extent(1), rows_);
    columns_ = ceil_div(gy_.extent(2), width_);
    blocks_ = gy_.shape[0] * gy_.extent(0) * rows_ * columns_;
  }

  // Whether it is the faster one beside tiles, whose registers are the widest, in products of such a register:
  // registers of rows, six outputs of a row and a tap at a time, sums added to by each block, and lanes added up,
  // beside registers of the tile's columns. Fitted to 420 random problems on AVX-512, and good for 210 on
  // AVX2; channels first; see bench/LOG.md.
  bool pays() const {
    constexpr std::int64_t kLongRow = 64;  // fills any register
    constexpr double kRegister = 0.12, kSixOutputs = 2.8, kAdded = 16, kSum = 120, kTiles = 28000, kTileSum = 8;
    const std::int64_t columns = find_depthwise(DtypeOf<T>::value, kLongRow, active_isa_mask()).tile_cols;
    const auto taps = static_cast<double>(groups_ * taps_), outputs = static_cast<double>(k_);
    const double rows = static_cast<double>(gy_.shape[0] * gy_.extent(0) * gy_.extent(1));
    const double registers = rows * static_cast<double>(ceil_div(gy_.extent(2), lanes_));
    const double part = std::min(1.0, static_cast<double>(lanes_) / static_cast<double>(columns));  // of a register
    const double sum = (kAdded * static_cast<double>(blocks_) + kSum) * part;
    const double by_rows = outputs * (kRegister * registers + sum) +
                           kSixOutputs * registers * static_cast<double>(ceil_div(k_, std::int64_t{6}));
    const double positions = rows * static_cast<double>(gy_.extent(2));
    const double by_tiles = static_cast<double>(ceil_div(k_, columns)) * (positions + kTileSum);
    return taps * by_rows < taps * by_tiles + kTiles;
  }

  void run() {
    count_kernel(kernel_);
    transpose_ = &select_transpose(DtypeOf<T>::value, active_isa_mask());
    weight_of_tap_ = weights_of_taps(phase_, c_, dw_.stride[1], dw_.stride + 2);
    const std::int64_t items = ceil_div(groups_, together_) * item_parts_;
    const double products = static_cast<double>(groups_ * k_ * taps_) * static_cast<double>(gy_.shape[0]) *
                            static_cast<double>(gy_.extent(0) * gy_.extent(1) * gy_.extent(2));
    sum_in_parts<T>(
        items, sums_, blocks_, products * multiply_add_nanoseconds<T>(),
        [&](std::int64_t item, std::int64_t part, std::int64_t parts, T* sums) {
          accumulate(item_of(item), part, parts, false, sums);
          if (!all_finite<T>(sums, sums_)) accumulate(item_of(item), part, parts, true, sums);
        },
        [&](std::int64_t item, T* sums) { store(item_of(item), sums); });
  }

 private:
  // Some output channels of a group, or all of each of some groups.
  struct Item {
    std::int64_t group, groups;
    ChannelPart channels;
  };

  Item item_of(std::int64_t index) const {
    const std::int64_t group = index / item_parts_ * together_;
    const ChannelPart channels = item_parts_ == 1 ? ChannelPart{0, k_} : channel_part(k_, index % item_parts_);
    return {group, std::min(together_, groups_ - group), channels};
  }

  // Rows of the output's gradient: channel m's row r at data + m * channel + r * row.
  struct Gradient {
    const T* data;
    std::int64_t channel, row, count;
  };

  void accumulate(const Item& item, std::int64_t part, std::int64_t parts, bool exact, T* sums) const {
    std::fill_n(sums, sums_, T(0));
    const std::int64_t last = blocks_ * (part + 1) / parts;
    for (std::int64_t b = blocks_ * part / parts; b < last; ++b) {
      std::int64_t rest = b, j0[kSpatial];
      j0[2] = rest % columns_ * width_;
      rest /= columns_;
      j0[1] = rest % rows_ * height_;
      rest /= rows_;
      j0[0] = rest % gy_.extent(0);
      add_block(item, rest / gy_.extent(0), j0, exact, sums);
    }
  }

  void add_block(const Item& item, std::int64_t n, const std::int64_t (&j0)[kSpatial], bool exact, T* sums) const {
    const std::int64_t count[kSpatial] = {1, std::min(height_, gy_.extent(1) - j0[1]),
                                          std::min(width_, gy_.extent(2) - j0[2])};
    AxisSlots slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) slots[axis] = axis_slots(*phase_[axis], count[axis], axis == 2);
    const BlockPacker<S> packer{x_, {phase_[0], phase_[1], phase_[2]}, {&slots[0], &slots[1], &slots[2]}, *transpose_};
    // Rows shorter than a register are read as one.
    const std::int64_t plane = packer.positions(), slack = lanes_;
    const std::int64_t channels = item.groups * c_;
    Workspace<T> input(plane * channels + slack);
    packer.pack(input, n, item.group * c_, channels, j0, 1, plane);
    std::fill_n(input + plane * channels, slack, T(0));
    const std::vector<std::int64_t> offsets = slots_of_taps(slots, c_, plane);
    const std::int64_t line = slots[1].step * slots[2].slots;
    const bool in_place = std::is_same_v<S, T> && gy_.step(2) == 1 && count[2] >= lanes_;
    const std::int64_t pitch = count[1] * std::max(count[2], lanes_);
    Workspace<T> packed(in_place ? 1 : item.groups * item.channels.count * pitch);
    Gradient grad = gradient(item, n, j0, count, in_place, packed);
    const T* x = input;
    const std::int64_t parts = channel_parts(item.channels.count);
    for (std::int64_t i = 0; i < item.groups * parts; ++i) {
      const std::int64_t rows = channel_part(item.channels.count, i % parts).count;
      if (exact) {
        add_output_by_output(rows, x, offsets, line, grad, j0, count, sums);
      } else {
        const RowDotArgs<T> args{grad.data, grad.channel, grad.row,   x,     offsets.data(),
                                 line,      count[1],     grad.count, taps_, sums};
        kernel_.row_dot[rows - 1](&args);
      }
      if (i % parts == parts - 1) x += c_ * plane;
      grad.data += rows * grad.channel;
      sums += rows * taps_ * lanes_;
    }
  }

  // A block's gradient as it lies in memory, or packed, with zeros to fill a register.
  Gradient gradient(const Item& item, std::int64_t n, const std::int64_t (&j0)[kSpatial],
                    const std::int64_t (&count)[kSpatial], bool in_place, T* packed) const {
    const S* const source = gy_.data + n * gy_.stride[0] + (item.group * k_ + item.channels.first) * gy_.stride[1] +
                            j0[0] * gy_.step(0) + j0[1] * gy_.step(1) + j0[2] * gy_.step(2);
    if constexpr (std::is_same_v<S, T>) {
      if (in_place) return {source, gy_.stride[1], gy_.step(1), count[2]};
    }
    const std::int64_t pitch = std::max(count[2], lanes_), channels = item.groups * item.channels.count;
    const bool turned = gy_.stride[1] == 1;
    for (std::int64_t r = 0; r < count[1]; ++r) {
      T* const to = packed + r * pitch;
      const S* const from = source + r * gy_.step(1);
      if (turned) widen_transposed(*transpose_, count[2], channels, from, gy_.step(2), to, count[1] * pitch);
      for (std::int64_t m = 0; m < channels; ++m) {
        T* const row = to + m * count[1] * pitch;
        for (std::int64_t i = 0; i < count[2] && !turned; ++i)
          row[i] = widen(from[m * gy_.stride[1] + i * gy_.step(2)]);
        std::fill(row + count[2], row + pitch, T(0));
      }
    }
    return {packed, count[1] * pitch, pitch, pitch};
  }

  // Only products of outputs whose tap is inside the input.
  void add_output_by_output(std::int64_t channels, const T* input, const std::vector<std::int64_t>& offsets,
                            std::int64_t line, const Gradient& grad, const std::int64_t (&j0)[kSpatial],
                            const std::int64_t (&count)[kSpatial], T* sums) const {
    std::int64_t t = 0;
    for_each_tap(phase_, c_, [&](const Tap& d, const Tap& h, std::int64_t, const Tap& w) {
      const Range in_d = live_outputs(*phase_[0], d, j0[0], 1, x_.extent(0));
      const Range in_h = live_outputs(*phase_[1], h, j0[1], count[1], x_.extent(1));
      const Range in_w = live_outputs(*phase_[2], w, j0[2], count[2], x_.extent(2));
      const T* x = input + offsets[static_cast<std::size_t>(t)];
      for (std::int64_t m = 0; m < channels; ++m) {
        T sum = 0;
        for (std::int64_t r = in_h.begin; r < in_h.end && in_d.begin < in_d.end; ++r)
          for (std::int64_t i = in_w.begin; i < in_w.end; ++i)
            sum += grad.data[m * grad.channel + r * grad.row + i] * x[r * line + i];
        sums[(t * channels + m) * lanes_] += sum;
      }
      ++t;
    });
  }

  void store(const Item& item, T* sums) const {
    const std::int64_t parts = channel_parts(item.channels.count);
    for (std::int64_t i = 0; i < item.groups * parts; ++i) {
      const ChannelPart part = channel_part(item.channels.count, i % parts);
      const std::int64_t first = (item.group + i / parts) * k_ + item.channels.first + part.first;
      for (std::int64_t t = 0; t < taps_; ++t)
        for (std::int64_t m = 0; m < part.count; ++m, sums += lanes_) {
          for (std::int64_t half = lanes_ / 2; half > 0; half /= 2)
            for (std::int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
          dw_.data[(first + m) * dw_.stride[0] + weight_of_tap_[static_cast<std::size_t>(t)]] = narrow(sums[0], S{});
        }
    }
  }

  const View<const S>&gy_, &x_;
  const View<S>& dw_;
  std::int64_t k_, c_;
  const DepthwiseKernel& kernel_;
  const TransposeKernel* transpose_ = nullptr;
  std::int64_t groups_, together_ = 1, item_parts_ = 1;
  AxisPhase own_[kSpatial];
  const AxisPhase* const phase_[kSpatial] = {&own_[0], &own_[1], &own_[2]};
  std::vector<std::int64_t> weight_of_tap_;
  std::int64_t taps_ = 0, lanes_ = 1, sums_ = 0;  // the sums of an item
  std::int64_t width_ = 1, height_ = 1, rows_ = 1, columns_ = 1, blocks_ = 1;
};

}  // namespace

template <class S>
bool backward_weight_rows(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                          const View<S>& grad_weight) {
  const std::int64_t outputs = grad_output.shape[1] / shape.groups, width = grad_output.extent(2);
  constexpr std::int64_t kMostOutputs = 64;
  const DepthwiseKernel& kernel = find_depthwise(DtypeOf<Compute<S>>::value, width, active_isa_mask());
  const std::int64_t lanes = kernel.tile_cols;
  const bool forced = forced_kernel() == kernel.name;
  std::int64_t taps = input.shape[1] / shape.groups;
  for (const Window& window : shape.window) taps *= window.kernel;
  // Channels that lie side by side are turned, which pays for groups of few of them, or a few outputs.
  const bool along_rows = grad_output.step(2) == 1 && input.step(2) == 1;
  const bool turns = outputs <= (shape.groups > 1 ? lanes / 2 : kFewOutputs) && 2 * width >= 3 * lanes;
  const std::int64_t channels = shape.groups * channel_parts(outputs) * largest_part(outputs);
  const bool fits = taps <= kMostTaps && channels * taps * lanes <= kMostElements<Compute<S>>;
  if (!fits || (!forced && (width < lanes || outputs > kMostOutputs || !(along_rows || turns)))) return false;
  RowWeightGradient<S> gradient(shape, grad_output, input, grad_weight);
  if (!forced && along_rows && !gradient.pays()) return false;
  gradient.run();
  return true;
}

template bool backward_weight_rows<float>(const ConvShape&, const View<const float>&, const View<const float>&,
                                          const View<float>&);
template bool backward_weight_rows<double>(const ConvShape&, const View<const double>&, const View<const double>&,
                                           const View<double>&);
template bool backward_weight_rows<Float16>(const ConvShape&, const View<const Float16>&, const View<const Float16>&,
                                            const View<Float16>&);
template bool backward_weight_rows<BFloat16>(const ConvShape&, const View<const BFloat16>&, const View<const BFloat16>&,
                                             const View<BFloat16>&);

}  // namespace fastconv
