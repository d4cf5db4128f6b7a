// The contract of the convolution kernels. Every pass of every convolution is one of a few inner loops:
//
//   gather_gemm  dense and grouped: c[m][n] = sums[m][n] + sum over segments s, p < s.length of
//                                                a[m][s.a + p] * b[(s.b + p) * cols + n]
//   outer_sum    rows packed:       c[m][n] += sum over p < depth of a[p * a_step + m] * b[p * b_step + n]
//   product      few rows:          c[m][n] (+)= sum over k of a[m][k] * b[k][n]
//   row_dot      few channels:      sums[t][m] += sum over rows r and i of grad[m][r][i] * x[offset[t] + r * step + i]
//   window       few channels:      y[m][i] = sum over taps t of x[offset[t] + i] * w[m][t]
//   lanes        the same, channels side by side: y[o][c] = sum over taps t of x[input(o, t)][c] * w[t][c]
//   lanes_dot    its weight gradient: sums[t][c] += sum over outputs o of grad[o][c] * x[input(o, t)][c]
//
//   winograd     the transforms around 16 products, of gather_gemm, outer_sum or on tile registers, that serve tiles of
//                2x2 outputs, or around 4 that serve 1x2
//
// Formulas hold for any values, NaN and infinity included: no kernel multiplies by a zero of its own making; those of
// winograd hold for finite results, and it tells when some are not.
// The order of the sum of one result depends on the segments only, never on the tile around it or on the tile's width;
// a segment cut in two gives the same sum.
// `a` may be read exactly where the formula says, `x` up to kWindowSlack elements further (what is read there reaches
// no result); `b` is packed in panels of `cols` columns.
#pragma once

#include <cstdint>
#include <limits>

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
  const T* sums;  // added to the results, row m at sums + m * sums_step; or null
  std::int64_t sums_step;
  // Of `fetching`: lines of memory that are needed later, asked for a few at a time so that nothing waits, `fetch_each`
  // of them in each segment.
  const void* const* fetch = nullptr;
  std::int64_t fetch_each = 0;
};

// The rows of the first operand side by side at each step of the sum.
template <class T>
struct OuterArgs {
  const T* a;
  std::int64_t a_step;
  const T* b;
  std::int64_t b_step;
  std::int64_t depth;
  T* c;  // as above
  std::int64_t ldc;
};

constexpr int kMaxTileRows = 12;

struct ConvKernel : KernelInfo {
  // gemm[r - 1] and outer[r - 1] compute r rows; tile_rows and tile_cols are the largest tile, which `fetching`
  // computes as gemm does.
  using Gemm = void (*)(const void* args);
  Gemm gemm[kMaxTileRows];
  Gemm outer[kMaxTileRows];
  Gemm fetching;
};

constexpr int kWindowSlack = 16;

// Rows of y share what is read of x: output channel m at y + m * y_step, its weights at weights + m * weight_step.
template <class T>
struct WindowArgs {
  const T* x;
  const std::int64_t* offsets;
  const T* weights;
  std::int64_t weight_step;
  std::int64_t taps;
  const T* bias;  // of each row, or null
  T* y;
  std::int64_t y_step;
  std::int64_t count;
};

constexpr int kMostWindowRows = 6;

// A rectangle of outputs (rows, positions of a row) that have the same taps (along depth, rows and positions); channels
// side by side, at least one register of them. Steps count elements between neighbours.
template <class T>
struct LanesArgs {
  const T* x;  // what the first tap of the first output reads
  const T* weights;
  const T* bias;  // or null
  T* y;
  std::int64_t channels;
  std::int64_t outputs[2], x_step[2], y_step[2];
  std::int64_t taps[3], x_tap[3], w_tap[3];
};

// The weight gradient's sums over a rectangle of outputs, of each of its taps (along rows and positions). Sums of tap
// t: register i of the channels at i * width, though the last register overlaps the one before where the channels are
// not whole registers.
template <class T>
struct LanesDotArgs {
  const T* x;  // what the first tap of the first output reads
  const T* grad;
  T* sums;
  std::int64_t channels;
  std::int64_t outputs[2], x_step[2], grad_step[2];
  std::int64_t taps[2], x_tap[2], sums_tap[2];
};

// Gradient rows of m channels, of at least a register each, against the inputs of each tap. The lanes of a sum are
// apart: those of tap t and channel m at sums + (t * channels of the kernel + m) * width.
template <class T>
struct RowDotArgs {
  const T* grad;
  std::int64_t grad_channel, grad_step;
  const T* x;
  const std::int64_t* offsets;
  std::int64_t x_step;
  std::int64_t rows, count;
  std::int64_t taps;
  T* sums;
};

struct DepthwiseKernel : KernelInfo {
  void (*window[kMostWindowRows])(const void* args);   // window[m - 1] computes m rows
  void (*row_dot[kMostWindowRows])(const void* args);  // row_dot[m - 1] takes m channels
  void (*lanes)(const void* args);
  void (*lanes_dot)(const void* args);
};

// dst[j * ldd + i] = src[i * lds + j] (+ bias[j]) for i < rows, j < cols.
struct TransposeKernel : KernelInfo {
  void (*run)(std::int64_t rows, std::int64_t cols, const void* src, std::int64_t lds, void* dst, std::int64_t ldd,
              const void* bias);
};

// c[m][n] (+)= sum over k < depth of a[m][k] * b[k][n], along many columns; a sum goes on from what c holds.
template <class T>
struct ProductArgs {
  const T* const* a;  // one pointer a row
  std::int64_t depth;
  const T* b;
  std::int64_t ldb;
  T* c;
  std::int64_t ldc;
  std::int64_t columns;  // of `run`: a multiple of tile_cols
  bool accumulate;
};

// run[r - 1] computes r rows. `turned` takes b[n][k] at b + n * ldb + k, any columns up to tile_cols, and writes all of
// tile_cols; its sum starts from zero and is then added to c, if at all.
struct ProductKernel : KernelInfo {
  void (*run[4])(const void* args);
  void (*turned[4])(const void* args);
};

// Winograd's F(2x2, r x s): A' [(G g G') * (B' d B)] A for 2x2 outputs, r x s weights g and as many inputs d as they
// read, where * multiplies point by point. Along a dimension three taps have the points 0, 1, -1 and infinity, two all
// but -1, one the first and the last: 16 products for 36, 9 for 16, 4 for 4. A is the same for all, so that runs of
// taps may be added up at the points. A line of outputs, with one tap down, is F(1x2, 1 x s): it has the points of the
// first row, 4 products for 6. An output is made of inputs of its own window only. Summed over channels, the
// products of one point are a matrix product. The weight gradient is the transpose: G' [sum over tiles of (A y A') *
// (B' d B)] G for 2x2 values y of the output's gradient, a matrix product over tiles.
constexpr int kWinogradTile = 2, kWinogradTaps = 3, kWinogradSide = 4, kWinogradPoints = kWinogradSide * kWinogradSide;
constexpr int kWinogradLine = 0;  // in place of the taps down of a line
constexpr bool winograd_has(int taps, int point) {
  return taps == kWinogradLine ? point == 0 : point % 3 == 0 || point < taps;
}
constexpr int winograd_points(int taps) { return taps + 1; }
// The transforms of weights and of their gradients halve twice. Where the largest of some numbers is smaller than this,
// that may lose what the definition keeps.
template <class T>
constexpr T kWinogradSmallest = std::numeric_limits<T>::min() * T(1 << 26);

// G g G' of each channel and column: point p at u + p * point_step + channel * cols.
template <class T>
struct WinogradWeightArgs {
  const T* taps;  // tap t, row by row, of a channel at taps + channel * channel_step + offset[t], `cols` values
  std::int64_t offset[9];
  std::int64_t channel_step, channels, cols;
  T* u;
  std::int64_t point_step;
  T* largest;  // becomes the largest magnitude of the taps, NaNs aside, where that is larger
};

// B' d B of rows x columns tiles, the channels of a position side by side, in whole registers.
template <class T>
struct WinogradInputArgs {
  const T* x;
  std::int64_t row_step, position_step, rows, columns, channels;
  T* v;
  std::int64_t tile_step, point_step;
};

// A' m A of rows x columns tiles, as 2 rows (a line: one) x 2 columns positions side by side, each of `cols` values,
// ldc apart.
template <class T>
struct WinogradOutputArgs {
  const T* m;
  std::int64_t tile_step, point_step, rows, columns, cols;
  T* y;
  std::int64_t ldc;
  bool* finite;  // whether all results are
};

// G' m G of each element: tap t, row by row, at m + t * point_step, in place of the points.
template <class T>
struct WinogradTapsArgs {
  T* m;
  std::int64_t point_step, count;  // a multiple of the kernel's tile_cols
  T* largest;                      // magnitude of a tap; NaN if one is
};

struct WinogradKernel : KernelInfo {
  using Function = void (*)(const void* args);
  using ByTaps = Function[kWinogradTaps + 1][kWinogradTaps];  // a line or 1 to 3 down, and 1 to 3 across
  ByTaps weight, input, taps;                                 // of a run
  ByTaps output, gradient;         // of the longest runs; gradient: A y A' of WinogradInputArgs
  const struct TileKernel* tiles;  // makes the products instead of gather_gemm, or null
};

#define FASTCONV_DECLARE_CONV_TABLES(isa)                 \
  extern const ConvKernel conv_kernels_##isa[];           \
  extern const int conv_kernel_count_##isa;               \
  extern const DepthwiseKernel depthwise_kernels_##isa[]; \
  extern const int depthwise_kernel_count_##isa;          \
  extern const TransposeKernel transpose_kernels_##isa[]; \
  extern const int transpose_kernel_count_##isa;          \
  extern const ProductKernel product_kernels_##isa[];     \
  extern const int product_kernel_count_##isa;            \
  extern const WinogradKernel winograd_kernels_##isa[];   \
  extern const int winograd_kernel_count_##isa;
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
// `along`: how many numbers lie along registers.
const DepthwiseKernel& select_depthwise(Dtype dtype, std::int64_t along, IsaMask mask);
const TransposeKernel& select_transpose(Dtype dtype, IsaMask mask);
const ProductKernel& select_product(Dtype dtype, IsaMask mask);
// Which ones they would be.
const ConvKernel& find_conv(Dtype dtype, std::int64_t cols, IsaMask mask);
const DepthwiseKernel& find_depthwise(Dtype dtype, std::int64_t along, IsaMask mask);
// With products on vectors, or with those on tiles at a level, where there are any (else null).
const WinogradKernel& find_winograd(Dtype dtype, IsaMask mask);
const WinogradKernel* find_winograd_on_tiles(Dtype dtype, Precision precision, IsaMask mask);

}  // namespace fastconv
