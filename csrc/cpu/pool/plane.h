// Window pooling with the vector along W: rows are merged first (D and H), then the taps along W, each a contiguous
// load from the padded and split row. With indices the rows are taken one by one, so that the first of equals wins.
#pragma once

#include "cpu/pool/rows.h"

namespace fastconv {
namespace {

template <class T>
struct PlaneScratch {
  T *row, *phases, *gathered, *counts, *best;
  IntLane<T>*first_tap, *offsets;
  Index begin;       // input column of row[0]
  Index live_first;  // columns of the row inside the input
  Index live_last;
  Phases layout;
};

template <class T, class Op>
void prepare_plane(const PoolTask& t, PlaneScratch<T>& s) {
  const PoolAxis& axis = t.shape->axis[2];
  const Index outputs = t.col_last - t.col_first;
  const Index span = (outputs - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
  s.begin = t.col_first * axis.stride - axis.pad_before;
  s.live_first = smaller(larger(s.begin, 0), axis.in);
  s.live_last = larger(smaller(s.begin + span, axis.in), s.live_first);
  s.layout = make_phases(axis, outputs, span);
  Arena arena{static_cast<char*>(t.scratch)};
  s.row = arena.take<T>(span + 4 * kPoolSlack);
  s.phases = arena.take<T>(s.layout.rows() * s.layout.pitch + kPoolSlack);
  s.gathered = arena.take<T>(span + kPoolSlack);
  s.counts = arena.take<T>(outputs + kPoolSlack);
  s.best = arena.take<T>(outputs + kPoolSlack);
  s.first_tap = arena.take<IntLane<T>>(outputs + kPoolSlack);
  s.offsets = arena.take<IntLane<T>>(outputs + kPoolSlack);
  for (Index j = 0; j < span + 4 * kPoolSlack; ++j) s.row[j] = Op::identity();
  if (!Op::extreme)
    for (Index o = 0; o < outputs; ++o) s.counts[o] = static_cast<T>(counted_taps(*t.shape, 2, t.col_first + o));
  if (Op::extreme && t.indices)
    for (Index o = 0; o < outputs; ++o)
      s.first_tap[o] = static_cast<IntLane<T>>(live_taps(axis, t.col_first + o).first -
                                               ((t.col_first + o) * axis.stride - axis.pad_before));
}

template <class T>
FASTCONV_INLINE const T* split_or_row(const T* row, PlaneScratch<T>& s) {
  if (s.layout.stride == 1) return row;
  split_row(row, s.phases, s.layout);
  return s.phases;
}

// Whether the one row that waits needs neither padding nor gathering, nor lies so close to the end of the array that
// the registers behind its last column cannot be read.
template <class T, class Merger>
FASTCONV_INLINE bool readable_in_place(const PoolTask& t, const PlaneScratch<T>& s, const Merger& merger) {
  return t.x_stride[4] == 1 && s.live_first == s.begin && s.live_last == s.begin + s.layout.span &&
         static_cast<const T*>(t.x_end) - merger.pending[0] >= s.layout.span + 4 * Reg<T>::width;
}

// Merges along W and writes one output row; K > 0 is the number of taps, known at compile time.
template <class T, class Op, int K>
void reduce_row(const T* split, const PlaneScratch<T>& s, T row_count, T* y, const T* y_end) {
  constexpr int W = Reg<T>::width;
  constexpr int fixed = K > 0 ? K : 1;
  const Index n = s.layout.outputs;
  const T* tap[fixed];
  if (K > 0) {
    TapCursor cursor = taps_of(s.layout);
    for (int k = 0; k < K; ++k, cursor.next()) tap[k] = split + cursor.offset();
  }
  for (Index o = 0; o < n; o += W) {
    Reg<T> acc;
    if (K > 0) {
      acc = Reg<T>::load(tap[0] + o);
      for (int k = 1; k < K; ++k) acc = Op::combine(acc, Reg<T>::load(tap[k] + o));
    } else {
      TapCursor cursor = taps_of(s.layout);
      acc = Reg<T>::load(split + cursor.offset() + o);
      for (Index k = 1; k < s.layout.kernel; ++k) {
        cursor.next();
        acc = Op::combine(acc, Reg<T>::load(split + cursor.offset() + o));
      }
    }
    if (!Op::extreme) acc = acc / (Reg<T>::load(s.counts + o) * Reg<T>::broadcast(row_count));
    store_before(acc, y + o, y_end);
  }
}

// One row's taps against the best so far, `row_offset` being where the row starts relative to the window's first.
template <class T, class Op>
void choose_in_row(const T* split, PlaneScratch<T>& s, Index row_offset) {
  constexpr int W = Reg<T>::width;
  for (Index o = 0; o < s.layout.outputs; o += W) {
    Reg<T> best = Reg<T>::load(s.best + o);
    typename Reg<T>::mask offset = load_offsets<T>(s.offsets + o);
    TapCursor cursor = taps_of(s.layout);
    for (Index k = 0; k < s.layout.kernel; ++k, cursor.next()) {
      const Reg<T> x = Reg<T>::load(split + cursor.offset() + o);
      const typename Reg<T>::mask take = Op::better(x, best);
      best = Reg<T>::select(take, x, best);
      offset = take ? broadcast_offset<T>(row_offset + k * s.layout.dilation) : offset;
    }
    best.store(s.best + o);
    memcpy(s.offsets + o, &offset, sizeof offset);
  }
}

template <class T, class Op>
void plane_pool(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Index outputs = t.col_last - t.col_first;
  const bool whole_rows = outputs == width.out;
  PlaneScratch<T> s;
  prepare_plane<T, Op>(t, s);
  RowMerger<T, Op> merger{s.row + (s.live_first - s.begin),
                          s.gathered,
                          s.live_last - s.live_first,
                          t.x_stride[4],
                          static_cast<const T*>(t.x_end),
                          {},
                          0,
                          true};
  T* const y = static_cast<T*>(t.y);
  Counter at = count_from(t.first, shape.channels, depth.out, height.out);
  for (Index r = t.first; r < t.last; ++r, at.next()) {
    const Index od = at.b, oh = at.c;
    const Live rows_d = live_taps(depth, od), rows_h = live_taps(height, oh);
    const T* x =
        static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] + s.live_first * t.x_stride[4];
    const bool dead = rows_d.count == 0 || rows_h.count == 0;
    // Full registers may be written as far as rows follow that this task writes later.
    const Index y_first = r * width.out + t.col_first;
    const Index y_last = whole_rows ? t.last * width.out : y_first + outputs;
    const bool indices = Op::extreme && t.indices;
    if (indices)
      for (Index o = 0; o < outputs; o += W) {
        Reg<T>::broadcast(Op::identity()).store(s.best + o);
        memcpy(s.offsets + o, s.first_tap + o, sizeof(typename Reg<T>::mask));
      }
    merger.start();
    const T* split = s.row;
    for (Index d = 0; d < rows_d.count && !dead; ++d)
      for (Index h = 0; h < rows_h.count; ++h) {
        const Index in_d = rows_d.first + d * depth.dilation, in_h = rows_h.first + h * height.dilation;
        merger.add(x + in_d * t.x_stride[2] + in_h * t.x_stride[3]);
        if constexpr (Op::extreme) {
          if (!indices) continue;
          merger.flush();
          split = split_or_row(s.row, s);
          const Index row_offset = (d * depth.dilation * height.in + h * height.dilation) * width.in;
          choose_in_row<T, Op>(split, s, row_offset);
          merger.start();
        }
      }
    if (indices) {
      const Index base = (rows_d.first * height.in + rows_h.first) * width.in + s.begin;
      for (Index o = 0; o < outputs; o += W) {
        store_before(Reg<T>::load(s.best + o), y + y_first + o, y + y_last);
        store_positions<T>(load_offsets<T>(s.offsets + o), base + o * width.stride, width.stride,
                           t.indices + y_first + o, t.indices + y_last);
      }
      continue;
    }
    if (dead)
      for (Index j = 0; j < s.layout.span; ++j) s.row[j] = Op::identity();
    if (!dead && rows_d.count * rows_h.count == 1 && readable_in_place(t, s, merger)) {
      split = split_or_row(merger.pending[0], s);
    } else {
      merger.flush();
      split = split_or_row(s.row, s);
    }
    const T row_count = Op::extreme ? T(1) : static_cast<T>(counted_taps(shape, 0, od) * counted_taps(shape, 1, oh));
    if (width.kernel == 2)
      reduce_row<T, Op, 2>(split, s, row_count, y + y_first, y + y_last);
    else if (width.kernel == 3)
      reduce_row<T, Op, 3>(split, s, row_count, y + y_first, y + y_last);
    else if (width.kernel == 4)
      reduce_row<T, Op, 4>(split, s, row_count, y + y_first, y + y_last);
    else
      reduce_row<T, Op, 0>(split, s, row_count, y + y_first, y + y_last);
  }
}

}  // namespace
}  // namespace fastconv
