// What the pooling kernels share: the clipping of windows, the reductions, and loads and stores at the ends of rows.
// Memory-bound for the usual windows: 2x2 and 3x3 cost 4 to 12 vector operations an input vector, all of them one or
// two cycles. Included by ISA files only, after vec_<isa>.h.
#pragma once

#include "cpu/pool/kernels.h"

namespace fastconv {
namespace {

using Index = int64_t;

template <class T>
using IntLane = typename IntOf<T>::type;

FASTCONV_INLINE Index smaller(Index a, Index b) { return a < b ? a : b; }
FASTCONV_INLINE Index larger(Index a, Index b) { return a > b ? a : b; }

// The taps of one window that lie inside the input.
struct Live {
  Index first;  // input coordinate of the first; where there is none, of the input nearest to the window's start
  Index count;
};

FASTCONV_INLINE Live live_taps(const PoolAxis& axis, Index o) {
  const Index start = o * axis.stride - axis.pad_before;
  if (start >= 0 && start + (axis.kernel - 1) * axis.dilation < axis.in) return Live{start, axis.kernel};
  if (axis.dilation == 1) {
    const Index first = larger(start, 0), count = smaller(start + axis.kernel, axis.in) - first;
    return count > 0 ? Live{first, count} : Live{smaller(first, axis.in - 1), 0};
  }
  const Index skip = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
  const Index end = start < axis.in ? smaller(axis.kernel, (axis.in - 1 - start) / axis.dilation + 1) : 0;
  if (end <= skip) return Live{start < 0 ? 0 : smaller(start, axis.in - 1), 0};
  return Live{start + skip * axis.dilation, end - skip};
}

// One axis's factor of the divisor: the taps inside the input, or inside the padded input. A divisor that the caller
// chose counts as a factor of W alone.
FASTCONV_INLINE Index counted_taps(const PoolShape& shape, int i, Index o) {
  const PoolAxis& axis = shape.axis[i];
  if (shape.divisor_override != 0) return i == 2 ? shape.divisor_override : 1;
  if (!shape.count_include_pad) return larger(live_taps(axis, o).count, 1);
  const Index padded = axis.in + axis.pad_before + axis.pad_after;
  if (o * axis.stride + (axis.kernel - 1) * axis.dilation < padded) return axis.kernel;  // most windows: no division
  return larger(smaller(axis.kernel, (padded - 1 - o * axis.stride) / axis.dilation + 1), 1);
}

// What an op does to a value when it is read and to a result before it is written: here nothing.
template <class T>
struct AsRead {
  static constexpr bool as_read = true;
  explicit AsRead(const PoolTask&) {}
  FASTCONV_INLINE Reg<T> take(Reg<T> x) const { return x; }
  FASTCONV_INLINE Reg<T> finish(Reg<T> y) const { return y; }
};

template <class T>
struct Max : AsRead<T> {
  using AsRead<T>::AsRead;
  static constexpr bool extreme = true;
  static FASTCONV_INLINE T identity() { return -T(__builtin_inf()); }
  static FASTCONV_INLINE typename Reg<T>::mask better(Reg<T> x, Reg<T> best) { return (x > best) | (x != x); }
  static FASTCONV_INLINE Reg<T> combine(Reg<T> acc, Reg<T> x) {
    // One instruction on x86, which keeps a NaN of acc; that of x is put in.
    return Reg<T>::select(x != x, x, Reg<T>::select(x > acc, x, acc));
  }
  static FASTCONV_INLINE bool better(T x, T best) { return x > best || x != x; }
  static FASTCONV_INLINE T combine(T acc, T x) { return better(x, acc) ? x : acc; }
};

template <class T>
struct Min : AsRead<T> {
  using AsRead<T>::AsRead;
  static constexpr bool extreme = true;
  static FASTCONV_INLINE T identity() { return T(__builtin_inf()); }
  static FASTCONV_INLINE typename Reg<T>::mask better(Reg<T> x, Reg<T> best) { return (x < best) | (x != x); }
  static FASTCONV_INLINE Reg<T> combine(Reg<T> acc, Reg<T> x) {
    return Reg<T>::select(x != x, x, Reg<T>::select(x < acc, x, acc));
  }
  static FASTCONV_INLINE bool better(T x, T best) { return x < best || x != x; }
  static FASTCONV_INLINE T combine(T acc, T x) { return better(x, acc) ? x : acc; }
};

template <class T>
struct Sum : AsRead<T> {
  using AsRead<T>::AsRead;
  static constexpr bool extreme = false;
  static FASTCONV_INLINE T identity() { return T(0); }
  static FASTCONV_INLINE Reg<T> combine(Reg<T> acc, Reg<T> x) { return acc + x; }
  static FASTCONV_INLINE T combine(T acc, T x) { return acc + x; }
};

// The register at p, of which only the lanes before `end` can be read; the others hold anything.
template <class T>
FASTCONV_INLINE Reg<T> load_before(const T* p, const T* end) {
  if (end - p >= Reg<T>::width) return Reg<T>::load(p);
  return Reg<T>::load_partial(p, static_cast<int>(larger(end - p, 0)));
}

// Writes the lanes that lie before `end`.
template <class T>
FASTCONV_INLINE void store_before(Reg<T> v, T* p, const T* end) {
  if (end - p >= Reg<T>::width)
    v.store(p);
  else
    v.store_partial(p, static_cast<int>(end - p));
}

// A register of int64 positions: of half as many lanes as a register of T, where T is half as wide. (As one vector of
// all lanes it would not fit a register, and go through memory.)
template <class T>
struct Positions {
  static constexpr int width = static_cast<int>(Reg<T>::width * sizeof(T) / 8);
  typedef int64_t raw __attribute__((vector_size(8 * width)));
};

// The offsets of the lower (half = 0) or the upper lanes, as int64.
template <int half, class T>
FASTCONV_INLINE typename Positions<T>::raw widen_offsets(typename Reg<T>::mask offset) {
  using Raw = typename Positions<T>::raw;
  constexpr int W = Reg<T>::width, h = half * W / 2;
  if constexpr (sizeof(T) == 8) return offset;
  if constexpr (sizeof(T) == 4 && W == 4)
    return __builtin_convertvector(__builtin_shufflevector(offset, offset, h, h + 1), Raw);
  if constexpr (sizeof(T) == 4 && W == 8)
    return __builtin_convertvector(__builtin_shufflevector(offset, offset, h, h + 1, h + 2, h + 3), Raw);
  if constexpr (sizeof(T) == 4 && W == 16)
    return __builtin_convertvector(
        __builtin_shufflevector(offset, offset, h, h + 1, h + 2, h + 3, h + 4, h + 5, h + 6, h + 7), Raw);
}

// int64 positions of a register's lanes: base + lane * step + offset[lane].
template <class T>
FASTCONV_INLINE void store_positions(typename Reg<T>::mask offset, Index base, Index step, int64_t* p,
                                     const int64_t* end) {
  constexpr int W = Reg<T>::width, H = Positions<T>::width;
  typename Positions<T>::raw lane;
  for (int i = 0; i < H; ++i) lane[i] = i * step;
  typename Positions<T>::raw position[2];
  position[0] = widen_offsets<0, T>(offset) + lane + base;
  if constexpr (H < W) position[1] = widen_offsets<1, T>(offset) + lane + (base + H * step);
  if (end - p >= W) {
    memcpy(p, &position[0], sizeof position[0]);
    if constexpr (H < W) memcpy(p + H, &position[1], sizeof position[1]);
  } else {
    memcpy(p, position, static_cast<size_t>(end - p) * 8);
  }
}

template <class T>
FASTCONV_INLINE typename Reg<T>::mask load_offsets(const IntLane<T>* p) {
  typename Reg<T>::mask r;
  memcpy(&r, p, sizeof r);
  return r;
}

template <class T>
FASTCONV_INLINE typename Reg<T>::mask broadcast_offset(Index x) {
  return static_cast<IntLane<T>>(x) - typename Reg<T>::mask{};
}

// Every second element of two registers in a row, starting with the first (odd = 0) or the second.
template <int odd, class T>
FASTCONV_INLINE Reg<T> every_second(Reg<T> a, Reg<T> b) {
  constexpr int W = Reg<T>::width;
  constexpr int o = odd;
  if constexpr (W == 2) return Reg<T>{__builtin_shufflevector(a.v, b.v, o, o + 2)};
  if constexpr (W == 4) return Reg<T>{__builtin_shufflevector(a.v, b.v, o, o + 2, o + 4, o + 6)};
  if constexpr (W == 8)
    return Reg<T>{__builtin_shufflevector(a.v, b.v, o, o + 2, o + 4, o + 6, o + 8, o + 10, o + 12, o + 14)};
  if constexpr (W == 16)
    return Reg<T>{__builtin_shufflevector(a.v, b.v, o, o + 2, o + 4, o + 6, o + 8, o + 10, o + 12, o + 14, o + 16,
                                          o + 18, o + 20, o + 22, o + 24, o + 26, o + 28, o + 30)};
}

// The first (second = 0) or second half of a and b interleaved: a0 b0 a1 b1 ...
template <int second, class T>
FASTCONV_INLINE Reg<T> interleave(Reg<T> a, Reg<T> b) {
  constexpr int W = Reg<T>::width;
  constexpr int h = second * W / 2;
  if constexpr (W == 2) return Reg<T>{__builtin_shufflevector(a.v, b.v, h, W + h)};
  if constexpr (W == 4) return Reg<T>{__builtin_shufflevector(a.v, b.v, h, W + h, h + 1, W + h + 1)};
  if constexpr (W == 8)
    return Reg<T>{__builtin_shufflevector(a.v, b.v, h, W + h, h + 1, W + h + 1, h + 2, W + h + 2, h + 3, W + h + 3)};
  if constexpr (W == 16)
    return Reg<T>{__builtin_shufflevector(a.v, b.v, h, W + h, h + 1, W + h + 1, h + 2, W + h + 2, h + 3, W + h + 3,
                                          h + 4, W + h + 4, h + 5, W + h + 5, h + 6, W + h + 6, h + 7, W + h + 7)};
}

// Counts through a flattened (batch, a, b, c) without dividing at every step.
struct Counter {
  Index batch, a, b, c;
  Index size_a, size_b, size_c;
  FASTCONV_INLINE void next() {
    if (++c < size_c) return;
    c = 0;
    if (++b < size_b) return;
    b = 0;
    if (++a < size_a) return;
    a = 0;
    ++batch;
  }
};

FASTCONV_INLINE Counter count_from(Index first, Index size_a, Index size_b, Index size_c) {
  const Index b = first / size_c, a = b / size_b;
  return Counter{a / size_a, a % size_a, b % size_b, first % size_c, size_a, size_b, size_c};
}

// Scratch memory of one task, handed out in cache-line multiples.
struct Arena {
  char* next;
  template <class T>
  FASTCONV_INLINE T* take(Index count) {
    T* p = reinterpret_cast<T*>(next);
    next += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return p;
  }
};

}  // namespace
}  // namespace fastconv
