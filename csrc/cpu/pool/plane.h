// Window pooling with the vector along W. Values alone are reduced strip by strip; for indices the rows are taken one
// by one, so that the first of equals wins: each is padded and split, so that every tap is a contiguous load.
#pragma once

#include "cpu/pool/strip.h"

namespace fastconv {
namespace {

template <class T>
struct PlaneScratch {
  T *row, *phases, *gathered, *best;
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
  s.best = arena.take<T>(outputs + kPoolSlack);
  s.first_tap = arena.take<IntLane<T>>(outputs + kPoolSlack);
  s.offsets = arena.take<IntLane<T>>(outputs + kPoolSlack);
  for (Index j = 0; j < span + 4 * kPoolSlack; ++j) s.row[j] = Op::identity();
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
void plane_indices(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Index outputs = t.col_last - t.col_first;
  const bool whole_rows = outputs == width.out;
  PlaneScratch<T> s;
  prepare_plane<T, Op>(t, s);
  RowMerger<T, Op> merger{Op(t),         s.row + (s.live_first - s.begin), s.gathered, s.live_last - s.live_first,
                          t.x_stride[4], static_cast<const T*>(t.x_end),   {},         0,
                          true};
  T* const y = static_cast<T*>(t.y);
  Counter at = count_from(t.first, shape.channels, depth.out, height.out);
  for (Index r = t.first; r < t.last; ++r, at.next()) {
    const Live rows_d = live_taps(depth, at.b), rows_h = live_taps(height, at.c);
    const T* x =
        static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] + s.live_first * t.x_stride[4];
    // Full registers may be written as far as rows follow that this task writes later.
    const Index y_first = r * width.out + t.col_first;
    const Index y_last = whole_rows ? t.last * width.out : y_first + outputs;
    for (Index o = 0; o < outputs; o += W) {
      Reg<T>::broadcast(Op::identity()).store(s.best + o);
      memcpy(s.offsets + o, s.first_tap + o, sizeof(typename Reg<T>::mask));
    }
    for (Index d = 0; d < rows_d.count; ++d)
      for (Index h = 0; h < rows_h.count; ++h) {
        const Index in_d = rows_d.first + d * depth.dilation, in_h = rows_h.first + h * height.dilation;
        merger.start();
        merger.add(x + in_d * t.x_stride[2] + in_h * t.x_stride[3]);
        merger.flush();
        const Index row_offset = (d * depth.dilation * height.in + h * height.dilation) * width.in;
        choose_in_row<T, Op>(split_or_row(s.row, s), s, row_offset);
      }
    const Index base = (rows_d.first * height.in + rows_h.first) * width.in + s.begin;
    for (Index o = 0; o < outputs; o += W) {
      store_before(Reg<T>::load(s.best + o), y + y_first + o, y + y_last);
      store_positions<T>(load_offsets<T>(s.offsets + o), base + o * width.stride, width.stride, t.indices + y_first + o,
                         t.indices + y_last);
    }
  }
}

template <class T, class Op>
void plane_pool(const PoolTask& t) {
  if constexpr (Op::extreme) {
    if (t.indices) return plane_indices<T, Op>(t);
  }
  plane_values<T, Op>(t);
}

}  // namespace
}  // namespace fastconv
