// Rows of a plane: merging input rows into one scratch row, and splitting a row by the phase of its columns, so that
// every tap of a strided window becomes a contiguous load.
#pragma once

#include "cpu/pool/generic.h"

namespace fastconv {
namespace {

template <class T>
FASTCONV_INLINE typename Reg<T>::mask lanes_before(Index count) {
  typename Reg<T>::mask lane;
  for (int i = 0; i < Reg<T>::width; ++i) lane[i] = i;
  return lane < broadcast_offset<T>(smaller(count, Reg<T>::width));
}

// dst[j] = the reduction of (dst[j], unless fresh, and) R source rows; the last register is filled up with identities.
template <class T, class Op, int R>
FASTCONV_INLINE void merge_fixed(const Op& op, T* dst, const T* const* sources, const T* end, Index n, bool fresh) {
  constexpr int W = Reg<T>::width;
  const T *s0 = sources[0], *s1 = R > 1 ? sources[1] : s0, *s2 = R > 2 ? sources[2] : s0, *s3 = R > 3 ? sources[3] : s0;
  Index j = 0;
  for (; j + W <= n; j += W) {
    Reg<T> acc = op.take(Reg<T>::load(s0 + j));
    if (!fresh) acc = Op::combine(Reg<T>::load(dst + j), acc);
    if (R > 1) acc = Op::combine(acc, op.take(Reg<T>::load(s1 + j)));
    if (R > 2) acc = Op::combine(acc, op.take(Reg<T>::load(s2 + j)));
    if (R > 3) acc = Op::combine(acc, op.take(Reg<T>::load(s3 + j)));
    acc.store(dst + j);
  }
  if (j < n) {
    Reg<T> acc = op.take(load_before(s0 + j, end));
    if (!fresh) acc = Op::combine(Reg<T>::load(dst + j), acc);
    if (R > 1) acc = Op::combine(acc, op.take(load_before(s1 + j, end)));
    if (R > 2) acc = Op::combine(acc, op.take(load_before(s2 + j, end)));
    if (R > 3) acc = Op::combine(acc, op.take(load_before(s3 + j, end)));
    Reg<T>::select(lanes_before<T>(n - j), acc, Reg<T>::broadcast(Op::identity())).store(dst + j);
  }
}

// Merges rows handed in one at a time, four in a pass. Rows without unit stride are gathered first.
template <class T, class Op>
struct RowMerger {
  Op op;
  T* dst;
  T* gathered;  // room for one row
  Index n;
  Index step;  // of a row's elements
  const T* end;
  const T* pending[4];
  int waiting;
  bool fresh;

  FASTCONV_INLINE void start() {
    waiting = 0;
    fresh = true;
  }
  FASTCONV_INLINE void add(const T* row) {
    if (step != 1) {
      for (Index j = 0; j < n; ++j) gathered[j] = row[j * step];
      add_gathered();
      return;
    }
    pending[waiting++] = row;
    if (waiting == 4) flush();
  }
  void add_gathered() {
    const T* one[1] = {gathered};
    merge_fixed<T, Op, 1>(op, dst, one, gathered + n + kPoolSlack, n, fresh);
    fresh = false;
  }
  // All of a row's sources at once, which lie `distance` apart in memory.
  FASTCONV_INLINE void take(const T* row, Index distance, Index count) {
    bool first = true;
    for (; count > 4; count -= 4, row += 4 * distance, first = false) take_fixed<4>(row, distance, first);
    if (count == 1) take_fixed<1>(row, distance, first);
    if (count == 2) take_fixed<2>(row, distance, first);
    if (count == 3) take_fixed<3>(row, distance, first);
    if (count == 4) take_fixed<4>(row, distance, first);
  }
  template <int R>
  FASTCONV_INLINE void take_fixed(const T* row, Index distance, bool first) {
    const T* const sources[4] = {row, row + distance, row + 2 * distance, row + 3 * distance};
    merge_fixed<T, Op, R>(op, dst, sources, end, n, first);
  }
  void flush() {
    if (waiting == 1) merge_fixed<T, Op, 1>(op, dst, pending, end, n, fresh);
    if (waiting == 2) merge_fixed<T, Op, 2>(op, dst, pending, end, n, fresh);
    if (waiting == 3) merge_fixed<T, Op, 3>(op, dst, pending, end, n, fresh);
    if (waiting == 4) merge_fixed<T, Op, 4>(op, dst, pending, end, n, fresh);
    fresh = fresh && waiting == 0;
    waiting = 0;
  }
};

// How the columns of a padded row are laid out for a window: tap t of output o is at rows + offset of tap t + o.
// With fewer taps than the stride each tap has a row of its own, else each residue of the column has one.
struct Phases {
  Index stride, dilation, kernel, outputs, span;
  Index pitch;
  bool by_tap;

  FASTCONV_INLINE Index rows() const { return stride == 1 ? 0 : by_tap ? kernel : stride; }
};

FASTCONV_INLINE Phases make_phases(const PoolAxis& axis, Index outputs, Index span) {
  Phases p;
  p.stride = outputs == 1 ? 1 : axis.stride;
  p.dilation = axis.dilation;
  p.kernel = axis.kernel;
  p.outputs = outputs;
  p.span = span;
  p.by_tap = p.kernel < p.stride;
  p.pitch = (p.by_tap ? outputs : span / p.stride + 1) + kPoolSlack;
  return p;
}

// Walks the taps of a window: offset() is the current tap's place.
struct TapCursor {
  Index row, column, pitch, row_step, column_step, rows;
  FASTCONV_INLINE Index offset() const { return row * pitch + column; }
  FASTCONV_INLINE void next() {
    row += row_step;
    column += column_step;
    if (row >= rows) {
      row -= rows;
      ++column;
    }
  }
};

FASTCONV_INLINE TapCursor taps_of(const Phases& p) {
  if (p.stride == 1) return TapCursor{0, 0, 0, 0, p.dilation, 1};
  if (p.by_tap) return TapCursor{0, 0, p.pitch, 1, 0, p.kernel + 1};
  return TapCursor{0, 0, p.pitch, p.dilation % p.stride, p.dilation / p.stride, p.stride};
}

template <class T>
void split_row(const T* row, T* phases, const Phases& p) {
  constexpr int W = Reg<T>::width;
  if (p.by_tap) {
    for (Index t = 0; t < p.kernel; ++t)
      for (Index o = 0; o < p.outputs; ++o) phases[t * p.pitch + o] = row[t * p.dilation + o * p.stride];
  } else if (p.stride == 2) {
    for (Index q = 0; 2 * q < p.span; q += W) {
      const Reg<T> a = Reg<T>::load(row + 2 * q), b = Reg<T>::load(row + 2 * q + W);
      every_second<0, T>(a, b).store(phases + q);
      every_second<1, T>(a, b).store(phases + p.pitch + q);
    }
  } else if (p.stride == 4) {
    for (Index q = 0; 4 * q < p.span; q += W) {
      const T* r = row + 4 * q;
      const Reg<T> a = Reg<T>::load(r), b = Reg<T>::load(r + W), c = Reg<T>::load(r + 2 * W),
                   d = Reg<T>::load(r + 3 * W);
      const Reg<T> even = every_second<0, T>(a, b), even2 = every_second<0, T>(c, d);
      const Reg<T> odd = every_second<1, T>(a, b), odd2 = every_second<1, T>(c, d);
      every_second<0, T>(even, even2).store(phases + q);
      every_second<0, T>(odd, odd2).store(phases + p.pitch + q);
      every_second<1, T>(even, even2).store(phases + 2 * p.pitch + q);
      every_second<1, T>(odd, odd2).store(phases + 3 * p.pitch + q);
    }
  } else {
    Index q = 0;
    for (Index j = 0; j < p.span; j += p.stride, ++q)
      for (Index r = 0; r < smaller(p.stride, p.span - j); ++r) phases[r * p.pitch + q] = row[j + r];
  }
}

}  // namespace
}  // namespace fastconv
