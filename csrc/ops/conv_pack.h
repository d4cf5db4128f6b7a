// Moving blocks between strided arrays and packed scratch, for all convolution passes. Arrays hold elements of type S,
// scratch of type Compute<S>: 16-bit data are widened as they are packed and rounded once as they are stored.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/arithmetic.h"
#include "core/array_view.h"
#include "cpu/conv/kernels.h"
#include "ops/conv_plan.h"

namespace fastconv {

// Channels and positions of 16-bit data that are transposed at a time.
constexpr std::int64_t kTransposeChannels = 16, kTransposePositions = 64;

// to[j * ldd + i] = from[i * lds + j] for i < rows, j < cols.
template <class S>
void widen_transposed(const TransposeKernel& transpose, std::int64_t rows, std::int64_t cols, const S* from,
                      std::int64_t lds, Compute<S>* to, std::int64_t ldd) {
  if constexpr (std::is_same_v<S, Compute<S>>) {
    transpose.run(rows, cols, from, lds, to, ldd, nullptr);
  } else {
    Compute<S> buffer[kTransposeChannels * kTransposePositions];
    for (std::int64_t r = 0; r < rows; r += kTransposeChannels)
      for (std::int64_t c = 0; c < cols; c += kTransposePositions) {
        const std::int64_t height = std::min(kTransposeChannels, rows - r);
        const std::int64_t width = std::min(kTransposePositions, cols - c);
        for (std::int64_t i = 0; i < height; ++i)
          widen_run(from + (r + i) * lds + c, buffer + i * kTransposePositions, width);
        transpose.run(height, width, buffer, kTransposePositions, to + c * ldd + r, ldd, nullptr);
      }
  }
}

// The weights of some channels for a panel of columns, [channel][tap][column]. Taps near each other in memory are
// copied in its order, with what lies between them; others in the order of the list.
template <class S>
class PanelWeights {
 public:
  // of_tap: weight_offsets; the steps from one channel and from one column to the next.
  PanelWeights(const std::vector<std::int64_t>& of_tap, std::int64_t weight_x, std::int64_t weight_y)
      : of_tap_(of_tap), weight_x_(weight_x), weight_y_(weight_y), taps_(static_cast<std::int64_t>(of_tap.size())) {
    constexpr std::int64_t kWide = 2;  // taps that are copied for each that is used, rather than those alone
    if (of_tap.empty()) return;
    const auto [least, most] = std::minmax_element(of_tap.begin(), of_tap.end());
    const auto near = [&, first = *least, last = *most](std::int64_t step) {
      return first >= 0 && last < step && step <= kWide * taps_;
    };
    span_ = *most + 1;
    if (near(weight_x)) {
      order_ = Order::channels;
      taps_ = weight_x;
    } else if (weight_y > 1 && near(weight_y)) {
      order_ = Order::columns;
      taps_ = span_;
    }
  }

  std::int64_t copied() const { return taps_; }  // taps of a channel, with those between them
  std::int64_t place(std::int64_t tap) const { return in_list() ? tap : of_tap_[tap]; }
  bool in_list() const { return order_ == Order::list; }

  // To [channel][tap][column], `live` of `cols` columns; the others are zero.
  void copy(const TransposeKernel& transpose, const S* from, std::int64_t channels, std::int64_t live,
            std::int64_t cols, Compute<S>* to) const {
    if (in_list()) {
      copy_list(from, channels, live, cols, to, taps_ * cols, cols);
      return;
    }
    if (live < cols) std::fill_n(to, channels * taps_ * cols, Compute<S>(0));
    if (order_ == Order::channels)
      widen_transposed(transpose, live, (channels - 1) * taps_ + span_, from, weight_y_, to, cols);
    else
      for (std::int64_t c = 0; c < channels; ++c)
        widen_transposed(transpose, live, taps_, from + c * weight_x_, weight_y_, to + c * taps_ * cols, cols);
  }
  // The taps of the list, with steps between channels and between taps.
  void copy_list(const S* from, std::int64_t channels, std::int64_t live, std::int64_t cols, Compute<S>* to,
                 std::int64_t channel_step, std::int64_t tap_step) const {
    const auto taps = static_cast<std::int64_t>(of_tap_.size());
    for (std::int64_t t = 0; t < taps; ++t)
      for (std::int64_t c = 0; c < channels; ++c) {
        const S* row = from + of_tap_[t] + c * weight_x_;
        Compute<S>* const columns = to + c * channel_step + t * tap_step;
        for (std::int64_t y = 0; y < live; ++y) columns[y] = widen(row[y * weight_y_]);
        std::fill(columns + live, columns + cols, Compute<S>(0));
      }
  }

 private:
  enum class Order { list, channels, columns };  // what a tap's neighbours in memory are followed by
  const std::vector<std::int64_t>& of_tap_;
  std::int64_t weight_x_, weight_y_, taps_, span_ = 0;
  Order order_ = Order::list;
};

// What a pass needs of one block's input: channels [c0, c0 + channels) of sample n, for outputs starting at j0.
template <class S>
struct BlockPacker {
  using T = Compute<S>;
  const View<const S>& x;
  const AxisPhase* phase[kSpatial];
  const AxisSlots* slots[kSpatial];
  const TransposeKernel& transpose;

  std::int64_t positions() const { return slots[0]->slots * slots[1]->slots * slots[2]->slots; }

  // Fills dst with channel c of position p at dst[p * position_stride + c * channel_stride]; positions outside the
  // input are zero, or what the padding mode repeats there. One of the two strides is 1.
  void pack(T* dst, std::int64_t n, std::int64_t c0, std::int64_t channels, const std::int64_t (&j0)[kSpatial],
            std::int64_t position_stride, std::int64_t channel_stride) const {
    const S* sample = x.data + n * x.stride[0] + c0 * x.stride[1];
    const auto source = [this](int axis, std::int64_t position) {
      return padded_source(position, x.extent(axis), phase[axis]->mode);
    };
    // Planes one after the other are cleared as one; else what lies outside the input is, run by run.
    const bool at_once = position_stride == 1 && channel_stride == positions() && !inside(j0);
    if (at_once)
      std::memset(static_cast<void*>(dst), 0, sizeof(T) * static_cast<std::size_t>(channels * channel_stride));
    for (const AxisSlots::Run& rd : slots[0]->runs)
      for (std::int64_t d = 0; d < rd.count; ++d) {
        const std::int64_t id = source(0, j0[0] * phase[0]->in_step + rd.start + d * rd.in_step);
        for (const AxisSlots::Run& rh : slots[1]->runs)
          for (std::int64_t h = 0; h < rh.count; ++h) {
            const std::int64_t ih = source(1, j0[1] * phase[1]->in_step + rh.start + h * rh.in_step);
            const bool live = id >= 0 && ih >= 0;
            const std::int64_t line = ((rd.slot + d) * slots[1]->slots + rh.slot + h) * slots[2]->slots;
            const S* row = live ? sample + id * x.step(0) + ih * x.step(1) : sample;
            for (const AxisSlots::Run& rw : slots[2]->runs) {
              T* target = dst + (line + rw.slot) * position_stride;
              const std::int64_t iw = j0[2] * phase[2]->in_step + rw.start;
              // The part of the run that lies inside the input.
              std::int64_t begin = 0, end = 0;
              if (live) {
                begin = iw >= 0 ? 0 : std::min(rw.count, ceil_div(-iw, rw.in_step));
                end = x.extent(2) <= iw ? 0 : std::min(rw.count, ceil_div(x.extent(2) - iw, rw.in_step));
                end = std::max(begin, end);
              }
              if (live && phase[2]->mode != PadMode::zeros) {
                const auto repeat = [&](std::int64_t from, std::int64_t to) {
                  for (std::int64_t i = from; i < to; ++i)
                    copy(target + i * position_stride, row + source(2, iw + i * rw.in_step) * x.step(2), 0, 1, channels,
                         position_stride, channel_stride);
                };
                repeat(0, begin);
                repeat(end, rw.count);
              } else if (!at_once) {
                zero(target, begin, channels, position_stride, channel_stride);
                zero(target + end * position_stride, rw.count - end, channels, position_stride, channel_stride);
              }
              if (end > begin)
                copy(target + begin * position_stride, row + (iw + begin * rw.in_step) * x.step(2),
                     rw.in_step * x.step(2), end - begin, channels, position_stride, channel_stride);
            }
          }
      }
  }

 private:
  // Whether all runs lie inside the input.
  bool inside(const std::int64_t (&j0)[kSpatial]) const {
    for (int axis = 0; axis < kSpatial; ++axis)
      for (const AxisSlots::Run& run : slots[axis]->runs) {
        const std::int64_t first = j0[axis] * phase[axis]->in_step + run.start;
        if (first < 0 || first + (run.count - 1) * run.in_step >= x.extent(axis)) return false;
      }
    return true;
  }

  static void zero(T* dst, std::int64_t positions, std::int64_t channels, std::int64_t position_stride,
                   std::int64_t channel_stride) {
    if (positions <= 0) return;
    if (channel_stride == 1 && position_stride == channels) {
      std::memset(dst, 0, sizeof(T) * positions * channels);
      return;
    }
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t p = 0; p < positions; ++p) dst[p * position_stride + c * channel_stride] = T(0);
  }

  // A few channels of each position, as many as the compiler knows: a call for each would take longer than the copy.
  static bool copy_short(T* dst, const S* src, std::int64_t step, std::int64_t positions, std::int64_t channels,
                         std::int64_t position_stride) {
    const auto copy = [&](auto count) {
      for (std::int64_t p = 0; p < positions; ++p) widen_run(src + p * step, dst + p * position_stride, count());
    };
    switch (channels) {
      case 4:
        copy(std::integral_constant<std::int64_t, 4>());
        return true;
      case 8:
        copy(std::integral_constant<std::int64_t, 8>());
        return true;
      case 16:
        copy(std::integral_constant<std::int64_t, 16>());
        return true;
      case 32:
        copy(std::integral_constant<std::int64_t, 32>());
        return true;
      default:
        return false;
    }
  }

  void copy(T* dst, const S* src, std::int64_t step, std::int64_t positions, std::int64_t channels,
            std::int64_t position_stride, std::int64_t channel_stride) const {
    const std::int64_t sc = x.stride[1];
    if (channel_stride == 1 && sc == 1) {
      if (copy_short(dst, src, step, positions, channels, position_stride)) return;
      for (std::int64_t p = 0; p < positions; ++p) widen_run(src + p * step, dst + p * position_stride, channels);
    } else if (position_stride == 1 && step == 1) {
      for (std::int64_t c = 0; c < channels; ++c) widen_run(src + c * sc, dst + c * channel_stride, positions);
    } else if (channel_stride == 1 && step == 1) {
      widen_transposed(transpose, channels, positions, src, sc, dst, position_stride);
    } else if (position_stride == 1 && sc == 1) {
      widen_transposed(transpose, positions, channels, src, step, dst, channel_stride);
    } else if (position_stride == 1 && step == 2) {
      // A step known to the compiler becomes shuffles.
      for (std::int64_t c = 0; c < channels; ++c) {
        T* target = dst + c * channel_stride;
        const S* source = src + c * sc;
        for (std::int64_t p = 0; p < positions; ++p) target[p] = widen(source[2 * p]);
      }
    } else {
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t p = 0; p < positions; ++p)
          dst[p * position_stride + c * channel_stride] = widen(src[p * step + c * sc]);
    }
  }
};

// y[position][channel] = block[position][channel] + bias[channel] for a run of `positions` outputs.
template <class S>
void store_run(const TransposeKernel& transpose, const Compute<S>* block, std::int64_t ld, std::int64_t positions,
               std::int64_t channels, const Compute<S>* bias, S* y, std::int64_t position_stride,
               std::int64_t channel_stride) {
  using T = Compute<S>;
  if (position_stride == 1 && channel_stride != 1) {
    if constexpr (std::is_same_v<S, T>) {
      transpose.run(positions, channels, block, ld, y, channel_stride, bias);
    } else {
      T buffer[kTransposeChannels * kTransposePositions];
      for (std::int64_t c = 0; c < channels; c += kTransposeChannels)
        for (std::int64_t p = 0; p < positions; p += kTransposePositions) {
          const std::int64_t height = std::min(kTransposeChannels, channels - c);
          const std::int64_t width = std::min(kTransposePositions, positions - p);
          transpose.run(width, height, block + p * ld + c, ld, buffer, kTransposePositions, bias ? bias + c : nullptr);
          for (std::int64_t i = 0; i < height; ++i) {
            S* out = y + p + (c + i) * channel_stride;
            for (std::int64_t j = 0; j < width; ++j) out[j] = narrow(buffer[i * kTransposePositions + j], S{});
          }
        }
    }
    return;
  }
  for (std::int64_t p = 0; p < positions; ++p) {
    const T* row = block + p * ld;
    S* out = y + p * position_stride;
    if (channel_stride == 1) {
      for (std::int64_t c = 0; c < channels; ++c) out[c] = narrow(bias ? row[c] + bias[c] : row[c], S{});
    } else {
      for (std::int64_t c = 0; c < channels; ++c)
        out[c * channel_stride] = narrow(bias ? row[c] + bias[c] : row[c], S{});
    }
  }
}

// Whether every value is finite, for packed weights: a zero times an infinite weight must not reach a result.
template <class T>
bool all_finite(const T* values, std::int64_t count) {
  int bad = 0;
  for (std::int64_t i = 0; i < count; ++i) bad |= !(std::abs(values[i]) <= std::numeric_limits<T>::max());
  return bad == 0;
}

}  // namespace fastconv
