// Window pooling with the vector along C: each output position walks the taps inside the input, four registers of
// channels at a time.
#pragma once

#include "cpu/pool/generic.h"

namespace fastconv {
namespace {

// The taps of one window, as pointers to a position's channels.
template <class T>
struct Taps {
  const T* first;
  Index count[3];
  Index step[3];    // elements from tap to tap
  Index offset[3];  // the same in flat positions
};

template <class T, class Op, int B>
FASTCONV_INLINE void lane_block(const Op& op, const Taps<T>& taps, Index c, const T* x_end, T divisor, T* y,
                                const T* y_end) {
  constexpr int W = Reg<T>::width;
  Reg<T> acc[B];
  for (int b = 0; b < B; ++b) acc[b] = Reg<T>::broadcast(Op::identity());
  for (Index d = 0; d < taps.count[0]; ++d)
    for (Index h = 0; h < taps.count[1]; ++h) {
      const T* p = taps.first + d * taps.step[0] + h * taps.step[1] + c;
      for (Index w = 0; w < taps.count[2]; ++w, p += taps.step[2])
        for (int b = 0; b < B; ++b)
          acc[b] = Op::combine(acc[b], op.take(B > 1 ? Reg<T>::load(p + b * W) : load_before(p, x_end)));
    }
  for (int b = 0; b < B; ++b) {
    if (!Op::extreme) acc[b] = op.finish(acc[b] / Reg<T>::broadcast(divisor));
    store_before(acc[b], y + c + b * W, y_end);
  }
}

template <class T, class Op, int B>
FASTCONV_INLINE void lane_block_indices(const Taps<T>& taps, Index c, const T* x_end, Index base, T* y, const T* y_end,
                                        int64_t* indices, const int64_t* indices_end) {
  constexpr int W = Reg<T>::width;
  Reg<T> best[B];
  typename Reg<T>::mask offset[B];
  for (int b = 0; b < B; ++b) {
    best[b] = Reg<T>::broadcast(Op::identity());
    offset[b] = broadcast_offset<T>(0);
  }
  for (Index d = 0; d < taps.count[0]; ++d)
    for (Index h = 0; h < taps.count[1]; ++h) {
      const T* p = taps.first + d * taps.step[0] + h * taps.step[1] + c;
      const Index row = d * taps.offset[0] + h * taps.offset[1];
      for (Index w = 0; w < taps.count[2]; ++w, p += taps.step[2]) {
        const typename Reg<T>::mask here = broadcast_offset<T>(row + w * taps.offset[2]);
        for (int b = 0; b < B; ++b) {
          const Reg<T> x = B > 1 ? Reg<T>::load(p + b * W) : load_before(p, x_end);
          const typename Reg<T>::mask take = Op::better(x, best[b]);
          best[b] = Reg<T>::select(take, x, best[b]);
          offset[b] = take ? here : offset[b];
        }
      }
    }
  for (int b = 0; b < B; ++b) {
    store_before(best[b], y + c + b * W, y_end);
    store_positions<T>(offset[b], base, 0, indices + c + b * W, indices_end);
  }
}

template <class T, class Op>
void lane_pool(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Index channels = shape.channels;
  const Op op(t);
  const T* const x_end = static_cast<const T*>(t.x_end);
  T* const y = static_cast<T*>(t.y);
  const T* const y_end = y + t.last * channels;
  const int64_t* const indices_end = t.indices ? t.indices + t.last * channels : nullptr;
  Taps<T> taps;
  taps.offset[0] = depth.dilation * height.in * width.in;
  taps.offset[1] = height.dilation * width.in;
  taps.offset[2] = width.dilation;
  for (int i = 0; i < 3; ++i) taps.step[i] = shape.axis[i].dilation * t.x_stride[2 + i];
  Live at_d{0, 0}, at_h{0, 0};
  Index row_count = 1;
  Counter at = count_from(t.first, depth.out, height.out, width.out);
  for (Index p = t.first; p < t.last; ++p, at.next()) {
    const Index ow = at.c;
    if (ow == 0 || p == t.first) {
      at_d = live_taps(depth, at.a);
      at_h = live_taps(height, at.b);
      if (!Op::extreme) row_count = counted_taps(shape, 0, at.a) * counted_taps(shape, 1, at.b);
    }
    const Live at_w = live_taps(width, ow);
    taps.count[0] = at_d.count;
    taps.count[1] = at_h.count;
    taps.count[2] = at_w.count;
    taps.first = static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at_d.first * t.x_stride[2] +
                 at_h.first * t.x_stride[3] + at_w.first * t.x_stride[4];
    T* const out = y + p * channels;
    Index c = 0;
    if (Op::extreme && t.indices) {
      if constexpr (Op::extreme) {
        const Index base = (at_d.first * height.in + at_h.first) * width.in + at_w.first;
        int64_t* const places = t.indices + p * channels;
        for (; c + 4 * W <= channels; c += 4 * W)
          lane_block_indices<T, Op, 4>(taps, c, x_end, base, out, y_end, places, indices_end);
        for (; c < channels; c += W)
          lane_block_indices<T, Op, 1>(taps, c, x_end, base, out, y_end, places, indices_end);
      }
      continue;
    }
    const T divisor = Op::extreme ? T(1) : static_cast<T>(row_count * counted_taps(shape, 2, ow));
    for (; c + 4 * W <= channels; c += 4 * W) lane_block<T, Op, 4>(op, taps, c, x_end, divisor, out, y_end);
    for (; c < channels; c += W) lane_block<T, Op, 1>(op, taps, c, x_end, divisor, out, y_end);
  }
}

}  // namespace
}  // namespace fastconv
