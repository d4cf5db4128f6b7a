// The transforms of Winograd's F(2x2, r x s) and F(1x2, 1 x s) over a register type: included once by each ISA file.
// Vectors run along channels, so every step is an addition of registers.
#pragma once

#include "cpu/conv/kernels.h"

namespace {

using fastconv::kWinogradLine;
using fastconv::kWinogradSide;
using fastconv::kWinogradTile;
using fastconv::winograd_has;
using fastconv::WinogradInputArgs;
using fastconv::WinogradOutputArgs;
using fastconv::WinogradTapsArgs;
using fastconv::WinogradWeightArgs;

constexpr int winograd_rows_of_taps(int down) { return down == kWinogradLine ? 1 : down; }

// G g of a run of taps. Points that it lacks are left alone.
template <int Taps, class V, int Count>
FASTCONV_INLINE void winograd_weight_line(const V (&tap)[Count], V (&line)[kWinogradSide]) {
  line[0] = tap[0];
  if constexpr (Taps == 3) {
    const V half = V::broadcast(typename V::element(0.5)), ends = tap[0] + tap[2];
    line[1] = half * (ends + tap[1]);
    line[2] = half * (ends - tap[1]);
  } else if constexpr (Taps == 2) {
    line[1] = tap[0] + tap[1];
  }
  if constexpr (winograd_has(Taps, 3)) line[3] = tap[Count - 1];
}

template <class T, int Down, int Across>
void winograd_weight(const void* erased) {
  using V = Reg<T>;
  const WinogradWeightArgs<T>& args = *static_cast<const WinogradWeightArgs<T>*>(erased);
  constexpr int rows = winograd_rows_of_taps(Down);
  V largest = V::zero();
  for (int64_t c = 0; c < args.channels; ++c)
    for (int64_t n = 0; n < args.cols; n += V::width) {
      const T* taps = args.taps + c * args.channel_step + n;
      V t[Across][kWinogradSide];
#pragma GCC unroll 3
      for (int j = 0; j < Across; ++j) {
        V tap[rows];
#pragma GCC unroll 3
        for (int i = 0; i < rows; ++i) {
          tap[i] = V::load(taps + args.offset[i * Across + j]);
          const V size = V::magnitude(tap[i]);
          largest = V::select(size > largest, size, largest);
        }
        winograd_weight_line<Down>(tap, t[j]);
      }
      T* u = args.u + c * args.cols + n;
#pragma GCC unroll 4
      for (int i = 0; i < kWinogradSide; ++i) {
        if (!winograd_has(Down, i)) continue;
        V tap[Across], line[kWinogradSide];
#pragma GCC unroll 3
        for (int j = 0; j < Across; ++j) tap[j] = t[j][i];
        winograd_weight_line<Across>(tap, line);
#pragma GCC unroll 4
        for (int j = 0; j < kWinogradSide; ++j)
          if (winograd_has(Across, j)) line[j].store(u + (i * kWinogradSide + j) * args.point_step);
      }
    }
  T lanes[V::width];
  largest.store(lanes);
  for (const T lane : lanes) *args.largest = lane > *args.largest ? lane : *args.largest;
}

// One point of B' d, d(i) the inputs of a run of taps.
template <int Taps, int Point, class Input>
FASTCONV_INLINE auto winograd_input_point(Input d) {
  if constexpr (Taps == 3) {
    if constexpr (Point == 0) return d(0) - d(2);
    if constexpr (Point == 1) return d(1) + d(2);
    if constexpr (Point == 2) return d(2) - d(1);
    if constexpr (Point == 3) return d(1) - d(3);
  } else if constexpr (Taps == 2) {
    if constexpr (Point == 0) return d(0) - d(1);
    if constexpr (Point == 1) return d(1);
    if constexpr (Point == 3) return d(1) - d(2);
  } else {
    if constexpr (Point == 0) return d(0);
    if constexpr (Point == 3) return decltype(d(0))::zero() - d(1);
  }
}

// One line of B' d B: first the point of each column of d, then those of its neighbours.
template <int Down, int Across, int Line, class T>
FASTCONV_INLINE void winograd_input_line(const T* x, int64_t row_step, int64_t position_step, T* v,
                                         int64_t point_step) {
  using V = Reg<T>;
  if constexpr (winograd_has(Down, Line)) {
    V t[Across + 1];
#pragma GCC unroll 4
    for (int j = 0; j <= Across; ++j)
      t[j] = winograd_input_point<Down, Line>(
          [&](int i) __attribute__((always_inline)) { return V::load(x + i * row_step + j * position_step); });
    v += Line * kWinogradSide * point_step;
    const auto column = [&](int j) __attribute__((always_inline)) { return t[j]; };
    winograd_input_point<Across, 0>(column).store(v);
    if constexpr (winograd_has(Across, 1)) winograd_input_point<Across, 1>(column).store(v + point_step);
    if constexpr (winograd_has(Across, 2)) winograd_input_point<Across, 2>(column).store(v + 2 * point_step);
    winograd_input_point<Across, 3>(column).store(v + 3 * point_step);
  }
}

// Calls body(x, v) for each tile and register of channels.
template <class T, class Body>
FASTCONV_INLINE void winograd_each_tile(const WinogradInputArgs<T>& args, Body body) {
  for (int64_t i = 0; i < args.rows; ++i)
    for (int64_t j = 0; j < args.columns; ++j) {
      const T* x = args.x + kWinogradTile * (i * args.row_step + j * args.position_step);
      T* v = args.v + (i * args.columns + j) * args.tile_step;
      for (int64_t c = 0; c < args.channels; c += Reg<T>::width) body(x + c, v + c);
    }
}

template <class T, int Down, int Across>
void winograd_input(const void* erased) {
  const WinogradInputArgs<T>& args = *static_cast<const WinogradInputArgs<T>*>(erased);
  winograd_each_tile(args, [&](const T* x, T* v) __attribute__((always_inline)) {
    winograd_input_line<Down, Across, 0>(x, args.row_step, args.position_step, v, args.point_step);
    winograd_input_line<Down, Across, 1>(x, args.row_step, args.position_step, v, args.point_step);
    winograd_input_line<Down, Across, 2>(x, args.row_step, args.position_step, v, args.point_step);
    winograd_input_line<Down, Across, 3>(x, args.row_step, args.position_step, v, args.point_step);
  });
}

// A' of the points that runs of at most so many taps have, m(i) one of them.
template <int Most, class V, class Point>
FASTCONV_INLINE void winograd_output_line(Point m, V (&line)[kWinogradTile]) {
  if constexpr (Most == kWinogradLine) {
    line[0] = m(0);
  } else if constexpr (Most == 1) {
    line[0] = m(0);
    line[1] = V::zero() - m(3);
  } else {
    const V second = m(1);
    line[0] = m(0) + second;
    line[1] = second;
    if constexpr (Most == 3) {
      const V third = m(2);
      line[0] = line[0] + third;
      line[1] = line[1] - third;
    }
    line[1] = line[1] - m(3);
  }
}

// A' m A. A product of a result with zero is added to `guard`: it stays zero as long as all results are finite.
template <class T, int Down, int Across>
void winograd_output(const void* erased) {
  using V = Reg<T>;
  const WinogradOutputArgs<T>& args = *static_cast<const WinogradOutputArgs<T>*>(erased);
  constexpr int tile = kWinogradTile;
  V guard = V::zero();
  for (int64_t i = 0; i < args.rows; ++i)
    for (int64_t j = 0; j < args.columns; ++j) {
      const T* m = args.m + (i * args.columns + j) * args.tile_step;
      T* y = args.y + tile * (i * tile * args.columns + j) * args.ldc;
      for (int64_t n = 0; n < args.cols; n += V::width) {
        V s[kWinogradSide][tile];
#pragma GCC unroll 4
        for (int line = 0; line < kWinogradSide; ++line) {
          if (!winograd_has(Down, line)) continue;
          const T* from = m + n + line * kWinogradSide * args.point_step;
          winograd_output_line<Across>(
              [&](int point) __attribute__((always_inline)) { return V::load(from + point * args.point_step); },
              s[line]);
        }
#pragma GCC unroll 2
        for (int k = 0; k < tile; ++k) {
          V column[tile];
          winograd_output_line<Down>([&](int point) __attribute__((always_inline)) { return s[point][k]; }, column);
#pragma GCC unroll 2
          for (int r = 0; r < tile; ++r) {
            if (r > 0 && Down == kWinogradLine) continue;
            guard = V::fma(column[r], V::zero(), guard);
            column[r].store(y + n + (r * tile * args.columns + k) * args.ldc);
          }
        }
      }
    }
  *args.finite = guard.sum() == T(0);
}

// A y A': the sums and differences of a line's two values, first of each column, then of each row.
template <class T, int Down, int Across>
void winograd_gradient(const void* erased) {
  using V = Reg<T>;
  const WinogradInputArgs<T>& args = *static_cast<const WinogradInputArgs<T>*>(erased);
  winograd_each_tile(args, [&](const T* x, T* v) __attribute__((always_inline)) {
    V s[kWinogradSide][kWinogradTile];
#pragma GCC unroll 2
    for (int k = 0; k < kWinogradTile; ++k) {
      s[0][k] = V::load(x + k * args.position_step);
      if constexpr (Down == kWinogradLine) continue;
      const V below = V::load(x + args.row_step + k * args.position_step);
      s[1][k] = s[0][k] + below;
      s[2][k] = s[0][k] - below;
      s[3][k] = V::zero() - below;
    }
#pragma GCC unroll 4
    for (int line = 0; line < kWinogradSide; ++line, v += kWinogradSide * args.point_step) {
      if (!winograd_has(Down, line)) continue;
      s[line][0].store(v);
      if (winograd_has(Across, 1)) (s[line][0] + s[line][1]).store(v + args.point_step);
      if (winograd_has(Across, 2)) (s[line][0] - s[line][1]).store(v + 2 * args.point_step);
      (V::zero() - s[line][1]).store(v + 3 * args.point_step);
    }
  });
}

// G' of the points, m(i) one of them.
template <int Taps, class V, int Count, class Point>
FASTCONV_INLINE void winograd_taps_line(Point m, V (&line)[Count]) {
  if constexpr (Taps == 3) {
    const V half = V::broadcast(typename V::element(0.5)), sum = half * (m(1) + m(2));
    line[0] = m(0) + sum;
    line[1] = half * (m(1) - m(2));
    line[2] = sum + m(3);
  } else if constexpr (Taps == 2) {
    line[0] = m(0) + m(1);
    line[1] = m(1) + m(3);
  } else if constexpr (Taps == kWinogradLine) {
    line[0] = m(0);
  } else {
    line[0] = m(0) + m(3);
  }
}

template <class T, int Down, int Across>
void winograd_taps(const void* erased) {
  using V = Reg<T>;
  const WinogradTapsArgs<T>& args = *static_cast<const WinogradTapsArgs<T>*>(erased);
  constexpr int rows = winograd_rows_of_taps(Down);
  V largest = V::zero();
  for (int64_t i = 0; i < args.count; i += V::width) {
    T* m = args.m + i;
    V s[kWinogradSide][rows];
#pragma GCC unroll 4
    for (int j = 0; j < kWinogradSide; ++j) {
      if (!winograd_has(Across, j)) continue;
      const T* from = m + j * args.point_step;
      winograd_taps_line<Down>(
          [&](int point)
              __attribute__((always_inline)) { return V::load(from + point * kWinogradSide * args.point_step); },
          s[j]);
    }
#pragma GCC unroll 3
    for (int k = 0; k < rows; ++k) {
      V line[Across];
      winograd_taps_line<Across>([&](int point) __attribute__((always_inline)) { return s[point][k]; }, line);
#pragma GCC unroll 3
      for (int j = 0; j < Across; ++j) {
        line[j].store(m + (k * Across + j) * args.point_step);
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

// clang-format off
#define FASTCONV_WINOGRAD_EACH_RUN(function, T)                                                    \
  {{function<T, 0, 1>, function<T, 0, 2>, function<T, 0, 3>},                                      \
   {function<T, 1, 1>, function<T, 1, 2>, function<T, 1, 3>},                                      \
   {function<T, 2, 1>, function<T, 2, 2>, function<T, 2, 3>},                                      \
   {function<T, 3, 1>, function<T, 3, 2>, function<T, 3, 3>}}
#define FASTCONV_WINOGRAD(T)                                                                       \
  FASTCONV_WINOGRAD_EACH_RUN(winograd_weight, T), FASTCONV_WINOGRAD_EACH_RUN(winograd_input, T),   \
  FASTCONV_WINOGRAD_EACH_RUN(winograd_taps, T), FASTCONV_WINOGRAD_EACH_RUN(winograd_output, T),    \
  FASTCONV_WINOGRAD_EACH_RUN(winograd_gradient, T)
// clang-format on
