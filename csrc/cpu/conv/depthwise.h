// The depthwise kernels over a register type; part of generic.h.
#pragma once

#include "cpu/conv/kernels.h"

namespace {

using fastconv::LanesArgs;
using fastconv::LanesDotArgs;
using fastconv::RowDotArgs;
using fastconv::WindowArgs;

// Registers of neighbouring outputs that go with `Rows` channels: what hides the latency of the multiply-adds and
// leaves registers for a weight and the inputs.
template <class T>
constexpr int window_vectors(int rows) {
  const int accumulators = Reg<T>::width * sizeof(T) >= 64 ? 24 : 12;
  return accumulators / rows < 4 ? accumulators / rows : 4;
}

// The outputs from i on: a load for every register and tap, shared by all rows. A register that would go beyond the
// last output overlaps its neighbour instead (the same sum, so the same bits).
template <class T, int Rows, int Vectors>
FASTCONV_INLINE void window_block(const WindowArgs<T>& args, int64_t i) {
  using V = Reg<T>;
  int64_t at[Vectors];
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) {
    const int64_t last = args.count - V::width, next = i + j * V::width;
    at[j] = next < last ? next : last;
  }
  V acc[Rows][Vectors];
#pragma GCC unroll 6
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) acc[m][j] = V::zero();
  const T* weights[Rows];
#pragma GCC unroll 6
  for (int m = 0; m < Rows; ++m) weights[m] = args.weights + m * args.weight_step;
  for (int64_t t = 0; t < args.taps; ++t) {
    const T* x = args.x + args.offsets[t];
    V value[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) value[j] = V::load(x + at[j]);
#pragma GCC unroll 6
    for (int m = 0; m < Rows; ++m) {
      const V weight = V::broadcast(weights[m][t]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) acc[m][j] = V::fma(value[j], weight, acc[m][j]);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < Rows; ++m) {
    const V bias = V::broadcast(args.bias ? args.bias[m] : T(0));
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) (acc[m][j] + bias).store(args.y + m * args.y_step + at[j]);
  }
}

// Fewer outputs than a register has.
template <class T>
FASTCONV_INLINE void window_part(const WindowArgs<T>& args, int rows) {
  using V = Reg<T>;
  for (int m = 0; m < rows; ++m) {
    V acc = V::zero();
    const T* weights = args.weights + m * args.weight_step;
    for (int64_t t = 0; t < args.taps; ++t)
      acc = V::fma(V::load(args.x + args.offsets[t]), V::broadcast(weights[t]), acc);
    acc = acc + V::broadcast(args.bias ? args.bias[m] : T(0));
    acc.store_partial(args.y + m * args.y_step, static_cast<int>(args.count));
  }
}

template <class T, int Rows>
void window(const void* erased) {
  constexpr int width = Reg<T>::width, most = window_vectors<T>(Rows);
  const WindowArgs<T>& args = *static_cast<const WindowArgs<T>*>(erased);
  if (args.count < width) return window_part(args, Rows);
  int64_t i = 0;
  for (; i + (most - 1) * width < args.count; i += most * width) window_block<T, Rows, most>(args, i);
  const int64_t left = (args.count - i + width - 1) / width;
  if constexpr (most > 3)
    if (left == 3) window_block<T, Rows, 3>(args, i);
  if constexpr (most > 2)
    if (left == 2) window_block<T, Rows, 2>(args, i);
  if (left == 1) window_block<T, Rows, 1>(args, i);
}

// As many taps at a time as window_vectors, of which the last few may be one tap over and over.
template <class T, int Rows>
void row_dot(const void* erased) {
  using V = Reg<T>;
  constexpr int width = V::width, most = window_vectors<T>(Rows);
  const RowDotArgs<T>& args = *static_cast<const RowDotArgs<T>*>(erased);
  // The register at the end of a row overlaps the one before, of which it leaves out the lanes.
  typename V::mask lane;
  for (int i = 0; i < width; ++i) lane[i] = i;
  const typename V::mask last = lane >= static_cast<typename IntOf<T>::type>(width - args.count % width);
  for (int64_t t = 0; t < args.taps; t += most) {
    const T* x[most];
#pragma GCC unroll 4
    for (int j = 0; j < most; ++j) x[j] = args.x + args.offsets[t + j < args.taps ? t + j : args.taps - 1];
    V acc[Rows][most];
#pragma GCC unroll 6
    for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < most; ++j) acc[m][j] = V::zero();
    for (int64_t r = 0; r < args.rows; ++r) {
      const T* grad = args.grad + r * args.grad_step;
      const auto add = [&](int64_t i, auto&& taken) __attribute__((always_inline)) {
        V value[most];
#pragma GCC unroll 4
        for (int j = 0; j < most; ++j) value[j] = V::load(x[j] + i);
#pragma GCC unroll 6
        for (int m = 0; m < Rows; ++m) {
          const V g = taken(V::load(grad + m * args.grad_channel + i));
#pragma GCC unroll 4
          for (int j = 0; j < most; ++j) acc[m][j] = V::fma(g, value[j], acc[m][j]);
        }
      };
      int64_t i = 0;
      for (; i + width <= args.count; i += width) add(i, [](V g) { return g; });
      if (i < args.count) add(args.count - width, [&](V g) { return V::select(last, g, V::zero()); });
#pragma GCC unroll 4
      for (int j = 0; j < most; ++j) x[j] += args.x_step;
    }
#pragma GCC unroll 4
    for (int j = 0; j < most; ++j) {
      if (t + j >= args.taps) break;
#pragma GCC unroll 6
      for (int m = 0; m < Rows; ++m) {
        T* sum = args.sums + ((t + j) * Rows + m) * width;
        (V::load(sum) + acc[m][j]).store(sum);
      }
    }
  }
}

// Registers of channels that a block of some positions has. Where neighbouring outputs share inputs, a cache line at
// most, so that the weights of a row have registers too; else so many that their sums hide the latency of the
// multiply-adds.
template <class T>
constexpr int lanes_vectors(int positions, int taps) {
  if (taps > 3) return 1;
  const int line = Reg<T>::width * sizeof(T) >= 64 ? 1 : 2;
  return taps > 0 || positions > 4 ? line : positions > 2 ? 2 : 4;
}

// `Positions` neighbouring outputs of `Vectors` registers of channels. `Taps` is the number of taps along the row where
// neighbouring outputs, `Step` inputs apart, share inputs; 0 for any number of taps.
template <class T, int Positions, int Vectors, int Taps, int Step>
FASTCONV_INLINE void lanes_block(const LanesArgs<T>& args, const T* x, T* y, int64_t c) {
  using V = Reg<T>;
  const int64_t step = args.x_step[1], input = args.x_tap[2];
  V acc[Positions][Vectors];
#pragma GCC unroll 8
  for (int j = 0; j < Positions; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[j][v] = V::zero();
  for (int64_t d = 0; d < args.taps[0]; ++d)
    for (int64_t h = 0; h < args.taps[1]; ++h) {
      const T* row = x + d * args.x_tap[0] + h * args.x_tap[1] + c;
      const T* weights = args.weights + d * args.w_tap[0] + h * args.w_tap[1] + c;
      if constexpr (Taps > 0) {
        V weight[Taps][Vectors];
#pragma GCC unroll 8
        for (int t = 0; t < Taps; ++t)
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) weight[t][v] = V::load(weights + t * args.w_tap[2] + v * V::width);
#pragma GCC unroll 24
        for (int p = 0; p < (Positions - 1) * Step + Taps; ++p)
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) {
            const V value = V::load(row + p * input + v * V::width);
#pragma GCC unroll 8
            for (int t = 0; t < Taps; ++t)
              if (p >= t && (p - t) % Step == 0 && (p - t) / Step < Positions)
                acc[(p - t) / Step][v] = V::fma(value, weight[t][v], acc[(p - t) / Step][v]);
          }
      } else {
        for (int64_t t = 0; t < args.taps[2]; ++t, row += input, weights += args.w_tap[2])
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v) {
            const V weight = V::load(weights + v * V::width);
#pragma GCC unroll 8
            for (int j = 0; j < Positions; ++j)
              acc[j][v] = V::fma(V::load(row + j * step + v * V::width), weight, acc[j][v]);
          }
      }
    }
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    if (args.bias) {
      const V bias = V::load(args.bias + c + v * V::width);
#pragma GCC unroll 8
      for (int j = 0; j < Positions; ++j) acc[j][v] = acc[j][v] + bias;
    }
  }
  // The next row's output, and the inputs that this row has not read: a channels-last row is too far ahead, and often
  // too long, for the processor's own prefetch.
  const int64_t rows = args.x_step[0] == args.x_tap[1] || args.taps[1] < 2 ? 1 : 2;
  const int64_t cols = step == input || args.taps[2] < 2 ? 1 : 2;
  const T* next = x + args.x_step[0] + (args.taps[1] - rows) * args.x_tap[1] + (args.taps[2] - cols) * input + c;
  constexpr int line = V::width * sizeof(T) >= 64 ? 1 : 2;
  for (int64_t a = 0; a < rows; ++a, next += args.x_tap[1])
    for (int64_t b = 0; b < cols; ++b)
#pragma GCC unroll 8
      for (int j = 0; j < Positions; ++j)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; v += line) __builtin_prefetch(next + j * step + b * input + v * V::width, 0, 2);
#pragma GCC unroll 8
  for (int j = 0; j < Positions; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v += line)
      __builtin_prefetch(y + args.y_step[0] + j * args.y_step[1] + c + v * V::width, 1, 2);
#pragma GCC unroll 8
  for (int j = 0; j < Positions; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[j][v].store(y + j * args.y_step[1] + c + v * V::width);
}

// All channels: cache lines one after the other, so that lines far apart that share a place in the cache are not read
// twice. The last register overlaps the one before where the channels are not whole registers: the same sums, so
// the same bits.
template <class T, int Positions, int Taps, int Step>
FASTCONV_INLINE void lanes_channels(const LanesArgs<T>& args, const T* x, T* y) {
  constexpr int width = Reg<T>::width, vectors = lanes_vectors<T>(Positions, Taps);
  int64_t c = 0;
  for (; c + vectors * width <= args.channels; c += vectors * width)
    lanes_block<T, Positions, vectors, Taps, Step>(args, x, y, c);
  for (; vectors > 1 && c + width <= args.channels; c += width) lanes_block<T, Positions, 1, Taps, Step>(args, x, y, c);
  if (c < args.channels) lanes_block<T, Positions, 1, Taps, Step>(args, x, y, args.channels - width);
}

template <class T, int Taps, int Step>
void lanes_rows(const LanesArgs<T>& args) {
  constexpr int most = 8 / lanes_vectors<T>(8, Taps);
  const int64_t blocks = (args.outputs[1] + most - 1) / most;
  for (int64_t r = 0; r < args.outputs[0]; ++r) {
    const T* x = args.x + r * args.x_step[0];
    T* y = args.y + r * args.y_step[0];
    for (int64_t b = 0, left = args.outputs[1]; b < blocks; ++b) {
      // Blocks of one row differ by one position at most. One or two share too few inputs.
      const int64_t positions = left / (blocks - b);
      if (positions == 1) lanes_channels<T, 1, 0, 1>(args, x, y);
      if (positions == 2) lanes_channels<T, 2, 0, 1>(args, x, y);
      if (positions == 3) lanes_channels<T, 3, Taps, Step>(args, x, y);
      if (positions == 4) lanes_channels<T, 4, Taps, Step>(args, x, y);
      if constexpr (most == 8) {
        if (positions == 5) lanes_channels<T, 5, Taps, Step>(args, x, y);
        if (positions == 6) lanes_channels<T, 6, Taps, Step>(args, x, y);
        if (positions == 7) lanes_channels<T, 7, Taps, Step>(args, x, y);
        if (positions == 8) lanes_channels<T, 8, Taps, Step>(args, x, y);
      }
      x += positions * args.x_step[1];
      y += positions * args.y_step[1];
      left -= positions;
    }
  }
}

template <class T, int Step>
bool lanes_shared(const LanesArgs<T>& args) {
  if (args.x_step[1] != Step * args.x_tap[2]) return false;
  if (args.taps[2] == 3) lanes_rows<T, 3, Step>(args);
  if (args.taps[2] == 5) lanes_rows<T, 5, Step>(args);
  if (args.taps[2] == 7) lanes_rows<T, 7, Step>(args);
  return args.taps[2] == 3 || args.taps[2] == 5 || args.taps[2] == 7;
}

template <class T>
void lanes(const void* erased) {
  const LanesArgs<T>& args = *static_cast<const LanesArgs<T>*>(erased);
  if (!lanes_shared<T, 1>(args) && !lanes_shared<T, 2>(args)) lanes_rows<T, 0, 1>(args);
}

// The sums of Rows x Cols taps of one register of channels.
template <class T, int Rows, int Cols>
FASTCONV_INLINE void dot_taps(const LanesDotArgs<T>& args, const T* x, const T* grad, T* sums) {
  using V = Reg<T>;
  V acc[Rows][Cols];
#pragma GCC unroll 3
  for (int a = 0; a < Rows; ++a)
#pragma GCC unroll 3
    for (int b = 0; b < Cols; ++b) acc[a][b] = V::zero();
  for (int64_t r = 0; r < args.outputs[0]; ++r) {
    const T* row[Rows];
#pragma GCC unroll 3
    for (int a = 0; a < Rows; ++a) row[a] = x + r * args.x_step[0] + a * args.x_tap[0];
    const T* g = grad + r * args.grad_step[0];
    for (int64_t p = 0; p < args.outputs[1]; ++p, g += args.grad_step[1]) {
      const V value = V::load(g);
#pragma GCC unroll 3
      for (int a = 0; a < Rows; ++a) {
#pragma GCC unroll 3
        for (int b = 0; b < Cols; ++b) acc[a][b] = V::fma(V::load(row[a] + b * args.x_tap[1]), value, acc[a][b]);
        row[a] += args.x_step[1];
      }
    }
  }
#pragma GCC unroll 3
  for (int a = 0; a < Rows; ++a)
#pragma GCC unroll 3
    for (int b = 0; b < Cols; ++b) {
      T* sum = sums + a * args.sums_tap[0] + b * args.sums_tap[1];
      (V::load(sum) + acc[a][b]).store(sum);
    }
}

template <class T, int Rows>
FASTCONV_INLINE void dot_rows(const LanesDotArgs<T>& args, const T* x, const T* grad, T* sums) {
  for (int64_t b = 0; b < args.taps[1]; b += 3) {
    const int64_t left = args.taps[1] - b;
    const T* first = x + b * args.x_tap[1];
    T* sum = sums + b * args.sums_tap[1];
    if (left >= 3)
      dot_taps<T, Rows, 3>(args, first, grad, sum);
    else if (left == 2)
      dot_taps<T, Rows, 2>(args, first, grad, sum);
    else
      dot_taps<T, Rows, 1>(args, first, grad, sum);
  }
}

// Nine taps at a time: as many accumulators as hide the FMA's latency, and a load for each.
template <class T>
void lanes_dot(const void* erased) {
  constexpr int width = Reg<T>::width;
  const LanesDotArgs<T>& args = *static_cast<const LanesDotArgs<T>*>(erased);
  for (int64_t slot = 0; slot < args.channels; slot += width) {
    const int64_t c = slot + width <= args.channels ? slot : args.channels - width;
    for (int64_t a = 0; a < args.taps[0]; a += 3) {
      const int64_t left = args.taps[0] - a;
      const T* x = args.x + a * args.x_tap[0] + c;
      T* sums = args.sums + a * args.sums_tap[0] + slot;
      if (left >= 3)
        dot_rows<T, 3>(args, x, args.grad + c, sums);
      else if (left == 2)
        dot_rows<T, 2>(args, x, args.grad + c, sums);
      else
        dot_rows<T, 1>(args, x, args.grad + c, sums);
    }
  }
}

}  // namespace
