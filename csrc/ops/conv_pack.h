// Moving blocks between strided arrays and packed scratch, for all convolution passes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/array_view.h"
#include "cpu/conv/kernels.h"
#include "ops/conv_plan.h"

namespace fastconv {

// What a pass needs of one block's input: channels [c0, c0 + channels) of sample n, for outputs starting at j0.
template <class T>
struct BlockPacker {
  const View<const T>& x;
  const AxisPhase* phase[kSpatial];
  const AxisSlots* slots[kSpatial];
  const TransposeKernel& transpose;

  std::int64_t positions() const { return slots[0]->slots * slots[1]->slots * slots[2]->slots; }

  // Fills dst with channel c of position p at dst[p * position_stride + c * channel_stride]; positions outside the
  // input are zero. One of the two strides is 1.
  void pack(T* dst, std::int64_t n, std::int64_t c0, std::int64_t channels, const std::int64_t (&j0)[kSpatial],
            std::int64_t position_stride, std::int64_t channel_stride) const {
    const T* sample = x.data + n * x.stride[0] + c0 * x.stride[1];
    for (const AxisSlots::Run& rd : slots[0]->runs)
      for (std::int64_t d = 0; d < rd.count; ++d) {
        const std::int64_t id = j0[0] * phase[0]->in_step + rd.start + d * rd.in_step;
        for (const AxisSlots::Run& rh : slots[1]->runs)
          for (std::int64_t h = 0; h < rh.count; ++h) {
            const std::int64_t ih = j0[1] * phase[1]->in_step + rh.start + h * rh.in_step;
            const bool live = id >= 0 && id < x.extent(0) && ih >= 0 && ih < x.extent(1);
            const std::int64_t line = ((rd.slot + d) * slots[1]->slots + rh.slot + h) * slots[2]->slots;
            for (const AxisSlots::Run& rw : slots[2]->runs) {
              T* target = dst + (line + rw.slot) * position_stride;
              const std::int64_t iw = j0[2] * phase[2]->in_step + rw.start;
              // The part of the run that lies inside the input.
              std::int64_t begin = 0, end = 0;
              if (live) {
                begin = iw >= 0 ? 0 : std::min(rw.count, (-iw + rw.in_step - 1) / rw.in_step);
                end = x.extent(2) <= iw ? 0 : std::min(rw.count, (x.extent(2) - iw + rw.in_step - 1) / rw.in_step);
                end = std::max(begin, end);
              }
              zero(target, begin, channels, position_stride, channel_stride);
              zero(target + end * position_stride, rw.count - end, channels, position_stride, channel_stride);
              if (end > begin)
                copy(target + begin * position_stride,
                     sample + id * x.step(0) + ih * x.step(1) + (iw + begin * rw.in_step) * x.step(2),
                     rw.in_step * x.step(2), end - begin, channels, position_stride, channel_stride);
            }
          }
      }
  }

 private:
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

  void copy(T* dst, const T* src, std::int64_t step, std::int64_t positions, std::int64_t channels,
            std::int64_t position_stride, std::int64_t channel_stride) const {
    const std::int64_t sc = x.stride[1];
    if (channel_stride == 1 && sc == 1) {
      for (std::int64_t p = 0; p < positions; ++p)
        std::memcpy(dst + p * position_stride, src + p * step, sizeof(T) * channels);
    } else if (position_stride == 1 && step == 1) {
      for (std::int64_t c = 0; c < channels; ++c)
        std::memcpy(dst + c * channel_stride, src + c * sc, sizeof(T) * positions);
    } else if (channel_stride == 1 && step == 1) {
      transpose.run(channels, positions, src, sc, dst, position_stride, nullptr);
    } else if (position_stride == 1 && sc == 1) {
      transpose.run(positions, channels, src, step, dst, channel_stride, nullptr);
    } else if (position_stride == 1 && step == 2) {
      // A step known to the compiler becomes shuffles.
      for (std::int64_t c = 0; c < channels; ++c) {
        T* target = dst + c * channel_stride;
        const T* source = src + c * sc;
        for (std::int64_t p = 0; p < positions; ++p) target[p] = source[2 * p];
      }
    } else {
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t p = 0; p < positions; ++p)
          dst[p * position_stride + c * channel_stride] = src[p * step + c * sc];
    }
  }
};

// y[position][channel] = block[position][channel] + bias[channel] for a run of `positions` outputs.
template <class T>
void store_run(const TransposeKernel& transpose, const T* block, std::int64_t ld, std::int64_t positions,
               std::int64_t channels, const T* bias, T* y, std::int64_t position_stride, std::int64_t channel_stride) {
  if (position_stride == 1 && channel_stride != 1) {
    transpose.run(positions, channels, block, ld, y, channel_stride, bias);
    return;
  }
  for (std::int64_t p = 0; p < positions; ++p) {
    const T* row = block + p * ld;
    T* out = y + p * position_stride;
    if (channel_stride == 1) {
      for (std::int64_t c = 0; c < channels; ++c) out[c] = bias ? row[c] + bias[c] : row[c];
    } else {
      for (std::int64_t c = 0; c < channels; ++c) out[c * channel_stride] = bias ? row[c] + bias[c] : row[c];
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
