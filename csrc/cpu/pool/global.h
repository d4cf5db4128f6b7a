// Global pooling: chunks of a plane are reduced in registers; the sums of chunks are added in float64.
#pragma once

#include "cpu/pool/generic.h"

namespace fastconv {
namespace {

// The plane as contiguous chunks: visit(pointer, count, flat position of the first).
template <class T, class Visit>
FASTCONV_INLINE void for_chunks(const PoolTask& t, const T* plane, T* gathered, Visit&& visit) {
  const PoolShape& shape = *t.shape;
  Index size[3] = {shape.axis[0].in, shape.axis[1].in, shape.axis[2].in};
  Index step[3] = {t.x_stride[2], t.x_stride[3], t.x_stride[4]};
  // Rows that follow each other in memory are one long row.
  if (step[1] == size[2] * step[2] || size[1] == 1) {
    size[2] *= size[1];
    size[1] = 1;
    if (step[0] == size[2] * step[2] || size[0] == 1) {
      size[2] *= size[0];
      size[0] = 1;
    }
  }
  Index position = 0;
  for (Index d = 0; d < size[0]; ++d)
    for (Index h = 0; h < size[1]; ++h) {
      const T* row = plane + d * step[0] + h * step[1];
      for (Index w = 0; w < size[2]; w += kPoolChunk) {
        const Index count = smaller(kPoolChunk, size[2] - w);
        const T* p = row + w * step[2];
        if (step[2] != 1) {
          for (Index j = 0; j < count; ++j) gathered[j] = p[j * step[2]];
          p = gathered;
        }
        visit(p, count, position);
        position += count;
      }
    }
}

// A chunk reduced in four registers, then across their lanes by halves, then with what is left of the chunk.
template <class T, class Op>
FASTCONV_INLINE T reduce_chunk(const T* p, Index count) {
  constexpr int W = Reg<T>::width;
  Reg<T> acc[4];
  for (int b = 0; b < 4; ++b) acc[b] = Reg<T>::broadcast(Op::identity());
  Index j = 0;
  for (; j + 4 * W <= count; j += 4 * W)
    for (int b = 0; b < 4; ++b) acc[b] = Op::combine(acc[b], Reg<T>::load(p + j + b * W));
  for (; j + W <= count; j += W) acc[0] = Op::combine(acc[0], Reg<T>::load(p + j));
  T lanes[W];
  Op::combine(Op::combine(acc[0], acc[1]), Op::combine(acc[2], acc[3])).store(lanes);
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] = Op::combine(lanes[i], lanes[i + half]);
  for (; j < count; ++j) lanes[0] = Op::combine(lanes[0], p[j]);
  return lanes[0];
}

template <class T>
void plane_global_avg(const PoolTask& t) {
  const PoolShape& shape = *t.shape;
  const double positions = static_cast<double>(shape.axis[0].in * shape.axis[1].in * shape.axis[2].in);
  for (Index plane = t.first; plane < t.last; ++plane) {
    const T* x =
        static_cast<const T*>(t.x) + plane / shape.channels * t.x_stride[0] + plane % shape.channels * t.x_stride[1];
    double total = 0;
    for_chunks(t, x, static_cast<T*>(t.scratch), [&](const T* p, Index count, Index) {
      total += static_cast<double>(reduce_chunk<T, Sum<T>>(p, count));
    });
    static_cast<T*>(t.y)[plane] = static_cast<T>(total / positions);
  }
}

template <class T>
void plane_global_max(const PoolTask& t) {
  const PoolShape& shape = *t.shape;
  for (Index plane = t.first; plane < t.last; ++plane) {
    const T* x =
        static_cast<const T*>(t.x) + plane / shape.channels * t.x_stride[0] + plane % shape.channels * t.x_stride[1];
    T best = Max<T>::identity();
    Index place = 0;
    for_chunks(t, x, static_cast<T*>(t.scratch), [&](const T* p, Index count, Index position) {
      const T most = reduce_chunk<T, Max<T>>(p, count);
      if (!Max<T>::better(most, best)) return;
      best = most;
      if (!t.indices) return;
      if (most != most) {
        for (Index j = 0; j < count; ++j)
          if (p[j] != p[j]) place = position + j;
        return;
      }
      Index j = 0;
      while (p[j] != most) ++j;
      place = position + j;
    });
    static_cast<T*>(t.y)[plane] = best;
    if (t.indices) t.indices[plane] = place;
  }
}

// Channels [col_first, col_last), which the caller keeps to at most kPoolChunk / 4.
template <class T>
void lane_global_avg(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  constexpr Index kRun = 256;  // positions added in the arrays' dtype
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const double positions = static_cast<double>(depth.in * height.in * width.in);
  const T* const x_end = static_cast<const T*>(t.x_end);
  const Index channels = t.col_last - t.col_first;
  Arena arena{static_cast<char*>(t.scratch)};
  double* const total = arena.take<double>(channels + kPoolSlack);
  T* const run = arena.take<T>(channels + kPoolSlack);
  const auto flush = [&] {
    for (Index c = 0; c < channels; ++c) total[c] += static_cast<double>(run[c]);
    for (Index c = 0; c < channels; ++c) run[c] = T(0);
  };
  for (Index sample = t.first; sample < t.last; ++sample) {
    const T* x = static_cast<const T*>(t.x) + sample * t.x_stride[0] + t.col_first;
    for (Index c = 0; c < channels; ++c) total[c] = 0, run[c] = T(0);
    for (Index d = 0; d < depth.in; ++d)
      for (Index h = 0; h < height.in; ++h)
        for (Index w = 0; w < width.in; w += kRun) {
          const Index count = smaller(kRun, width.in - w);
          const T* row = x + d * t.x_stride[2] + h * t.x_stride[3] + w * t.x_stride[4];
          for (Index c = 0; c < channels; c += W) {
            Reg<T> acc = Reg<T>::zero();
            const T* p = row + c;
            for (Index j = 0; j < count; ++j, p += t.x_stride[4]) acc = acc + load_before(p, x_end);
            acc.store(run + c);
          }
          flush();
        }
    T* const y = static_cast<T*>(t.y) + sample * shape.channels + t.col_first;
    for (Index c = 0; c < channels; ++c) y[c] = static_cast<T>(total[c] / positions);
  }
}

}  // namespace
}  // namespace fastconv
