// Window pooling with the vector along W, here without indices. The input rows of several output rows are merged (along
// D and H) side by side into one strip, padded with identities, and the strip is reduced along W as if it were one long
// row: so rows shorter than a register cost no more than their share of one. Where rows have gaps between them in the
// strip, the results are copied out row by row.
#pragma once

#include "cpu/pool/rows.h"

namespace fastconv {
namespace {

template <class T>
struct Strip {
  T *merged, *results, *divisors, *counts, *phases, *gathered;
  const PoolTask* task;
  const PoolAxis* axis;
  Index begin;                  // input column of a row's first one in the strip
  Index live_first, live_last;  // columns of a row inside the input
  Index outputs;                // of a row
  Index stride;                 // 1 for a single output
  Index pitch;                  // columns from row to row, a multiple of the stride
  Index step;                   // results from row to row: pitch / stride
  Index span;                   // columns that a row's windows reach over
  Index rows;                   // side by side
  T divisor;                    // of every window; 0 where they differ

  FASTCONV_INLINE Index results_of(Index count) const { return (count - 1) * step + outputs; }
};

// Whether every window along an axis counts the same number of taps: the first and the last count the fewest.
FASTCONV_INLINE bool counts_alike(const PoolShape& shape, int i) {
  const Index first = counted_taps(shape, i, 0), last = counted_taps(shape, i, shape.axis[i].out - 1);
  return shape.divisor_override != 0 || (first == shape.axis[i].kernel && first == last);
}

// W registers' worth of every second element from p on.
template <int odd, class T>
FASTCONV_INLINE Reg<T> load_second(const T* p) {
  return every_second<odd, T>(Reg<T>::load(p), Reg<T>::load(p + Reg<T>::width));
}

// The reductions of W windows, the first of which starts at p. K > 0 is the kernel, of dilation 1; S is the stride.
template <class T, class Op, int K, int S>
FASTCONV_INLINE Reg<T> reduce_windows(const T* p, const PoolAxis& axis) {
  constexpr int W = Reg<T>::width;
  Reg<T> acc;
  if constexpr (S == 4) {
    static_assert(K == 4, "only windows that fill their stride");
    const Reg<T> a = Reg<T>::load(p), b = Reg<T>::load(p + W), c = Reg<T>::load(p + 2 * W), d = Reg<T>::load(p + 3 * W);
    const Reg<T> even = every_second<0, T>(a, b), even2 = every_second<0, T>(c, d);
    const Reg<T> odd = every_second<1, T>(a, b), odd2 = every_second<1, T>(c, d);
    acc = Op::combine(every_second<0, T>(even, even2), every_second<0, T>(odd, odd2));
    acc = Op::combine(acc, every_second<1, T>(even, even2));
    acc = Op::combine(acc, every_second<1, T>(odd, odd2));
  } else if constexpr (K > 0 && S == 2) {
    for (int k = 0; k < K; k += 2) {
      const Reg<T> a = Reg<T>::load(p + k), b = Reg<T>::load(p + k + W);
      acc = k == 0 ? every_second<0, T>(a, b) : Op::combine(acc, every_second<0, T>(a, b));
      if (k + 1 < K) acc = Op::combine(acc, every_second<1, T>(a, b));
    }
  } else if constexpr (K > 0) {
    acc = Reg<T>::load(p);
    for (int k = 1; k < K; ++k) acc = Op::combine(acc, Reg<T>::load(p + k));
  } else {
    const auto tap = [](const T* q) { return S == 2 ? load_second<0, T>(q) : Reg<T>::load(q); };
    acc = tap(p);
    for (Index k = 1; k < axis.kernel; ++k) acc = Op::combine(acc, tap(p + k * axis.dilation));
  }
  return acc;
}

// The last step of an output: sums become means, or what the op makes of them.
template <class T, class Op>
FASTCONV_INLINE Reg<T> finish_window(const Op& op, Reg<T> acc, const Strip<T>& s, Index o) {
  if (Op::extreme) return acc;
  return op.finish(acc / (s.divisor != T(0) ? Reg<T>::broadcast(s.divisor) : Reg<T>::load(s.divisors + o)));
}

// y[o] for the n windows of a strip that starts at `source`.
template <class T>
using ReduceStrip = void (*)(const T* source, Index n, const Strip<T>& s, T* y, const T* y_end);

template <class T, class Op, int K, int S>
void reduce_strip(const T* source, Index n, const Strip<T>& s, T* y, const T* y_end) {
  constexpr int W = Reg<T>::width;
  const PoolAxis axis = *s.axis;
  const Op op(*s.task);
  for (Index o = 0; o < n; o += W)
    store_before(finish_window(op, reduce_windows<T, Op, K, S>(source + o * S, axis), s, o), y + o, y_end);
}

// Any stride: the strip is split by the phase of its columns first.
template <class T, class Op>
void reduce_split(const T* source, Index n, const Strip<T>& s, T* y, const T* y_end) {
  constexpr int W = Reg<T>::width;
  const PoolAxis& axis = *s.axis;
  const Op op(*s.task);
  const Phases layout = make_phases(axis, n, (n - 1) * s.stride + (axis.kernel - 1) * axis.dilation + 1);
  split_row(source, s.phases, layout);
  for (Index o = 0; o < n; o += W) {
    TapCursor cursor = taps_of(layout);
    Reg<T> acc = Reg<T>::load(s.phases + cursor.offset() + o);
    for (Index k = 1; k < axis.kernel; ++k) {
      cursor.next();
      acc = Op::combine(acc, Reg<T>::load(s.phases + cursor.offset() + o));
    }
    store_before(finish_window(op, acc, s, o), y + o, y_end);
  }
}

template <class T, class Op>
ReduceStrip<T> choose_reduce(const PoolAxis& axis, Index stride) {
  const Index kernel = axis.dilation == 1 ? axis.kernel : 0;
  if (stride == 1)
    return kernel == 2   ? &reduce_strip<T, Op, 2, 1>
           : kernel == 3 ? &reduce_strip<T, Op, 3, 1>
                         : &reduce_strip<T, Op, 0, 1>;
  if (stride == 2)
    return kernel == 2   ? &reduce_strip<T, Op, 2, 2>
           : kernel == 3 ? &reduce_strip<T, Op, 3, 2>
                         : &reduce_strip<T, Op, 0, 2>;
  if (stride == 4 && kernel == 4) return &reduce_strip<T, Op, 4, 4>;
  return &reduce_split<T, Op>;
}

template <class T, class Op>
void prepare_strip(const PoolTask& t, Strip<T>& s, Index most_rows) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis& axis = shape.axis[2];
  s.task = &t;
  s.axis = &axis;
  s.outputs = t.col_last - t.col_first;
  s.stride = s.outputs == 1 ? 1 : axis.stride;
  s.span = (s.outputs - 1) * s.stride + (axis.kernel - 1) * axis.dilation + 1;
  s.begin = t.col_first * axis.stride - axis.pad_before;
  s.live_first = smaller(larger(s.begin, 0), axis.in);
  s.live_last = larger(smaller(s.begin + s.span, axis.in), s.live_first);
  s.step = (larger(s.span, s.outputs * s.stride) + s.stride - 1) / s.stride;
  s.pitch = s.step * s.stride;
  // Long rows that can be read in place are, and of rows with wide gaps the gaps would be reduced in vain.
  const bool in_place = Op::as_read && shape.axis[0].kernel * shape.axis[1].kernel == 1 && t.x_stride[4] == 1 &&
                        s.live_last - s.live_first == s.span && s.span >= 8 * W;
  const bool alone = in_place || s.outputs != axis.out || s.step - s.outputs > W;
  s.rows = alone ? 1 : larger(1, smaller(smaller(kPoolStrip / s.pitch, t.last - t.first), most_rows));
  s.divisor = 0;
  if (!Op::extreme && counts_alike(shape, 0) && counts_alike(shape, 1) && counts_alike(shape, 2))
    s.divisor = static_cast<T>(counted_taps(shape, 0, 0) * counted_taps(shape, 1, 0) * counted_taps(shape, 2, 0));
  const Index columns = s.rows * s.pitch, results = s.rows * s.step;
  Arena arena{static_cast<char*>(t.scratch)};
  s.merged = arena.take<T>(columns + 4 * kPoolSlack);
  s.gathered = arena.take<T>(s.span + kPoolSlack);
  s.results = arena.take<T>(results + kPoolSlack);
  s.divisors = arena.take<T>(results + kPoolSlack);
  s.counts = arena.take<T>(s.outputs + kPoolSlack);
  s.phases = arena.take<T>(0);
  for (Index j = 0; j < columns + 4 * kPoolSlack; j += W) Reg<T>::broadcast(Op::identity()).store(s.merged + j);
  if (Op::extreme || s.divisor != T(0)) return;
  for (Index o = 0; o < results + kPoolSlack; ++o) s.divisors[o] = T(1);
  for (Index o = 0; o < s.outputs + kPoolSlack; ++o)
    s.counts[o] = o < s.outputs ? static_cast<T>(counted_taps(shape, 2, t.col_first + o)) : T(1);
}

template <class T, class Op>
void plane_values(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  Strip<T> s;
  prepare_strip<T, Op>(t, s, kPoolStrip);
  const ReduceStrip<T> reduce = choose_reduce<T, Op>(width, s.stride);
  const Index live = s.live_last - s.live_first;
  const T* const x_end = static_cast<const T*>(t.x_end);
  RowMerger<T, Op> merger{Op(t), s.merged, s.gathered, live, t.x_stride[4], x_end, {}, 0, true};
  const Index depth_step = depth.dilation * t.x_stride[2], height_step = height.dilation * t.x_stride[3];
  const bool unpadded = t.x_stride[4] == 1 && live == s.span;
  Counter at = count_from(t.first, shape.channels, depth.out, height.out);
  Live rows_d{0, 0};
  const T* slice = nullptr;  // the input from the first depth that the row's windows touch
  for (Index r = t.first; r < t.last; r += s.rows) {
    const Index rows = smaller(s.rows, t.last - r);
    const T* source = s.merged;
    for (Index i = 0; i < rows; ++i, at.next()) {
      if (at.c == 0 || slice == nullptr) {
        rows_d = live_taps(depth, at.b);
        slice = static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] +
                rows_d.first * t.x_stride[2] + s.live_first * t.x_stride[4];
      }
      const Live rows_h = live_taps(height, at.c);
      const T* const x = slice + rows_h.first * t.x_stride[3];
      const Index live_rows = rows_d.count * rows_h.count;
      if (!Op::extreme && s.divisor == T(0)) {
        const Index counted = counted_taps(shape, 0, at.b) * counted_taps(shape, 1, at.c);
        const Reg<T> rows_counted = Reg<T>::broadcast(static_cast<T>(counted));
        T* const divisors = s.divisors + i * s.step;
        for (Index o = 0; o < s.outputs; o += W) (Reg<T>::load(s.counts + o) * rows_counted).store(divisors + o);
      }
      // The registers behind the last column are read as well, and must be the array's.
      if (Op::as_read && rows == 1 && live_rows == 1 && unpadded && x_end - x >= s.span + 4 * W) {
        source = x;
        continue;
      }
      merger.dst = s.merged + i * s.pitch + (s.live_first - s.begin);
      if (rows_d.count == 1 && t.x_stride[4] == 1 && rows_h.count > 0) {
        merger.take(x, height_step, rows_h.count);
        continue;
      }
      merger.start();
      for (Index d = 0; d < rows_d.count; ++d) {
        const T* row = x + d * depth_step;
        for (Index h = 0; h < rows_h.count; ++h, row += height_step) merger.add(row);
      }
      merger.flush();
      if (live_rows == 0)
        for (Index j = 0; j < live; ++j) merger.dst[j] = Op::identity();
    }
    // Full registers may be written as far as rows follow that this task writes later.
    const Index n = s.results_of(rows);
    T* const y = static_cast<T*>(t.y) + r * width.out + t.col_first;
    const T* const y_end = s.outputs == width.out ? static_cast<T*>(t.y) + t.last * width.out : y + s.outputs;
    if (rows == 1 || s.step == s.outputs) {
      reduce(source, n, s, y, y_end);
      continue;
    }
    reduce(source, n, s, s.results, s.results + n + W);
    for (Index i = 0; i < rows; ++i) {
      const T* const from = s.results + i * s.step;
      for (Index o = 0; o < s.outputs; o += W) store_before(Reg<T>::load(from + o), y + i * s.outputs + o, y_end);
    }
  }
}

}  // namespace
}  // namespace fastconv
