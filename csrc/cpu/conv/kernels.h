// The contract of the convolution kernels. Every pass of every convolution is one of two inner loops:
//
//   gather_gemm   dense and grouped:  c[m][n] (+)= sum over segments s, p < s.len of  a[m][s.a + p] * b[(s.b + p) *
//   cols + n] window        depthwise:          y[i]      =  sum over taps t of                 x[offset[t] + i] * w[t]
//   lanes         the same with channels side by side:  y[p][c] = sum over taps t of  x[offset[t] + p * step + c] *
//   w[t][c] lanes_dot     its weight gradient: r[c] +=      sum over segments s, p < s.len of  a[s.a + p][c] * b[s.b +
//   p][c]
//
// Formulas hold for any values, NaN and infinity included: no kernel multiplies by a zero of its own making.
// The order of the sum of one result depends on the segments only, never on the tile around it or on the tile's width.
// `a` may be read exactly where the formula says, `x` up to kWindowSlack elements further (what is read there reaches
// no result); `b` is packed in panels of `cols` columns.
#pragma once

#include <cstdint>

#include "cpu/registry.h"

namespace fastconv {

// A run of the reduction: where it starts in each row of the first operand and in the packed second operand.
struct Segment {
  std::int64_t a;
  std::int64_t b;
  std::int64_t length;
};

template <class T>
struct GemmArgs {
  const T* const* a;  // one pointer a row of the tile
  const T* b;
  const Segment* segments;
  std::int64_t segment_count;
  T* c;  // row m at c + m * ldc, `cols` values each
  std::int64_t ldc;
  bool accumulate;  // add to c instead of overwriting it
};

constexpr int kMaxTileRows = 12;

struct ConvKernel : KernelInfo {
  // gemm[r - 1] computes r rows; tile_rows and tile_cols are the largest tile.
  using Gemm = void (*)(const void* args);
  Gemm gemm[kMaxTileRows];
};

constexpr int kWindowSlack = 16;

template <class T>
struct WindowArgs {
  const T* x;
  const std::int64_t* offsets;
  const T* weights;
  std::int64_t taps;
  T bias;
  T* y;
  std::int64_t count;
};

// Channels come in blocks of a whole number of registers of every instruction set.
constexpr int kLaneBlock = 32;

template <class T>
struct LanesArgs {
  const T* x;
  const std::int64_t* offsets;
  const T* weights;  // [tap][kLaneBlock]
  std::int64_t taps;
  std::int64_t step;  // elements between the inputs of neighbouring outputs
  std::int64_t count;
  T* y;  // [output][kLaneBlock]
};

template <class T>
struct LanesDotArgs {
  const T* a;  // [position][kLaneBlock], as b
  const T* b;
  const Segment* segments;
  std::int64_t segment_count;
  T* sums;  // [kLaneBlock]
};

struct DepthwiseKernel : KernelInfo {
  void (*window)(const void* args);
  void (*lanes)(const void* args);
  void (*lanes_dot)(const void* args);
};

// dst[j * ldd + i] = src[i * lds + j] (+ bias[j]) for i < rows, j < cols.
struct TransposeKernel : KernelInfo {
  void (*run)(std::int64_t rows, std::int64_t cols, const void* src, std::int64_t lds, void* dst, std::int64_t ldd,
              const void* bias);
};

#define FASTCONV_DECLARE_CONV_TABLES(isa)                 \
  extern const ConvKernel conv_kernels_##isa[];           \
  extern const int conv_kernel_count_##isa;               \
  extern const DepthwiseKernel depthwise_kernels_##isa[]; \
  extern const int depthwise_kernel_count_##isa;          \
  extern const TransposeKernel transpose_kernels_##isa[]; \
  extern const int transpose_kernel_count_##isa;
FASTCONV_DECLARE_CONV_TABLES(baseline)
#if FASTCONV_HAVE_AVX2
FASTCONV_DECLARE_CONV_TABLES(avx2)
#endif
#if FASTCONV_HAVE_AVX512
FASTCONV_DECLARE_CONV_TABLES(avx512)
#endif
#undef FASTCONV_DECLARE_CONV_TABLES

// Choice: pure functions of dtype, problem and instruction sets. `cols` is the number of columns per group.
const ConvKernel& select_conv(Dtype dtype, std::int64_t cols, IsaMask mask);
const DepthwiseKernel& select_depthwise(Dtype dtype, IsaMask mask);
const TransposeKernel& select_transpose(Dtype dtype, IsaMask mask);

}  // namespace fastconv
