// Window pooling with the vector along W and the positions of the extremes. Output rows are taken side by side in a
// strip, as in strip.h, but one tap after the other in row-major order, so that the first of equals wins: a strip is
// made of one input row of every output row at a time.
#pragma once

#include "cpu/pool/strip.h"

namespace fastconv {
namespace {

// One output row of a strip.
template <class T>
struct ChosenRow {
  const T* x;             // the input row of the first live tap, from the first live column on
  Index depths, heights;  // live taps
  Index position;         // of that tap, for a window that starts in the strip's first column
};

constexpr Index kChosenRows = 64;  // side by side at most

// The best so far of each window of a strip, and its distance from where the window starts.
template <class T>
struct Choice {
  T* best;
  IntLane<T>*offsets, *first_tap;
};

// The room of what only sums need: an extreme has no divisors.
template <class T>
FASTCONV_INLINE Choice<T> choice_of(const Strip<T>& s) {
  return Choice<T>{s.results, reinterpret_cast<IntLane<T>*>(s.divisors), reinterpret_cast<IntLane<T>*>(s.counts)};
}

// The windows of a strip against the best so far, tap by tap. Stride is that of the taps of neighbouring windows: 1, 2,
// or 0 for a strip that was split by phase.
template <class T, class Op, int Stride>
void choose_in_strip(const T* source, Index n, const Strip<T>& s, const Choice<T>& choice, Index row_offset) {
  constexpr int W = Reg<T>::width;
  const PoolAxis axis = *s.axis;
  Phases layout{};
  if (Stride == 0) {
    layout = make_phases(axis, n, (n - 1) * s.stride + (axis.kernel - 1) * axis.dilation + 1);
    split_row(source, s.phases, layout);
    source = s.phases;
  }
  for (Index o = 0; o < n; o += W) {
    Reg<T> best = Reg<T>::load(choice.best + o);
    typename Reg<T>::mask offset = load_offsets<T>(choice.offsets + o);
    const auto choose = [&](Reg<T> x, Index k) __attribute__((always_inline)) {
      const typename Reg<T>::mask take = Op::better(x, best);
      best = Reg<T>::select(take, x, best);
      offset = take ? broadcast_offset<T>(row_offset + k * axis.dilation) : offset;
    };
    if constexpr (Stride == 2) {
      const T* const p = source + 2 * o;
      if (axis.dilation == 1) {
        for (Index k = 0; k < axis.kernel; k += 2) {
          const Reg<T> a = Reg<T>::load(p + k), b = Reg<T>::load(p + k + W);
          choose(every_second<0, T>(a, b), k);
          if (k + 1 < axis.kernel) choose(every_second<1, T>(a, b), k + 1);
        }
      } else {
        for (Index k = 0; k < axis.kernel; ++k) choose(load_second<0, T>(p + k * axis.dilation), k);
      }
    } else if constexpr (Stride == 1) {
      for (Index k = 0; k < axis.kernel; ++k) choose(Reg<T>::load(source + o + k * axis.dilation), k);
    } else {
      TapCursor cursor = taps_of(layout);
      for (Index k = 0; k < axis.kernel; ++k, cursor.next()) choose(Reg<T>::load(source + cursor.offset() + o), k);
    }
    best.store(choice.best + o);
    memcpy(choice.offsets + o, &offset, sizeof offset);
  }
}

template <class T, class Op>
void plane_indices(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  Strip<T> s;
  prepare_strip<T, Op>(t, s, kChosenRows);
  const Choice<T> choice = choice_of(s);
  for (Index o = 0; o < s.outputs; ++o)
    choice.first_tap[o] = static_cast<IntLane<T>>(live_taps(width, t.col_first + o).first -
                                                  ((t.col_first + o) * width.stride - width.pad_before));
  const auto choose = s.stride == 1   ? &choose_in_strip<T, Op, 1>
                      : s.stride == 2 ? &choose_in_strip<T, Op, 2>
                                      : &choose_in_strip<T, Op, 0>;
  const Index live = s.live_last - s.live_first;
  const T* const x_end = static_cast<const T*>(t.x_end);
  const bool unpadded = t.x_stride[4] == 1 && live == s.span;
  RowMerger<T, Op> merger{Op(t), s.merged, s.gathered, live, t.x_stride[4], x_end, {}, 0, true};
  ChosenRow<T> chosen[kChosenRows];
  Counter at = count_from(t.first, shape.channels, depth.out, height.out);
  for (Index r = t.first; r < t.last; r += s.rows) {
    const Index rows = smaller(s.rows, t.last - r), n = s.results_of(rows);
    Index depths = 0, heights = 0;
    for (Index i = 0; i < rows; ++i, at.next()) {
      const Live rows_d = live_taps(depth, at.b), rows_h = live_taps(height, at.c);
      chosen[i].x = static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] +
                    rows_d.first * t.x_stride[2] + rows_h.first * t.x_stride[3] + s.live_first * t.x_stride[4];
      chosen[i].depths = rows_d.count;
      chosen[i].heights = rows_h.count;
      chosen[i].position = (rows_d.first * height.in + rows_h.first) * width.in + s.begin;
      depths = larger(depths, rows_d.count);
      heights = larger(heights, rows_h.count);
      T* const best = choice.best + i * s.step;
      IntLane<T>* const offsets = choice.offsets + i * s.step;
      for (Index o = 0; o < s.step; o += W) {
        Reg<T>::broadcast(Op::identity()).store(best + o);
        memcpy(offsets + o, choice.first_tap + smaller(o, s.outputs), sizeof(typename Reg<T>::mask));
      }
    }
    for (Index d = 0; d < depths; ++d)
      for (Index h = 0; h < heights; ++h) {
        const Index from_first = d * depth.dilation * t.x_stride[2] + h * height.dilation * t.x_stride[3];
        const T* source = s.merged;
        for (Index i = 0; i < rows; ++i) {
          const bool is_live = d < chosen[i].depths && h < chosen[i].heights;
          // The registers behind the last column are read as well, and must be the array's.
          if (rows == 1 && is_live && unpadded && x_end - (chosen[i].x + from_first) >= s.span + 4 * W) {
            source = chosen[i].x + from_first;
            break;
          }
          merger.dst = s.merged + i * s.pitch + (s.live_first - s.begin);
          if (!is_live) {
            for (Index j = 0; j < live; ++j) merger.dst[j] = Op::identity();
            continue;
          }
          merger.start();
          merger.add(chosen[i].x + from_first);
          merger.flush();
        }
        choose(source, n, s, choice, (d * depth.dilation * height.in + h * height.dilation) * width.in);
      }
    // Full registers may be written as far as rows follow that this task writes later.
    const Index y_first = r * width.out + t.col_first;
    const Index y_last = s.outputs == width.out ? t.last * width.out : y_first + s.outputs;
    for (Index i = 0; i < rows; ++i)
      for (Index o = 0; o < s.outputs; o += W) {
        const Index from = i * s.step + o, to = y_first + i * s.outputs + o;
        store_before(Reg<T>::load(choice.best + from), static_cast<T*>(t.y) + to, static_cast<T*>(t.y) + y_last);
        store_positions<T>(load_offsets<T>(choice.offsets + from), chosen[i].position + o * width.stride, width.stride,
                           t.indices + to, t.indices + y_last);
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
