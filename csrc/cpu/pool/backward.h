// The gradient of average pooling in gather form: each input adds up, in a fixed order, what the windows that touch
// it hand down. Where all of them have one divisor there is one division, of the sum.
#pragma once

#include "cpu/pool/rows.h"

namespace fastconv {
namespace {

// The windows along one axis that touch one input, with this axis's factor of their divisors.
template <class T>
struct Cover {
  Index* window;
  T* divisor;
  Index count;
  bool uniform;
};

template <class T>
FASTCONV_INLINE Cover<T> make_cover(Arena& arena, const PoolAxis& axis) {
  const Index most = smaller(axis.kernel, axis.out);
  Cover<T> cover;
  cover.window = arena.take<Index>(most);
  cover.divisor = arena.take<T>(most);
  cover.count = 0;
  cover.uniform = true;
  return cover;
}

template <class T>
void find_cover(const PoolShape& shape, int i, Index input, Cover<T>& cover) {
  const PoolAxis& axis = shape.axis[i];
  const Index u = input + axis.pad_before, reach = (axis.kernel - 1) * axis.dilation;
  const Index first = u > reach ? (u - reach + axis.stride - 1) / axis.stride : 0;
  const Index last = smaller(u / axis.stride, axis.out - 1);
  cover.count = 0;
  cover.uniform = true;
  for (Index o = first; o <= last; ++o) {
    if (axis.dilation != 1 && (u - o * axis.stride) % axis.dilation != 0) continue;
    cover.window[cover.count] = o;
    cover.divisor[cover.count] = static_cast<T>(counted_taps(shape, i, o));
    cover.uniform = cover.uniform && cover.divisor[cover.count] == cover.divisor[0];
    ++cover.count;
  }
}

// Column u = input + pad_before = Q * stride + r gets, for each tap with (tap * dilation) % stride == r, the window
// Q - tap * dilation / stride: over Q these are contiguous loads from one row of windows, padded with zeros.
template <class T>
struct GradientRow {
  T *windows, *part, *gathered, *divisors, *result;
  Index begin;                  // window of windows[0]
  Index live_first, live_last;  // windows that exist
  Index quotient_first, quotients;
};

template <class T>
void spread_row(const GradientRow<T>& s, const PoolAxis& axis, T* out) {
  constexpr int W = Reg<T>::width;
  const Index stride = axis.stride;
  for (Index residue = 0; residue < stride; ++residue) {
    // By pairs where the stride is two, so that a whole register of results is stored at once.
    const Index residues = stride == 2 ? 2 : 1;
    for (Index q = 0; q < s.quotients; q += W) {
      Reg<T> sum[2] = {Reg<T>::zero(), Reg<T>::zero()};
      Index row = 0, back = 0;
      const T* const here = s.windows + (s.quotient_first - s.begin) + q;
      for (Index tap = 0; tap < axis.kernel; ++tap) {
        if (residues == 2)
          sum[row] = sum[row] + Reg<T>::load(here - back);
        else if (row == residue)
          sum[0] = sum[0] + Reg<T>::load(here - back);
        row += axis.dilation % stride;
        back += axis.dilation / stride;
        if (row >= stride) {
          row -= stride;
          ++back;
        }
      }
      if (stride == 1) {
        sum[0].store(out + q);
      } else if (residues == 2) {
        interleave<0, T>(sum[0], sum[1]).store(out + 2 * q);
        interleave<1, T>(sum[0], sum[1]).store(out + 2 * q + W);
      } else {
        for (int i = 0; i < W && q + i < s.quotients; ++i) out[(q + i) * stride + residue] = sum[0].v[i];
      }
    }
    if (residues == 2) break;
  }
}

template <class T>
void plane_avg_backward(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Index columns = t.col_last - t.col_first;
  const Index u_first = t.col_first + width.pad_before, u_last = t.col_last + width.pad_before;
  const Index furthest = (width.kernel - 1) * width.dilation / width.stride;
  GradientRow<T> s;
  s.quotient_first = u_first / width.stride;
  s.quotients = (u_last - 1) / width.stride + 1 - s.quotient_first;
  s.begin = s.quotient_first - furthest;
  const Index span = s.quotients + furthest;
  s.live_first = smaller(larger(s.begin, 0), width.out);
  s.live_last = larger(smaller(s.begin + span, width.out), s.live_first);
  const Index live = s.live_last - s.live_first;
  Arena arena{static_cast<char*>(t.scratch)};
  s.windows = arena.take<T>(span + 2 * kPoolSlack);
  s.part = arena.take<T>(live + kPoolSlack);
  s.gathered = arena.take<T>(live + kPoolSlack);
  s.divisors = arena.take<T>(live + kPoolSlack);
  s.result = arena.take<T>(s.quotients * width.stride + 2 * kPoolSlack);
  Cover<T> cover_d = make_cover<T>(arena, depth), cover_h = make_cover<T>(arena, height);
  for (Index j = 0; j < span + 2 * kPoolSlack; ++j) s.windows[j] = T(0);
  for (Index o = 0; o < live + kPoolSlack; ++o)
    s.divisors[o] = o < live ? static_cast<T>(counted_taps(shape, 2, s.live_first + o)) : T(1);
  RowMerger<T, Sum<T>> merger{s.part, s.gathered, live, t.x_stride[4], static_cast<const T*>(t.x_end), {}, 0, true};
  T* const y = static_cast<T*>(t.y);
  T* const sums = s.windows + (s.live_first - s.begin);
  const bool whole_rows = columns == width.in;
  Counter at = count_from(t.first, shape.channels, depth.in, height.in);
  for (Index r = t.first; r < t.last; ++r, at.next()) {
    if (r == t.first || at.c == 0) find_cover<T>(shape, 0, at.b, cover_d);
    find_cover<T>(shape, 1, at.c, cover_h);
    const T* x =
        static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] + s.live_first * t.x_stride[4];
    for (Index o = 0; o < live; o += W) Reg<T>::zero().store(sums + o);
    T divisor = 0;
    merger.start();
    const auto close = [&] {  // divides the rows that have the same divisor
      merger.flush();
      for (Index o = 0; o < live; o += W) {
        const Reg<T> by = Reg<T>::load(s.divisors + o) * Reg<T>::broadcast(divisor);
        (Reg<T>::load(sums + o) + Reg<T>::load(s.part + o) / by).store(sums + o);
      }
      merger.start();
    };
    for (Index d = 0; d < cover_d.count; ++d)
      for (Index h = 0; h < cover_h.count; ++h) {
        const T own = cover_d.divisor[d] * cover_h.divisor[h];
        if (divisor != T(0) && own != divisor) close();
        divisor = own;
        merger.add(x + cover_d.window[d] * t.x_stride[2] + cover_h.window[h] * t.x_stride[3]);
      }
    if (divisor != T(0)) close();
    Reg<T>::zero().store(sums + live);
    spread_row(s, width, s.result);
    const T* const from = s.result + (u_first - s.quotient_first * width.stride);
    T* const to = y + r * width.in + t.col_first;
    const T* const end = whole_rows ? y + t.last * width.in : to + columns;
    for (Index w = 0; w < columns; w += W) store_before(Reg<T>::load(from + w), to + w, end);
  }
}

template <class T, int B>
FASTCONV_INLINE void lane_gather(const PoolTask& t, const T* x, const Cover<T>& cover_d, const Cover<T>& cover_h,
                                 const Cover<T>& cover_w, T* y, const T* y_end) {
  constexpr int W = Reg<T>::width;
  const T* const x_end = static_cast<const T*>(t.x_end);
  const bool uniform = cover_d.uniform && cover_h.uniform && cover_w.uniform;
  const bool any = cover_d.count > 0 && cover_h.count > 0 && cover_w.count > 0;
  Reg<T> acc[B];
  for (int b = 0; b < B; ++b) acc[b] = Reg<T>::zero();
  for (Index d = 0; d < cover_d.count; ++d)
    for (Index h = 0; h < cover_h.count; ++h) {
      const T* row = x + cover_d.window[d] * t.x_stride[2] + cover_h.window[h] * t.x_stride[3];
      const T row_divisor = cover_d.divisor[d] * cover_h.divisor[h];
      for (Index w = 0; w < cover_w.count; ++w) {
        const T* p = row + cover_w.window[w] * t.x_stride[4];
        const Reg<T> by = Reg<T>::broadcast(row_divisor * cover_w.divisor[w]);
        for (int b = 0; b < B; ++b) {
          const Reg<T> g = B > 1 ? Reg<T>::load(p + b * W) : load_before(p, x_end);
          acc[b] = acc[b] + (uniform ? g : g / by);
        }
      }
    }
  const Reg<T> by =
      Reg<T>::broadcast(uniform && any ? cover_d.divisor[0] * cover_h.divisor[0] * cover_w.divisor[0] : T(1));
  for (int b = 0; b < B; ++b) store_before(acc[b] / by, y + b * W, y_end);
}

template <class T>
void lane_avg_backward(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const Index channels = shape.channels;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  Arena arena{static_cast<char*>(t.scratch)};
  Cover<T> cover_d = make_cover<T>(arena, depth), cover_h = make_cover<T>(arena, height),
           cover_w = make_cover<T>(arena, width);
  T* const y = static_cast<T*>(t.y);
  const T* const y_end = y + t.last * channels;
  Counter at = count_from(t.first, depth.in, height.in, width.in);
  for (Index p = t.first; p < t.last; ++p, at.next()) {
    if (at.c == 0 || p == t.first) {
      find_cover<T>(shape, 0, at.a, cover_d);
      find_cover<T>(shape, 1, at.b, cover_h);
    }
    find_cover<T>(shape, 2, at.c, cover_w);
    const T* x = static_cast<const T*>(t.x) + at.batch * t.x_stride[0];
    T* const out = y + p * channels;
    Index c = 0;
    for (; c + 4 * W <= channels; c += 4 * W) lane_gather<T, 4>(t, x + c, cover_d, cover_h, cover_w, out + c, y_end);
    for (; c < channels; c += W) lane_gather<T, 1>(t, x + c, cover_d, cover_h, cover_w, out + c, y_end);
  }
}

}  // namespace
}  // namespace fastconv
