// The gradient of average pooling in gather form: each input adds up, in a fixed order, what the windows that touch
// it hand down. Where all of them have one divisor there is one division, of the sum.
#pragma once

#include "cpu/pool/strip.h"

namespace fastconv {
namespace {

// The windows along one axis that touch one input, with this axis's factor of their divisors.
template <class T>
struct Cover {
  Index* window;
  T* divisor;
  Index count;
  bool uniform;
  Index input, first, last;  // the input, and the windows that reach over it, whether a tap falls on it or not
};

template <class T>
FASTCONV_INLINE Cover<T> make_cover(Arena& arena, const PoolAxis& axis) {
  const Index most = smaller(axis.kernel, axis.out);
  Cover<T> cover;
  cover.window = arena.take<Index>(most);
  cover.divisor = arena.take<T>(most);
  cover.count = 0;
  cover.uniform = true;
  cover.input = -2;
  cover.first = cover.last = 0;
  return cover;
}

template <class T>
void list_cover(const PoolShape& shape, int i, Index u, Cover<T>& cover) {
  const PoolAxis& axis = shape.axis[i];
  cover.count = 0;
  cover.uniform = true;
  for (Index o = cover.first; o <= cover.last; ++o) {
    if (axis.dilation != 1 && (u - o * axis.stride) % axis.dilation != 0) continue;
    cover.window[cover.count] = o;
    cover.divisor[cover.count] = static_cast<T>(counted_taps(shape, i, o));
    cover.uniform = cover.uniform && cover.divisor[cover.count] == cover.divisor[0];
    ++cover.count;
  }
}

// Whether the windows are others than those of the input before: inputs mostly come in order, and neighbours have often
// the same.
template <class T>
FASTCONV_INLINE bool find_cover(const PoolShape& shape, int i, Index input, Cover<T>& cover) {
  const PoolAxis& axis = shape.axis[i];
  if (input == cover.input) return false;
  const Index u = input + axis.pad_before, reach = (axis.kernel - 1) * axis.dilation;
  if (input == cover.input + 1 && axis.dilation == 1) {
    const Index first = cover.first + (u - cover.first * axis.stride > reach ? 1 : 0);
    const Index last = cover.last + (cover.last < axis.out - 1 && u >= (cover.last + 1) * axis.stride ? 1 : 0);
    cover.input = input;
    if (first == cover.first && last == cover.last) return false;
    cover.first = first;
    cover.last = last;
  } else {
    cover.input = input;
    cover.first = u > reach ? (u - reach + axis.stride - 1) / axis.stride : 0;
    cover.last = smaller(u / axis.stride, axis.out - 1);
  }
  list_cover(shape, i, u, cover);
  return true;
}

template <class T>
struct WindowCovers {
  static FASTCONV_INLINE Cover<T> make(Arena& arena, const PoolAxis& axis) { return make_cover<T>(arena, axis); }
  static FASTCONV_INLINE bool find(const PoolShape& shape, int i, Index input, Cover<T>& cover) {
    return find_cover<T>(shape, i, input, cover);
  }
};

// Column u = input + pad_before = Q * stride + r gets, for each tap with (tap * dilation) % stride == r, the window
// Q - tap * dilation / stride: over Q these are contiguous loads from one row of windows, padded with zeros. The
// windows of several rows lie side by side, as the strips of the forward pass do.
template <class T>
struct GradientStrip {
  T *windows, *part, *gathered, *divisors, *result;
  Index begin;                  // window of windows[0]
  Index live_first, live_last;  // windows that exist
  Index quotient_first, quotients;
  Index pitch;  // windows from row to row
  Index rows;   // side by side
  T divisor;    // of every window; 0 where they differ
};

// The sum of what the windows hand down to W columns of one residue, of which `here` is the window with tap 0.
template <class T>
FASTCONV_INLINE Reg<T> sum_taps(const T* here, const PoolAxis& axis, Index residue) {
  Reg<T> sum = Reg<T>::zero();
  if (axis.dilation == 1) {
    for (Index tap = residue; tap < axis.kernel; tap += axis.stride, --here) sum = sum + Reg<T>::load(here);
    return sum;
  }
  Index row = 0;
  for (Index tap = 0; tap < axis.kernel; ++tap) {
    if (row == residue) sum = sum + Reg<T>::load(here);
    row += axis.dilation % axis.stride;
    here -= axis.dilation / axis.stride;
    if (row >= axis.stride) {
      row -= axis.stride;
      --here;
    }
  }
  return sum;
}

template <class T>
void spread_strip(const GradientStrip<T>& s, const PoolAxis& axis, Index quotients, T* out) {
  constexpr int W = Reg<T>::width;
  const Index stride = axis.stride;
  const T* const here = s.windows + (s.quotient_first - s.begin);
  const Reg<T> by = Reg<T>::broadcast(s.divisor != T(0) ? s.divisor : T(1));
  if (stride == 1) {
    for (Index q = 0; q < quotients; q += W) (sum_taps(here + q, axis, 0) / by).store(out + q);
  } else if (stride == 2) {
    for (Index q = 0; q < quotients; q += W) {
      const Reg<T> even = sum_taps(here + q, axis, 0) / by, odd = sum_taps(here + q, axis, 1) / by;
      interleave<0, T>(even, odd).store(out + 2 * q);
      interleave<1, T>(even, odd).store(out + 2 * q + W);
    }
  } else {
    for (Index residue = 0; residue < stride; ++residue)
      for (Index q = 0; q < quotients; q += W) {
        const Reg<T> sum = sum_taps(here + q, axis, residue) / by;
        for (int i = 0; i < W && q + i < quotients; ++i) out[(q + i) * stride + residue] = sum.v[i];
      }
  }
}

template <class T>
void prepare_gradient(const PoolTask& t, Arena& arena, GradientStrip<T>& s) {
  const PoolShape& shape = *t.shape;
  const PoolAxis& width = shape.axis[2];
  const Index u_first = t.col_first + width.pad_before, u_last = t.col_last + width.pad_before;
  const Index furthest = (width.kernel - 1) * width.dilation / width.stride;
  s.quotient_first = u_first / width.stride;
  s.quotients = (u_last - 1) / width.stride + 1 - s.quotient_first;
  s.begin = s.quotient_first - furthest;
  s.pitch = s.quotients + furthest;
  s.live_first = smaller(larger(s.begin, 0), width.out);
  s.live_last = larger(smaller(s.begin + s.pitch, width.out), s.live_first);
  const bool whole_rows = t.col_last - t.col_first == width.in;
  s.rows = whole_rows ? larger(1, smaller(kPoolStrip / (s.pitch * width.stride), t.last - t.first)) : 1;
  s.divisor = 0;
  if (counts_alike(shape, 0) && counts_alike(shape, 1) && counts_alike(shape, 2))
    s.divisor = static_cast<T>(counted_taps(shape, 0, 0) * counted_taps(shape, 1, 0) * counted_taps(shape, 2, 0));
  const Index live = s.live_last - s.live_first, windows = s.rows * s.pitch;
  s.windows = arena.take<T>(windows + 2 * kPoolSlack);
  s.part = arena.take<T>(live + kPoolSlack);
  s.gathered = arena.take<T>(live + kPoolSlack);
  s.divisors = arena.take<T>(live + kPoolSlack);
  s.result = arena.take<T>(((s.rows - 1) * s.pitch + s.quotients) * width.stride + 2 * kPoolSlack);
  for (Index j = 0; j < windows + 2 * kPoolSlack; ++j) s.windows[j] = T(0);
  for (Index o = 0; o < live + kPoolSlack && s.divisor == T(0); ++o)
    s.divisors[o] = o < live ? static_cast<T>(counted_taps(shape, 2, s.live_first + o)) : T(1);
}

// Where the windows' gradients come from, and what the sum of an input becomes: of average pooling both are as they
// are.
template <class T>
struct PlainGradient {
  static constexpr bool as_read = true;
  explicit PlainGradient(const PoolTask&) {}
  FASTCONV_INLINE void take(Arena&, Index) {}
  FASTCONV_INLINE void start(Index, Index, Index, Index, Index, Index) {}
  FASTCONV_INLINE Reg<T> window(Reg<T> g, Index, Index, Index, Index, bool) const { return g; }
  FASTCONV_INLINE Reg<T> along_row(Reg<T> sum, Index, Index) const { return sum; }
  FASTCONV_INLINE Reg<T> along_channels(Reg<T> sum, Index, bool) const { return sum; }
};

// sums[o] = what the output rows that touch an input row hand down, divided unless all windows have one divisor.
template <class T, class Source>
FASTCONV_INLINE void merge_cover(const PoolTask& t, const GradientStrip<T>& s, Source& source,
                                 RowMerger<T, Sum<T>>& merger, const T* x, const Cover<T>& cover_d,
                                 const Cover<T>& cover_h, T* sums) {
  constexpr int W = Reg<T>::width;
  const Index live = s.live_last - s.live_first;
  merger.dst = s.divisor != T(0) ? sums : s.part;
  merger.start();
  T divisor = 0;
  const auto close = [&] {  // divides the rows that have the same divisor
    merger.flush();
    for (Index o = 0; o < live && s.divisor == T(0); o += W) {
      const Reg<T> by = Reg<T>::load(s.divisors + o) * Reg<T>::broadcast(divisor);
      (Reg<T>::load(sums + o) + Reg<T>::load(s.part + o) / by).store(sums + o);
    }
    merger.start();
  };
  for (Index o = 0; o < live; o += W) Reg<T>::zero().store(sums + o);
  for (Index d = 0; d < cover_d.count; ++d)
    for (Index h = 0; h < cover_h.count; ++h) {
      const T own = cover_d.divisor[d] * cover_h.divisor[h];
      if (divisor != T(0) && own != divisor) close();
      divisor = own;
      const T* const row = x + cover_d.window[d] * t.x_stride[2] + cover_h.window[h] * t.x_stride[3];
      if constexpr (Source::as_read) {
        merger.add(row);
      } else {
        source.windows(row, cover_d.window[d], cover_h.window[h], live, s.gathered);
        merger.add_gathered();
      }
    }
  if (divisor != T(0)) close();
  Reg<T>::zero().store(sums + live);
}

template <class T, class Source>
void plane_window_backward(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Index columns = t.col_last - t.col_first;
  Arena arena{static_cast<char*>(t.scratch)};
  Cover<T> cover_d = make_cover<T>(arena, depth), cover_h = make_cover<T>(arena, height);
  GradientStrip<T> s;
  prepare_gradient(t, arena, s);
  const Index live = s.live_last - s.live_first;
  Source source(t);
  source.take(arena, live);
  RowMerger<T, Sum<T>> merger{Sum<T>(t), s.part, s.gathered, live, t.x_stride[4], static_cast<const T*>(t.x_end),
                              {},        0,      true};
  T* const y = static_cast<T*>(t.y);
  const T* const from = s.result + (t.col_first + width.pad_before - s.quotient_first * width.stride);
  Counter at = count_from(t.first, shape.channels, depth.in, height.in), done = at;
  for (Index r = t.first; r < t.last; r += s.rows) {
    const Index rows = smaller(s.rows, t.last - r);
    for (Index i = 0; i < rows; ++i, at.next()) {
      find_cover<T>(shape, 0, at.b, cover_d);
      find_cover<T>(shape, 1, at.c, cover_h);
      const T* x =
          static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] + s.live_first * t.x_stride[4];
      source.start(at.batch, at.a, at.b, at.c, t.col_first, s.live_first);
      merge_cover(t, s, source, merger, x, cover_d, cover_h, s.windows + i * s.pitch + (s.live_first - s.begin));
    }
    spread_strip(s, width, (rows - 1) * s.pitch + s.quotients, s.result);
    T* const to = y + r * width.in + t.col_first;
    const T* const end = columns == width.in ? y + t.last * width.in : to + columns;
    for (Index i = 0; i < rows; ++i, done.next()) {
      const T* const row = from + i * s.pitch * width.stride;
      source.start(done.batch, done.a, done.b, done.c, t.col_first, s.live_first);
      for (Index w = 0; w < columns; w += W)
        store_before(source.along_row(Reg<T>::load(row + w), w, columns), to + i * columns + w, end);
    }
  }
}

template <class T, int B, class Source>
FASTCONV_INLINE void lane_gather(const Source& source, const PoolTask& t, const T* x, Index c, const Cover<T>& cover_d,
                                 const Cover<T>& cover_h, const Cover<T>& cover_w, T* y, const T* y_end) {
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
        const T* p = row + cover_w.window[w] * t.x_stride[4] + c;
        const Reg<T> by = Reg<T>::broadcast(row_divisor * cover_w.divisor[w]);
        for (int b = 0; b < B; ++b) {
          const Reg<T> g = source.window(B > 1 ? Reg<T>::load(p + b * W) : load_before(p, x_end), cover_d.window[d],
                                         cover_h.window[h], cover_w.window[w], c + b * W, B > 1);
          acc[b] = acc[b] + (uniform ? g : g / by);
        }
      }
    }
  const Reg<T> by =
      Reg<T>::broadcast(uniform && any ? cover_d.divisor[0] * cover_h.divisor[0] * cover_w.divisor[0] : T(1));
  for (int b = 0; b < B; ++b) store_before(source.along_channels(acc[b] / by, c + b * W, B > 1), y + c + b * W, y_end);
}

template <class T, class Source, class Covers = WindowCovers<T>>
void lane_window_backward(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const Index channels = shape.channels;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  Arena arena{static_cast<char*>(t.scratch)};
  Cover<T> cover_d = Covers::make(arena, depth), cover_h = Covers::make(arena, height),
           cover_w = Covers::make(arena, width);
  Source source(t);
  T* const y = static_cast<T*>(t.y);
  const T* const y_end = y + t.last * channels;
  Counter at = count_from(t.first, depth.in, height.in, width.in);
  // What has the same windows has the same gradient, unless the input has a part in it: it is copied from the position
  // or the row before.
  const auto copy = [y, y_end, channels](Index to, Index distance, Index count) {
    const T* const from = y + (to - distance) * channels;
    for (Index j = 0; j < count * channels; j += W)
      store_before(load_before(from + j, y_end), y + to * channels + j, y_end);
  };
  Index sample = -1, same_from = t.first;
  for (Index p = t.first; p < t.last; ++p, at.next()) {
    if (at.c == 0 || p == t.first) {
      const bool other_d = Covers::find(shape, 0, at.a, cover_d), other_h = Covers::find(shape, 1, at.b, cover_h);
      if (at.batch != sample || other_d || other_h) same_from = p;
      sample = at.batch;
      if (Source::as_read && p - width.in >= same_from && p + width.in <= t.last) {
        copy(p, width.in, width.in);
        p += width.in - 1;
        at.c = width.in - 1;
        continue;
      }
    }
    if (!Covers::find(shape, 2, at.c, cover_w) && Source::as_read && at.c > 0 && p > t.first) {
      copy(p, 1, 1);
      continue;
    }
    source.start(at.batch, 0, at.a, at.b, at.c, 0);
    const T* x = static_cast<const T*>(t.x) + at.batch * t.x_stride[0];
    T* const out = y + p * channels;
    Index c = 0;
    for (; c + 4 * W <= channels; c += 4 * W) lane_gather<T, 4>(source, t, x, c, cover_d, cover_h, cover_w, out, y_end);
    for (; c + 2 * W <= channels; c += 2 * W) lane_gather<T, 2>(source, t, x, c, cover_d, cover_h, cover_w, out, y_end);
    for (; c < channels; c += W) lane_gather<T, 1>(source, t, x, c, cover_d, cover_h, cover_w, out, y_end);
  }
}

}  // namespace
}  // namespace fastconv
