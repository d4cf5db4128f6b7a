// The transforms of Winograd's algorithm over a register type: included once by each ISA file. Vectors run along
// channels, so every step is an addition of registers.
#pragma once

#include "cpu/conv/kernels.h"

namespace {

using fastconv::WinogradInputArgs;
using fastconv::WinogradOutputArgs;
using fastconv::WinogradTapsArgs;
using fastconv::WinogradWeightArgs;

constexpr int kWinogradSide = fastconv::kWinogradSide;
constexpr int winograd_taps_of(int tile) { return kWinogradSide + 1 - tile; }

// G g of the taps of `Tile` outputs.
template <int Tile, class V>
FASTCONV_INLINE void winograd_weight_line(const V (&tap)[winograd_taps_of(Tile)], V (&line)[kWinogradSide]) {
  const V half = V::broadcast(typename V::element(0.5));
  line[0] = tap[0];
  if constexpr (Tile == 2) {
    const V ends = tap[0] + tap[2];
    line[1] = half * (ends + tap[1]);
    line[2] = half * (ends - tap[1]);
    line[3] = tap[2];
  } else {
    line[1] = half * (tap[0] + tap[1]);
    line[2] = half * (tap[0] - tap[1]);
    line[3] = tap[1];
  }
}

template <class T, int TileRows, int TileColumns>
void winograd_weight(const void* erased) {
  using V = Reg<T>;
  constexpr int down = winograd_taps_of(TileRows), across = winograd_taps_of(TileColumns);
  const WinogradWeightArgs<T>& args = *static_cast<const WinogradWeightArgs<T>*>(erased);
  for (int64_t c = 0; c < args.channels; ++c)
    for (int64_t n = 0; n < args.cols; n += V::width) {
      const T* taps = args.taps + c * args.channel_step + n;
      V t[across][kWinogradSide];
#pragma GCC unroll 3
      for (int j = 0; j < across; ++j) {
        V tap[down];
#pragma GCC unroll 3
        for (int i = 0; i < down; ++i) {
          const int64_t offset = args.offset[i * across + j];
          tap[i] = offset < 0 ? V::zero() : V::load(taps + offset);
        }
        winograd_weight_line<TileRows>(tap, t[j]);
      }
      T* u = args.u + c * args.cols + n;
#pragma GCC unroll 4
      for (int i = 0; i < kWinogradSide; ++i) {
        V tap[across], line[kWinogradSide];
#pragma GCC unroll 3
        for (int j = 0; j < across; ++j) tap[j] = t[j][i];
        winograd_weight_line<TileColumns>(tap, line);
#pragma GCC unroll 4
        for (int j = 0; j < kWinogradSide; ++j) line[j].store(u + (i * kWinogradSide + j) * args.point_step);
      }
    }
}

// One line of B' d B: first the sum or difference of two lines of d, then those of its neighbours.
template <int Line, class T>
FASTCONV_INLINE void winograd_input_line(const T* x, int64_t row_step, int64_t position_step, T* v,
                                         int64_t point_step) {
  using V = Reg<T>;
  constexpr int first = Line == 0 ? 0 : Line == 2 ? 2 : 1, second = Line == 2 ? 1 : Line == 3 ? 3 : 2;
  V t[kWinogradSide];
#pragma GCC unroll 4
  for (int j = 0; j < kWinogradSide; ++j) {
    const V a = V::load(x + first * row_step + j * position_step);
    const V b = V::load(x + second * row_step + j * position_step);
    t[j] = Line == 1 ? a + b : a - b;
  }
  v += Line * kWinogradSide * point_step;
  (t[0] - t[2]).store(v);
  (t[1] + t[2]).store(v + point_step);
  (t[2] - t[1]).store(v + 2 * point_step);
  (t[1] - t[3]).store(v + 3 * point_step);
}

// Calls body(x, v) for each tile and register of channels.
template <class T, class Body>
FASTCONV_INLINE void winograd_each_tile(const WinogradInputArgs<T>& args, Body body) {
  const int64_t down = args.tile[0] * args.row_step, across = args.tile[1] * args.position_step;
  for (int64_t i = 0; i < args.rows; ++i)
    for (int64_t j = 0; j < args.columns; ++j) {
      const T* x = args.x + i * down + j * across;
      T* v = args.v + (i * args.columns + j) * args.tile_step;
      for (int64_t c = 0; c < args.channels; c += Reg<T>::width) body(x + c, v + c);
    }
}

template <class T>
void winograd_input(const void* erased) {
  const WinogradInputArgs<T>& args = *static_cast<const WinogradInputArgs<T>*>(erased);
  winograd_each_tile(args, [&](const T* x, T* v) __attribute__((always_inline)) {
    winograd_input_line<0>(x, args.row_step, args.position_step, v, args.point_step);
    winograd_input_line<1>(x, args.row_step, args.position_step, v, args.point_step);
    winograd_input_line<2>(x, args.row_step, args.position_step, v, args.point_step);
    winograd_input_line<3>(x, args.row_step, args.position_step, v, args.point_step);
  });
}

// A' of four points.
template <int Tile, class V>
FASTCONV_INLINE void winograd_output_line(V a, V b, V c, V d, V (&line)[Tile]) {
  line[0] = a + b + c;
  if constexpr (Tile == 2) {
    line[1] = b - c - d;
  } else {
    line[1] = b - c;
    line[2] = b + c - d;
  }
}

// A' m A. A product of a result with zero is added to `guard`: it stays zero as long as all results are finite.
template <class T, int TileRows, int TileColumns>
void winograd_output(const void* erased) {
  using V = Reg<T>;
  const WinogradOutputArgs<T>& args = *static_cast<const WinogradOutputArgs<T>*>(erased);
  const int64_t row = TileColumns * args.columns * args.ldc;
  V guard = V::zero();
  for (int64_t i = 0; i < args.rows; ++i)
    for (int64_t j = 0; j < args.columns; ++j) {
      const T* m = args.m + (i * args.columns + j) * args.tile_step;
      T* y = args.y + i * TileRows * row + j * TileColumns * args.ldc;
      for (int64_t n = 0; n < args.cols; n += V::width) {
        V s[kWinogradSide][TileColumns];
#pragma GCC unroll 4
        for (int line = 0; line < kWinogradSide; ++line) {
          const T* from = m + n + line * kWinogradSide * args.point_step;
          winograd_output_line<TileColumns>(V::load(from), V::load(from + args.point_step),
                                            V::load(from + 2 * args.point_step), V::load(from + 3 * args.point_step),
                                            s[line]);
        }
#pragma GCC unroll 3
        for (int k = 0; k < TileColumns; ++k) {
          V of_column[TileRows];
          winograd_output_line<TileRows>(s[0][k], s[1][k], s[2][k], s[3][k], of_column);
#pragma GCC unroll 3
          for (int r = 0; r < TileRows; ++r) {
            guard = V::fma(of_column[r], V::zero(), guard);
            of_column[r].store(y + n + r * row + k * args.ldc);
          }
        }
      }
    }
  *args.finite = guard.sum() == T(0);
}

// A of a tile's values.
template <int Tile, class V>
FASTCONV_INLINE void winograd_gradient_line(const V (&y)[Tile], V (&line)[kWinogradSide]) {
  V ends = y[0];
  if constexpr (Tile == 3) ends = y[0] + y[2];
  line[0] = y[0];
  line[1] = ends + y[1];
  line[2] = ends - y[1];
  line[3] = V::zero() - y[Tile - 1];
}

// A y A'.
template <class T, int TileRows, int TileColumns>
void winograd_gradient(const void* erased) {
  using V = Reg<T>;
  const WinogradInputArgs<T>& args = *static_cast<const WinogradInputArgs<T>*>(erased);
  winograd_each_tile(args, [&](const T* x, T* v) __attribute__((always_inline)) {
    V s[TileColumns][kWinogradSide];
#pragma GCC unroll 3
    for (int k = 0; k < TileColumns; ++k) {
      V y[TileRows];
#pragma GCC unroll 3
      for (int r = 0; r < TileRows; ++r) y[r] = V::load(x + r * args.row_step + k * args.position_step);
      winograd_gradient_line<TileRows>(y, s[k]);
    }
#pragma GCC unroll 4
    for (int line = 0; line < kWinogradSide; ++line, v += kWinogradSide * args.point_step) {
      V y[TileColumns], points[kWinogradSide];
#pragma GCC unroll 3
      for (int k = 0; k < TileColumns; ++k) y[k] = s[k][line];
      winograd_gradient_line<TileColumns>(y, points);
#pragma GCC unroll 4
      for (int i = 0; i < kWinogradSide; ++i) points[i].store(v + i * args.point_step);
    }
  });
}

// G' of four points, for the taps of `Tile` outputs.
template <int Tile, class V>
FASTCONV_INLINE void winograd_taps_line(V a, V b, V c, V d, V (&line)[winograd_taps_of(Tile)]) {
  const V half = V::broadcast(typename V::element(0.5)), sum = half * (b + c), difference = half * (b - c);
  line[0] = a + sum;
  if constexpr (Tile == 2) {
    line[1] = difference;
    line[2] = sum + d;
  } else {
    line[1] = difference + d;
  }
}

template <class T, int TileRows, int TileColumns>
void winograd_taps(const void* erased) {
  using V = Reg<T>;
  constexpr int down = winograd_taps_of(TileRows), across = winograd_taps_of(TileColumns);
  const WinogradTapsArgs<T>& args = *static_cast<const WinogradTapsArgs<T>*>(erased);
  V largest = V::zero();
  for (int64_t i = 0; i < args.count; i += V::width) {
    T* m = args.m + i;
    V s[kWinogradSide][down];
#pragma GCC unroll 4
    for (int j = 0; j < kWinogradSide; ++j) {
      const T* from = m + j * args.point_step;
      winograd_taps_line<TileRows>(V::load(from), V::load(from + 4 * args.point_step),
                                   V::load(from + 8 * args.point_step), V::load(from + 12 * args.point_step), s[j]);
    }
#pragma GCC unroll 3
    for (int k = 0; k < down; ++k) {
      V line[across];
      winograd_taps_line<TileColumns>(s[0][k], s[1][k], s[2][k], s[3][k], line);
#pragma GCC unroll 3
      for (int j = 0; j < across; ++j) {
        line[j].store(m + (k * across + j) * args.point_step);
        largest = V::max_nan(V::max_nan(line[j], V::zero() - line[j]), largest);
      }
    }
  }
  T lane[V::width];
  largest.store(lane);
  *args.largest = lane[0];
  for (int i = 1; i < V::width; ++i)
    if (lane[i] > *args.largest || lane[i] != lane[i]) *args.largest = lane[i];
}

}  // namespace

#define FASTCONV_WINOGRAD_EACH_TILE(function, T)                                     \
  {                                                                                  \
    {function<T, 2, 2>, function<T, 2, 3>}, { function<T, 3, 2>, function<T, 3, 3> } \
  }
#define FASTCONV_WINOGRAD(T)                                                                                           \
  FASTCONV_WINOGRAD_EACH_TILE(winograd_weight, T), winograd_input<T>, FASTCONV_WINOGRAD_EACH_TILE(winograd_output, T), \
      FASTCONV_WINOGRAD_EACH_TILE(winograd_gradient, T), FASTCONV_WINOGRAD_EACH_TILE(winograd_taps, T)
