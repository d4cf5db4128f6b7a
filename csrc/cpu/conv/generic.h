// The convolution kernels over a register type: included once by each ISA file, after its vec_<isa>.h.
#pragma once

#include "cpu/conv/depthwise.h"
#include "cpu/conv/kernels.h"

namespace {

using fastconv::GemmArgs;
using fastconv::Segment;

// Outer products in registers: `Rows` broadcast values times `Vectors` registers of the packed panel a step, so
// Rows * Vectors FMAs for Rows + Vectors loads. Bound by the FMA units when Rows * Vectors is at least their
// latency times their number. A call's sum starts from zero and is then added to c: a long reduction is summed in
// blocks, with a smaller error than one running sum.
template <class T, int Rows, int Vectors>
void gather_gemm(const void* erased) {
  using V = Reg<T>;
  const GemmArgs<T>& args = *static_cast<const GemmArgs<T>*>(erased);
  constexpr int cols = Vectors * V::width;
  V acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[m][v] = V::zero();

  for (int64_t s = 0; s < args.segment_count; ++s) {
    const Segment segment = args.segments[s];
    const T* a[Rows];
#pragma GCC unroll 16
    for (int m = 0; m < Rows; ++m) a[m] = args.a[m] + segment.a;
    const T* b = args.b + segment.b * cols;
    for (int64_t p = 0; p < segment.length; ++p, b += cols) {
      V column[Vectors];
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) column[v] = V::load(b + v * V::width);
#pragma GCC unroll 16
      for (int m = 0; m < Rows; ++m) {
        const V value = V::broadcast(a[m][p]);
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) acc[m][v] = V::fma(value, column[v], acc[m][v]);
      }
    }
  }

#pragma GCC unroll 16
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      T* c = args.c + m * args.ldc + v * V::width;
      (args.accumulate ? V::load(c) + acc[m][v] : acc[m][v]).store(c);
    }
}

// One stage of a transpose in registers: rows i and i + half, interleaved, become rows 2i and 2i + 1.
template <class V>
FASTCONV_INLINE void interleave(const V& a, const V& b, V& low, V& high) {
  typename V::mask low_index, high_index;
  for (int i = 0; i < V::width; ++i) {
    low_index[i] = i / 2 + (i % 2) * V::width;
    high_index[i] = V::width / 2 + i / 2 + (i % 2) * V::width;
  }
  low.v = __builtin_shuffle(a.v, b.v, low_index);
  high.v = __builtin_shuffle(a.v, b.v, high_index);
}

template <class T>
void transpose(int64_t rows, int64_t cols, const void* source, int64_t lds, void* target, int64_t ldd,
               const void* bias_values) {
  using V = Reg<T>;
  constexpr int width = V::width, half = width / 2;
  const T* src = static_cast<const T*>(source);
  const T* bias = static_cast<const T*>(bias_values);
  T* dst = static_cast<T*>(target);
  int64_t i = 0;
  for (; i + width <= rows; i += width) {
    int64_t j = 0;
    for (; j + width <= cols; j += width) {
      V x[width], y[width];
#pragma GCC unroll 16
      for (int r = 0; r < width; ++r) x[r] = V::load(src + (i + r) * lds + j);
#pragma GCC unroll 4
      for (int stage = 1; stage < width; stage *= 2) {
#pragma GCC unroll 8
        for (int r = 0; r < half; ++r) interleave(x[r], x[r + half], y[2 * r], y[2 * r + 1]);
#pragma GCC unroll 16
        for (int r = 0; r < width; ++r) x[r] = y[r];
      }
#pragma GCC unroll 16
      for (int r = 0; r < width; ++r) {
        if (bias) x[r] = x[r] + V::broadcast(bias[j + r]);
        x[r].store(dst + (j + r) * ldd + i);
      }
    }
    for (; j < cols; ++j)
      for (int r = 0; r < width; ++r)
        dst[j * ldd + i + r] = bias ? src[(i + r) * lds + j] + bias[j] : src[(i + r) * lds + j];
  }
  for (; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) dst[j * ldd + i] = bias ? src[i * lds + j] + bias[j] : src[i * lds + j];
}

}  // namespace

// The rows of one tile: gemm[r - 1] for r = 1 .. Rows.
#define FASTCONV_GEMM_ROWS_4(T, V) \
  gather_gemm<T, 1, V>, gather_gemm<T, 2, V>, gather_gemm<T, 3, V>, gather_gemm<T, 4, V>
#define FASTCONV_GEMM_ROWS_6(T, V) FASTCONV_GEMM_ROWS_4(T, V), gather_gemm<T, 5, V>, gather_gemm<T, 6, V>
#define FASTCONV_GEMM_ROWS_12(T, V)                                                                                    \
  FASTCONV_GEMM_ROWS_6(T, V), gather_gemm<T, 7, V>, gather_gemm<T, 8, V>, gather_gemm<T, 9, V>, gather_gemm<T, 10, V>, \
      gather_gemm<T, 11, V>, gather_gemm<T, 12, V>

#define FASTCONV_CONV_ROW(isa, T, letter, Rows, Cols, Vectors)                                                    \
  {                                                                                                               \
    {"conv", "conv_gather_gemm_" letter "_" #Rows "x" #Cols "_" #isa, Isa::isa, DtypeOf<T>::value, Rows, Cols}, { \
      FASTCONV_GEMM_ROWS_##Rows(T, Vectors)                                                                       \
    }                                                                                                             \
  }

// The tables that every ISA has alike.
#define FASTCONV_CONV_COMMON_TABLES(isa, f32_lanes, f64_lanes)                                               \
  const DepthwiseKernel depthwise_kernels_##isa[] = {                                                        \
      {{"depthwise", "depthwise_f32_" #isa, Isa::isa, Dtype::f32, 1, f32_lanes},                             \
       window<float>,                                                                                        \
       lanes<float>,                                                                                         \
       lanes_dot<float>},                                                                                    \
      {{"depthwise", "depthwise_f64_" #isa, Isa::isa, Dtype::f64, 1, f64_lanes},                             \
       window<double>,                                                                                       \
       lanes<double>,                                                                                        \
       lanes_dot<double>},                                                                                   \
  };                                                                                                         \
  const int depthwise_kernel_count_##isa = 2;                                                                \
  const TransposeKernel transpose_kernels_##isa[] = {                                                        \
      {{"transpose", "transpose_f32_" #isa, Isa::isa, Dtype::f32, f32_lanes, f32_lanes}, transpose<float>},  \
      {{"transpose", "transpose_f64_" #isa, Isa::isa, Dtype::f64, f64_lanes, f64_lanes}, transpose<double>}, \
  };                                                                                                         \
  const int transpose_kernel_count_##isa = 2;
