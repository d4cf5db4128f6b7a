// The convolution kernels over a register type: included once by each ISA file, after its vec_<isa>.h.
#pragma once

#include "cpu/conv/depthwise.h"
#include "cpu/conv/kernels.h"
#include "cpu/conv/winograd.h"
#include "cpu/simd/lanes.h"

namespace {

using fastconv::GemmArgs;
using fastconv::Segment;

// Outer products in registers: `Rows` broadcast values times `Vectors` registers of the packed panel a step, so
// Rows * Vectors FMAs for Rows + Vectors loads. Bound by the FMA units when Rows * Vectors is at least their
// latency times their number. A call's sum starts from zero and others are then added to it: a long reduction is summed
// in blocks, with a smaller error than one running sum.
template <class T, int Rows, int Vectors, bool Fetches = false>
void gather_gemm(const void* erased) {
  using V = Reg<T>;
  const GemmArgs<T>& args = *static_cast<const GemmArgs<T>*>(erased);
  constexpr int cols = Vectors * V::width;
  V acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[m][v] = V::zero();

  const void* const* fetch = args.fetch;
  for (int64_t s = 0; s < args.segment_count; ++s) {
    for (int64_t i = 0; Fetches && i < args.fetch_each; ++i) __builtin_prefetch(*fetch++, 0, 2);
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

  if (const T* sums = args.sums) {
    const int64_t step = args.sums_step;
#pragma GCC unroll 16
    for (int m = 0; m < Rows; ++m, sums += step)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) acc[m][v] = V::load(sums + v * V::width) + acc[m][v];
  }
  T* c = args.c;
  const int64_t ldc = args.ldc;
#pragma GCC unroll 16
  for (int m = 0; m < Rows; ++m, c += ldc)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[m][v].store(c + v * V::width);
}

// The same outer products where a step's values of all rows lie side by side; added to c.
template <class T, int Rows, int Vectors>
void outer_sum(const void* erased) {
  using V = Reg<T>;
  const fastconv::OuterArgs<T>& args = *static_cast<const fastconv::OuterArgs<T>*>(erased);
  V acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) acc[m][v] = V::zero();
  const T* a = args.a;
  const T* b = args.b;
  for (int64_t p = 0; p < args.depth; ++p, a += args.a_step, b += args.b_step) {
    V column[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) column[v] = V::load(b + v * V::width);
#pragma GCC unroll 16
    for (int m = 0; m < Rows; ++m) {
      const V value = V::broadcast(a[m]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) acc[m][v] = V::fma(value, column[v], acc[m][v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      T* c = args.c + m * args.ldc + v * V::width;
      (V::load(c) + acc[m][v]).store(c);
    }
}

// A few rows of b side by side, along all columns: reads them in the order of memory, each once for all rows of a.
template <class T, int Rows>
void product(const void* erased) {
  using V = Reg<T>;
  const fastconv::ProductArgs<T>& args = *static_cast<const fastconv::ProductArgs<T>*>(erased);
  constexpr int vectors = 2;
  for (int64_t n = 0; n < args.columns; n += vectors * V::width) {
    V acc[Rows][vectors];
#pragma GCC unroll 4
    for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v)
        acc[m][v] = args.accumulate ? V::load(args.c + m * args.ldc + n + v * V::width) : V::zero();
    const T* b = args.b + n;
    for (int64_t k = 0; k < args.depth; ++k, b += args.ldb) {
      V line[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) line[v] = V::load(b + v * V::width);
#pragma GCC unroll 4
      for (int m = 0; m < Rows; ++m) {
        const V value = V::broadcast(args.a[m][k]);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) acc[m][v] = V::fma(value, line[v], acc[m][v]);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) acc[m][v].store(args.c + m * args.ldc + n + v * V::width);
  }
}

// One stage of a transpose in registers: swaps the upper of each two neighbouring blocks of `Size` lanes of a with the
// lower one of b. Blocks of half a register, of a quarter, ... and of one lane make a square's rows its columns.
template <int Size, class V>
FASTCONV_INLINE void swap_blocks(V& a, V& b) {
  typename V::mask low, high;
  for (int i = 0; i < V::width; ++i) {
    low[i] = (i & Size) ? V::width + i - Size : i;
    high[i] = (i & Size) ? V::width + i : i + Size;
  }
  const V first = a;
  a.v = __builtin_shuffle(first.v, b.v, low);
  b.v = __builtin_shuffle(first.v, b.v, high);
}

template <int Size, class V>
FASTCONV_INLINE void transpose_square(V (&x)[V::width]) {
#pragma GCC unroll 16
  for (int r = 0; r < V::width; ++r)
    if (!(r & Size)) swap_blocks<Size>(x[r], x[r + Size]);
  if constexpr (Size > 1) transpose_square<Size / 2>(x);
}

// Rows of a power of two of bytes share few sets of the first-level cache and are too many streams to be foreseen:
// lines are asked for so many bytes ahead, into the second level.
constexpr int64_t kAhead = 640;

template <class T>
void transpose(int64_t rows, int64_t cols, const void* source, int64_t lds, void* target, int64_t ldd,
               const void* bias_values) {
  using V = Reg<T>;
  constexpr int width = V::width;
  const T* src = static_cast<const T*>(source);
  const T* bias = static_cast<const T*>(bias_values);
  T* dst = static_cast<T*>(target);
  const auto square = [&](int64_t i, int64_t j, int height, int columns) __attribute__((always_inline)) {
    V x[width];
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r) x[r] = r < height ? load_lanes<V>(src + (i + r) * lds + j, columns) : V::zero();
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r)
      if (r < height && j % (64 / int64_t{sizeof(T)}) == 0)
        __builtin_prefetch(src + (i + r) * lds + j + kAhead / int64_t{sizeof(T)}, 0, 2);
    transpose_square<width / 2>(x);
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r) {
      if (r >= columns) break;
      if (bias) x[r] = x[r] + V::broadcast(bias[j + r]);
      store_lanes(x[r], dst + (j + r) * ldd + i, height);
    }
  };
  int64_t i = 0;
  for (; i + width <= rows; i += width) {
    int64_t j = 0;
    for (; j + width <= cols; j += width) square(i, j, width, width);
    if (j < cols) square(i, j, width, static_cast<int>(cols - j));
  }
  const int rest = static_cast<int>(rows - i);
  for (int64_t j = 0; rest > 0 && j < cols; j += width)
    square(i, j, rest, static_cast<int>(cols - j < width ? cols - j : width));
}

// The same sum with b's columns contiguous: squares of b are transposed in registers. Two of them, so that one chain of
// FMAs is not waited for.
template <class T, int Rows>
void turned_product(const void* erased) {
  using V = Reg<T>;
  const fastconv::ProductArgs<T>& args = *static_cast<const fastconv::ProductArgs<T>*>(erased);
  constexpr int width = V::width, squares = 2;
  const T* b[squares][width];  // past the last column: that one again
  for (int64_t n = 0; n < squares * width; ++n)
    b[n / width][n % width] = args.b + (n < args.columns ? n : args.columns - 1) * args.ldb;
  V acc[Rows][squares];
#pragma GCC unroll 4
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 2
    for (int s = 0; s < squares; ++s) acc[m][s] = V::zero();
  const auto add_square = [&](int s, int64_t from) __attribute__((always_inline)) {
    V x[width];
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r) x[r] = V::load(b[s][r] + from);
    transpose_square<width / 2>(x);
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r)
#pragma GCC unroll 4
      for (int m = 0; m < Rows; ++m) acc[m][s] = V::fma(V::broadcast(args.a[m][from + r]), x[r], acc[m][s]);
  };
  // The second one comes a few lines later: where columns lie a power of two apart, the cache has no room for more of
  // the same line of each.
  const int64_t whole = args.depth / width * width, behind = whole < 8 * width ? whole : 8 * width;
  int64_t k = 0;
  for (; k < behind; k += width) add_square(0, k);
  for (; k < whole; k += width) {
    add_square(0, k);
    add_square(1, k - behind);
  }
  for (k = whole - behind; k < whole; k += width) add_square(1, k);
  for (; k < args.depth; ++k)
    for (int s = 0; s < squares; ++s) {
      T line[width];
      for (int r = 0; r < width; ++r) line[r] = b[s][r][k];
      for (int m = 0; m < Rows; ++m) acc[m][s] = V::fma(V::broadcast(args.a[m][k]), V::load(line), acc[m][s]);
    }
#pragma GCC unroll 4
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 2
    for (int s = 0; s < squares; ++s) {
      T* c = args.c + m * args.ldc + s * width;
      (args.accumulate ? V::load(c) + acc[m][s] : acc[m][s]).store(c);
    }
}

}  // namespace

// A kernel for each number of rows of one tile, 1 .. Rows.
#define FASTCONV_TILES_4(kernel, T, V) kernel<T, 1, V>, kernel<T, 2, V>, kernel<T, 3, V>, kernel<T, 4, V>
#define FASTCONV_TILES_6(kernel, T, V) FASTCONV_TILES_4(kernel, T, V), kernel<T, 5, V>, kernel<T, 6, V>
#define FASTCONV_TILES_12(kernel, T, V)                                                                \
  FASTCONV_TILES_6(kernel, T, V), kernel<T, 7, V>, kernel<T, 8, V>, kernel<T, 9, V>, kernel<T, 10, V>, \
      kernel<T, 11, V>, kernel<T, 12, V>

#define FASTCONV_CONV_ROW(isa, T, letter, Rows, Cols, Vectors)                                                 \
  {{"conv", "conv_gather_gemm_" letter "_" #Rows "x" #Cols "_" #isa, Isa::isa, DtypeOf<T>::value, Rows, Cols}, \
   {FASTCONV_TILES_##Rows(gather_gemm, T, Vectors)},                                                           \
   {FASTCONV_TILES_##Rows(outer_sum, T, Vectors)},                                                             \
   gather_gemm<T, Rows, Vectors, true>}

#define FASTCONV_ROWS_6(kernel, T) {kernel<T, 1>, kernel<T, 2>, kernel<T, 3>, kernel<T, 4>, kernel<T, 5>, kernel<T, 6>}
#define FASTCONV_PRODUCTS(kernel, T) {kernel<T, 1>, kernel<T, 2>, kernel<T, 3>, kernel<T, 4>}

// The tables that every ISA has alike.
#define FASTCONV_CONV_COMMON_TABLES(isa, f32_lanes, f64_lanes)                                               \
  const DepthwiseKernel depthwise_kernels_##isa[] = {                                                        \
      {{"depthwise", "depthwise_f32_" #isa, Isa::isa, Dtype::f32, 1, f32_lanes},                             \
       FASTCONV_ROWS_6(window, float),                                                                       \
       FASTCONV_ROWS_6(row_dot, float),                                                                      \
       lanes<float>,                                                                                         \
       lanes_dot<float>},                                                                                    \
      {{"depthwise", "depthwise_f64_" #isa, Isa::isa, Dtype::f64, 1, f64_lanes},                             \
       FASTCONV_ROWS_6(window, double),                                                                      \
       FASTCONV_ROWS_6(row_dot, double),                                                                     \
       lanes<double>,                                                                                        \
       lanes_dot<double>},                                                                                   \
  };                                                                                                         \
  const int depthwise_kernel_count_##isa = 2;                                                                \
  const TransposeKernel transpose_kernels_##isa[] = {                                                        \
      {{"transpose", "transpose_f32_" #isa, Isa::isa, Dtype::f32, f32_lanes, f32_lanes}, transpose<float>},  \
      {{"transpose", "transpose_f64_" #isa, Isa::isa, Dtype::f64, f64_lanes, f64_lanes}, transpose<double>}, \
  };                                                                                                         \
  const int transpose_kernel_count_##isa = 2;                                                                \
  const ProductKernel product_kernels_##isa[] = {                                                            \
      {{"product", "product_f32_" #isa, Isa::isa, Dtype::f32, 4, 2 * f32_lanes},                             \
       FASTCONV_PRODUCTS(product, float),                                                                    \
       FASTCONV_PRODUCTS(turned_product, float)},                                                            \
      {{"product", "product_f64_" #isa, Isa::isa, Dtype::f64, 4, 2 * f64_lanes},                             \
       FASTCONV_PRODUCTS(product, double),                                                                   \
       FASTCONV_PRODUCTS(turned_product, double)},                                                           \
  };                                                                                                         \
  const int product_kernel_count_##isa = 2;                                                                  \
  const WinogradKernel winograd_kernels_##isa[] = {                                                          \
      {{"winograd", "winograd_f32_2x2_" #isa, Isa::isa, Dtype::f32, kWinogradTile, f32_lanes},               \
       FASTCONV_WINOGRAD(float),                                                                             \
       nullptr},                                                                                             \
      {{"winograd", "winograd_f64_2x2_" #isa, Isa::isa, Dtype::f64, kWinogradTile, f64_lanes},               \
       FASTCONV_WINOGRAD(double),                                                                            \
       nullptr},                                                                                             \
  };                                                                                                         \
  const int winograd_kernel_count_##isa = 2;
