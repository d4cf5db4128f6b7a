// Adaptive pooling: output o of an axis takes the bin of inputs [floor(o * in / out), ceil((o + 1) * in / out)). Bins
// differ in size by at most one and may overlap. Input i lies in the bins [floor(i * out / in), ceil((i + 1) * out /
// in)): the same formula with the sizes exchanged, so that the gradient is gathered as the output is.
//
// In planes the rows of a bin are merged first, register by register; then each output walks its columns, one by one:
// the vertical step does most of the work for all bins but those of one row.
#pragma once

#include "cpu/pool/backward.h"
#include "cpu/pool/lane.h"
#include "cpu/pool/plane.h"

namespace fastconv {
namespace {

// The bin of `index` where an axis of `size` has `bins` of them.
FASTCONV_INLINE Live bin_of(Index size, Index bins, Index index) {
  const Index first = index * size / bins;
  return Live{first, ((index + 1) * size + bins - 1) / bins - first};
}

FASTCONV_INLINE Live input_bin(const PoolAxis& axis, Index output) { return bin_of(axis.in, axis.out, output); }
FASTCONV_INLINE Live output_bin(const PoolAxis& axis, Index input) { return bin_of(axis.out, axis.in, input); }

// The bins of the outputs [first, last) of W, relative to the first's first input; returns the inputs they span.
FASTCONV_INLINE Live find_bins(const PoolAxis& axis, Index first, Index last, Live* bins) {
  const Index begin = input_bin(axis, first).first;
  Index end = begin;
  for (Index o = first; o < last; ++o) {
    bins[o - first] = input_bin(axis, o);
    end = bins[o - first].first + bins[o - first].count;
    bins[o - first].first -= begin;
  }
  return Live{begin, end - begin};
}

// Sums go on in float64 once the rows are merged.
template <class T>
FASTCONV_INLINE T reduce_bin(const Sum<T>&, const T* row, Index rows, const Live& bin) {
  double total = 0;
  for (Index j = bin.first; j < bin.first + bin.count; ++j) total += static_cast<double>(row[j]);
  return static_cast<T>(total / static_cast<double>(rows * bin.count));
}

template <class T>
FASTCONV_INLINE T reduce_bin(const Max<T>&, const T* row, Index, const Live& bin) {
  T best = Max<T>::identity();
  for (Index j = bin.first; j < bin.first + bin.count; ++j) best = Max<T>::combine(best, row[j]);
  return best;
}

// The best of a bin of columns of which each already has its best row: row-major order settles ties and NaNs.
template <class T>
FASTCONV_INLINE T choose_in_bin(const T* row, const IntLane<T>* offset, const Live& bin, Index* place) {
  T best = Max<T>::identity();
  *place = bin.first;
  for (Index j = bin.first; j < bin.first + bin.count; ++j) {
    const T x = row[j];
    const Index here = offset[j] + j;
    const bool earlier = here < *place;
    const bool take = x != x ? (best == best || !earlier) : x > best || (x == best && earlier);
    if (!take) continue;
    best = x;
    *place = here;
  }
  return best;
}

// Merges a row into the best so far, column by column; `row_offset` is its flat distance from the bin's first.
template <class T>
FASTCONV_INLINE void choose_row(const T* x, const T* x_end, Index count, Index row_offset, T* best,
                                IntLane<T>* offset) {
  constexpr int W = Reg<T>::width;
  for (Index j = 0; j < count; j += W) {
    const Reg<T> value = load_before(x + j, x_end), before = Reg<T>::load(best + j);
    typename Reg<T>::mask place = load_offsets<T>(offset + j);
    const typename Reg<T>::mask take = Max<T>::better(value, before);
    place = take ? broadcast_offset<T>(row_offset) : place;
    Reg<T>::select(take, value, before).store(best + j);
    memcpy(offset + j, &place, sizeof place);
  }
}

template <class T, class Op>
void plane_adaptive(const PoolTask& t) {
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Index outputs = t.col_last - t.col_first;
  Arena arena{static_cast<char*>(t.scratch)};
  Live* const bins = arena.take<Live>(outputs);
  const Live span = find_bins(width, t.col_first, t.col_last, bins);
  T* const row = arena.take<T>(span.count + kPoolSlack);
  T* const gathered = arena.take<T>(span.count + kPoolSlack);
  IntLane<T>* const offset = arena.take<IntLane<T>>(span.count + kPoolSlack);
  const Op op(t);
  const T* const x_end = static_cast<const T*>(t.x_end);
  const Index step = t.x_stride[4];
  RowMerger<T, Op> merger{op, row, gathered, span.count, step, x_end, {}, 0, true};
  Counter at = count_from(t.first, shape.channels, depth.out, height.out);
  for (Index r = t.first; r < t.last; ++r, at.next()) {
    const Live in_d = input_bin(depth, at.b), in_h = input_bin(height, at.c);
    const T* x = static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] + span.first * step;
    T* const y = static_cast<T*>(t.y) + r * width.out + t.col_first;
    const bool indices = Op::extreme && t.indices;
    merger.start();
    if (indices)
      for (Index j = 0; j < span.count + kPoolSlack; ++j) row[j] = Op::identity(), offset[j] = 0;
    for (Index d = 0; d < in_d.count; ++d)
      for (Index h = 0; h < in_h.count; ++h) {
        const T* from = x + (in_d.first + d) * t.x_stride[2] + (in_h.first + h) * t.x_stride[3];
        if (!indices) {
          merger.add(from);
          continue;
        }
        if (step != 1)
          for (Index j = 0; j < span.count; ++j) gathered[j] = from[j * step];
        choose_row(step == 1 ? from : gathered, step == 1 ? x_end : gathered + span.count, span.count,
                   (d * height.in + h) * width.in, row, offset);
      }
    merger.flush();
    if (!indices) {
      for (Index o = 0; o < outputs; ++o) y[o] = reduce_bin(op, row, in_d.count * in_h.count, bins[o]);
      continue;
    }
    const Index base = (in_d.first * height.in + in_h.first) * width.in + span.first;
    for (Index o = 0; o < outputs; ++o) {
      Index place;
      y[o] = choose_in_bin(row, offset, bins[o], &place);
      t.indices[r * width.out + t.col_first + o] = base + place;
    }
  }
}

template <class T, class Op>
void lane_adaptive(const PoolTask& t) {
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
  taps.offset[0] = height.in * width.in;
  taps.offset[1] = width.in;
  taps.offset[2] = 1;
  for (int i = 0; i < 3; ++i) taps.step[i] = t.x_stride[2 + i];
  Live in_d{0, 0}, in_h{0, 0};
  Counter at = count_from(t.first, depth.out, height.out, width.out);
  for (Index p = t.first; p < t.last; ++p, at.next()) {
    if (at.c == 0 || p == t.first) {
      in_d = input_bin(depth, at.a);
      in_h = input_bin(height, at.b);
    }
    const Live in_w = input_bin(width, at.c);
    taps.count[0] = in_d.count;
    taps.count[1] = in_h.count;
    taps.count[2] = in_w.count;
    taps.first = static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + in_d.first * t.x_stride[2] +
                 in_h.first * t.x_stride[3] + in_w.first * t.x_stride[4];
    const T divisor = static_cast<T>(in_d.count * in_h.count * in_w.count);
    T* const out = y + p * channels;
    Index c = 0;
    if constexpr (Op::extreme) {
      if (t.indices) {
        const Index base = (in_d.first * height.in + in_h.first) * width.in + in_w.first;
        int64_t* const places = t.indices + p * channels;
        for (; c + 4 * W <= channels; c += 4 * W)
          lane_block_indices<T, Op, 4>(taps, c, x_end, base, out, y_end, places, indices_end);
        for (; c < channels; c += W)
          lane_block_indices<T, Op, 1>(taps, c, x_end, base, out, y_end, places, indices_end);
        continue;
      }
    }
    for (; c + 4 * W <= channels; c += 4 * W) lane_block<T, Op, 4>(op, taps, c, x_end, divisor, out, y_end);
    for (; c < channels; c += W) lane_block<T, Op, 1>(op, taps, c, x_end, divisor, out, y_end);
  }
}

// The outputs along one axis whose bins hold an input, each with its bin's size. They are those of the inputs [first,
// last) of the cover.
template <class T>
struct BinCovers {
  static FASTCONV_INLINE Cover<T> make(Arena& arena, const PoolAxis& axis) {
    const Index most = axis.out / axis.in + 2;
    Cover<T> cover{};
    cover.window = arena.take<Index>(most);
    cover.divisor = arena.take<T>(most);
    return cover;
  }

  // Whether they are others than those of the input before.
  static FASTCONV_INLINE bool find(const PoolShape& shape, int i, Index input, Cover<T>& cover) {
    if (cover.first <= input && input < cover.last) return false;
    list(shape.axis[i], input, cover);
    return true;
  }

 private:
  static void list(const PoolAxis& axis, Index input, Cover<T>& cover) {
    const Live outputs = output_bin(axis, input), first = input_bin(axis, outputs.first);
    const Index after = outputs.first + outputs.count, next = after < axis.out ? input_bin(axis, after).first : axis.in;
    cover.first = input;
    cover.last = smaller(first.first + first.count, next);
    cover.count = outputs.count;
    cover.uniform = true;
    for (Index j = 0; j < outputs.count; ++j) {
      cover.window[j] = outputs.first + j;
      cover.divisor[j] = static_cast<T>(input_bin(axis, outputs.first + j).count);
      cover.uniform = cover.uniform && cover.divisor[j] == cover.divisor[0];
    }
  }
};

template <class T>
void plane_adaptive_backward(const PoolTask& t) {
  constexpr int W = Reg<T>::width;
  const PoolShape& shape = *t.shape;
  const PoolAxis &depth = shape.axis[0], &height = shape.axis[1], &width = shape.axis[2];
  const Live last_bin = output_bin(width, t.col_last - 1);
  const Index begin = output_bin(width, t.col_first).first, live = last_bin.first + last_bin.count - begin;
  Arena arena{static_cast<char*>(t.scratch)};
  T* const sums = arena.take<T>(live + kPoolSlack);
  T* const gathered = arena.take<T>(live + kPoolSlack);
  T* const divisors = arena.take<T>(live + kPoolSlack);
  Live* const outputs = arena.take<Live>(t.col_last - t.col_first);  // of each column, from sums[0] on
  for (Index w = t.col_first; w < t.col_last; ++w) {
    const Live bins = output_bin(width, w);
    outputs[w - t.col_first] = Live{bins.first - begin, bins.count};
  }
  using Covers = BinCovers<T>;
  Cover<T> cover_d = Covers::make(arena, depth), cover_h = Covers::make(arena, height);
  for (Index o = 0; o < live + kPoolSlack; ++o)
    divisors[o] = o < live ? static_cast<T>(input_bin(width, begin + o).count) : T(1);
  const Index step = t.x_stride[4];
  Counter at = count_from(t.first, shape.channels, depth.in, height.in);
  for (Index r = t.first; r < t.last; ++r, at.next()) {
    T* const y = static_cast<T*>(t.y) + r * width.in + t.col_first;
    const bool other_d = Covers::find(shape, 0, at.b, cover_d), other_h = Covers::find(shape, 1, at.c, cover_h);
    if (!other_d && !other_h && r > t.first && (at.b > 0 || at.c > 0)) {  // as the row before
      memcpy(y, y - width.in, static_cast<size_t>(t.col_last - t.col_first) * sizeof(T));
      continue;
    }
    const T* g = static_cast<const T*>(t.x) + at.batch * t.x_stride[0] + at.a * t.x_stride[1] + begin * step;
    for (Index o = 0; o < live; o += W) Reg<T>::zero().store(sums + o);
    for (Index d = 0; d < cover_d.count; ++d)
      for (Index h = 0; h < cover_h.count; ++h) {
        const T* row = g + cover_d.window[d] * t.x_stride[2] + cover_h.window[h] * t.x_stride[3];
        const T* end = static_cast<const T*>(t.x_end);
        if (step != 1) {
          for (Index o = 0; o < live; ++o) gathered[o] = row[o * step];
          row = gathered;
          end = gathered + live;
        }
        const Reg<T> by = Reg<T>::broadcast(cover_d.divisor[d] * cover_h.divisor[h]);
        for (Index o = 0; o < live; o += W)
          (Reg<T>::load(sums + o) + load_before(row + o, end) / (by * Reg<T>::load(divisors + o))).store(sums + o);
      }
    for (Index w = 0; w < t.col_last - t.col_first; ++w) {
      T sum = 0;
      for (Index o = outputs[w].first; o < outputs[w].first + outputs[w].count; ++o) sum += sums[o];
      y[w] = sum;
    }
  }
}

}  // namespace
}  // namespace fastconv
