// Global pooling: chunks of a plane are reduced in registers; the sums of chunks are added in float64. Bound by reading
// the input once, from 8x8 planes upwards.
#pragma once

#include "cpu/pool/rows.h"

namespace fastconv {
namespace {

// The planes of a task one after the other, each as rows as long as memory allows.
template <class T>
struct Planes {
  const T *x, *x_end;
  Index channel, channels;
  Index plane_step[2];  // from sample to sample and from channel to channel
  Index size[3], step[3];
  bool whole;  // a plane is one chunk

  explicit Planes(const PoolTask& t)
      : x(static_cast<const T*>(t.x)),
        x_end(static_cast<const T*>(t.x_end)),
        channel(t.first % t.shape->channels),
        channels(t.shape->channels),
        plane_step{t.x_stride[0], t.x_stride[1]} {
    x += t.first / channels * plane_step[0] + channel * plane_step[1];
    for (int i = 0; i < 3; ++i) {
      size[i] = t.shape->axis[i].in;
      step[i] = t.x_stride[2 + i];
    }
    // Rows that follow each other in memory are one long row.
    if (step[1] == size[2] * step[2] || size[1] == 1) {
      size[2] *= size[1];
      size[1] = 1;
      if (step[0] == size[2] * step[2] || size[0] == 1) {
        size[2] *= size[0];
        size[0] = 1;
      }
    }
    whole = size[0] == 1 && size[1] == 1 && size[2] <= kPoolChunk && step[2] == 1;
  }

  FASTCONV_INLINE void next() {
    x += plane_step[1];
    if (++channel < channels) return;
    channel = 0;
    x += plane_step[0] - channels * plane_step[1];
  }

  // visit(chunk, count, end of what may be read, flat position of the first)
  template <class Visit>
  FASTCONV_INLINE void for_chunks(T* gathered, Visit&& visit) const {
    if (whole) return visit(x, size[2], x_end, Index(0));
    Index position = 0;
    for (Index d = 0; d < size[0]; ++d)
      for (Index h = 0; h < size[1]; ++h) {
        const T* row = x + d * step[0] + h * step[1];
        for (Index w = 0; w < size[2]; w += kPoolChunk) {
          const Index count = smaller(kPoolChunk, size[2] - w);
          const T* p = row + w * step[2];
          if (step[2] == 1) {
            visit(p, count, x_end, position);
          } else {
            for (Index j = 0; j < count; ++j) gathered[j] = p[j * step[2]];
            visit(gathered, count, gathered + count, position);
          }
          position += count;
        }
      }
  }
};

// A chunk reduced in four registers, then across their lanes by halves.
template <class T, class Op>
FASTCONV_INLINE T reduce_chunk(const T* p, Index count, const T* end) {
  constexpr int W = Reg<T>::width;
  const Reg<T> identity = Reg<T>::broadcast(Op::identity());
  Reg<T> acc[4] = {identity, identity, identity, identity};
  Index j = 0;
  for (; j + 4 * W <= count; j += 4 * W)
    for (int b = 0; b < 4; ++b) acc[b] = Op::combine(acc[b], Reg<T>::load(p + j + b * W));
  for (int b = 0; b < 3; ++b, j += W) {
    if (j + W > count) break;
    acc[b] = Op::combine(acc[b], Reg<T>::load(p + j));
  }
  if (j < count) {
    const Reg<T> rest = load_before(p + j, end);
    acc[3] = Op::combine(acc[3], Reg<T>::select(lanes_before<T>(count - j), rest, identity));
  }
  Reg<T> all = Op::combine(Op::combine(acc[0], acc[1]), Op::combine(acc[2], acc[3]));
  if constexpr (W > 8) all = Op::combine(all, all.template exchange<8 % W>());
  if constexpr (W > 4) all = Op::combine(all, all.template exchange<4 % W>());
  if constexpr (W > 2) all = Op::combine(all, all.template exchange<2 % W>());
  return Op::combine(all, all.template exchange<1>()).v[0];
}

template <class T>
void plane_global_avg(const PoolTask& t) {
  const PoolShape& shape = *t.shape;
  const double positions = static_cast<double>(shape.axis[0].in * shape.axis[1].in * shape.axis[2].in);
  Planes<T> planes(t);
  for (Index plane = t.first; plane < t.last; ++plane, planes.next()) {
    double total = 0;
    planes.for_chunks(static_cast<T*>(t.scratch), [&](const T* p, Index count, const T* end, Index) {
      total += static_cast<double>(reduce_chunk<T, Sum<T>>(p, count, end));
    });
    static_cast<T*>(t.y)[plane] = static_cast<T>(total / positions);
  }
}

template <class T>
void plane_global_max(const PoolTask& t) {
  Planes<T> planes(t);
  for (Index plane = t.first; plane < t.last; ++plane, planes.next()) {
    T best = Max<T>::identity();
    Index place = 0;
    planes.for_chunks(static_cast<T*>(t.scratch), [&](const T* p, Index count, const T* end, Index position) {
      const T most = reduce_chunk<T, Max<T>>(p, count, end);
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

// total[c] += the sum over `count` positions, `step` apart, of B registers of channels.
template <class T, int B>
FASTCONV_INLINE void add_positions(const T* p, Index count, Index step, const T* end, double* total) {
  constexpr int W = Reg<T>::width;
  typedef double wide __attribute__((vector_size(8 * W)));
  Reg<T> acc[B];
  for (int b = 0; b < B; ++b) acc[b] = Reg<T>::zero();
  for (Index j = 0; j < count; ++j, p += step)
    for (int b = 0; b < B; ++b) acc[b] = acc[b] + (B > 1 ? Reg<T>::load(p + b * W) : load_before(p, end));
  for (int b = 0; b < B; ++b) {
    wide sum;
    memcpy(&sum, total + b * W, sizeof sum);
    sum += __builtin_convertvector(acc[b].v, wide);
    memcpy(total + b * W, &sum, sizeof sum);
  }
}

// The channels of a sample side by side. `total` needs kPoolSlack beyond the task's channels, which the caller keeps to
// at most kPoolChunk / 4.
template <class T>
void lane_global_avg(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  constexpr Index kRun = 256;  // positions added in the arrays' dtype
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const double positions = static_cast<double>(depth.in * height.in * width.in);
  const T* const x_end = static_cast<const T*>(t.x_end);
  const Index channels = t.col_last - t.col_first;
  double* const total = Arena{static_cast<char*>(t.scratch)}.take<double>(channels + kPoolSlack);
  for (Index sample = t.first; sample < t.last; ++sample) {
    const T* x = static_cast<const T*>(t.x) + sample * t.x_stride[0] + t.col_first;
    for (Index c = 0; c < channels + kPoolSlack; ++c) total[c] = 0;
    for (Index d = 0; d < depth.in; ++d)
      for (Index h = 0; h < height.in; ++h)
        for (Index w = 0; w < width.in; w += kRun) {
          const Index count = smaller(kRun, width.in - w), step = t.x_stride[4];
          const T* row = x + d * t.x_stride[2] + h * t.x_stride[3] + w * step;
          Index c = 0;
          for (; c + 4 * W <= channels; c += 4 * W) add_positions<T, 4>(row + c, count, step, x_end, total + c);
          for (; c < channels; c += W) add_positions<T, 1>(row + c, count, step, x_end, total + c);
        }
    T* const y = static_cast<T*>(t.y) + sample * shape.channels + t.col_first;
    for (Index c = 0; c < channels; ++c) y[c] = static_cast<T>(total[c] / positions);
  }
}

}  // namespace
}  // namespace fastconv
