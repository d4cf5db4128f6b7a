// Eight tile registers: four sums (2 tiles of rows x 2 of columns), two tiles of rows, two of columns. The pairs of
// parts are in an order in which each shares one side with the one before, so that a step of six has 14 loads for 24
// products; the largest product comes last, so that a short sum is rounded at its full size once.
#include "cpu/simd/tile_amx.h"
#include "cpu/simd/vec_avx512.h"

#include "cpu/conv/tile_kernels.h"
#include "cpu/conv/winograd.h"

namespace {

using fastconv::TileArgs;

// Pairs of parts of the first and of the second operand.
struct Highest {
  static constexpr int parts = 3, products = 6;
  static constexpr int a[] = {2, 1, 1, 0, 0, 0}, b[] = {0, 0, 1, 1, 2, 0};
};
struct Exact16 {  // float16 is two parts: with all four products nothing is left out
  static constexpr int parts = 2, products = 4;
  static constexpr int a[] = {1, 1, 0, 0}, b[] = {0, 1, 1, 0};
};
struct High {
  static constexpr int parts = 2, products = 3;
  static constexpr int a[] = {1, 0, 0}, b[] = {0, 0, 1};
};
struct Medium {
  static constexpr int parts = 1, products = 1;
  static constexpr int a[] = {0}, b[] = {0};
};

constexpr int kTileElements = kTileCols * kTileDepth;

// Product i of a step and those after it. Sums are tiles 0 to 3, rows 4 and 5, columns 6 and 7.
template <class Pairs, int Rows, int Cols, int i>
FASTCONV_INLINE void multiply(const uint16_t* a, int64_t a_part, int64_t a_row, const uint16_t* b) {
  constexpr int pa = Pairs::a[i], pb = Pairs::b[i], before = i > 0 ? i - 1 : 0;
  if constexpr (i == 0 || pa != Pairs::a[before]) {
    tile_load<4>(a + pa * a_part, 2 * a_row);
    if constexpr (Rows > 1) tile_load<5>(a + pa * a_part + kTileRows * a_row, 2 * a_row);
  }
  if constexpr (i == 0 || pb != Pairs::b[before]) {
    tile_load<6>(b + pb * 2 * kTileElements, 64);
    if constexpr (Cols > 1) tile_load<7>(b + (pb * 2 + 1) * kTileElements, 64);
  }
  tile_dot<0, 4, 6>();
  if constexpr (Cols > 1) tile_dot<1, 4, 7>();
  if constexpr (Rows > 1) tile_dot<2, 5, 6>();
  if constexpr (Rows > 1 && Cols > 1) tile_dot<3, 5, 7>();
  if constexpr (i + 1 < Pairs::products) multiply<Pairs, Rows, Cols, i + 1>(a, a_part, a_row, b);
}

// Not inlined, so that each size of tile is one loop to look at.
template <class Pairs, int Rows, int Cols>
__attribute__((noinline)) void tile_block(const TileArgs& args, const uint16_t* a, const uint16_t* b, float* c) {
  const int64_t c_stride = 4 * args.ldc;
  float* const lower = c + kTileRows * args.ldc;
  if (args.accumulate) {
    tile_load<0>(c, c_stride);
    if constexpr (Cols > 1) tile_load<1>(c + kTileCols, c_stride);
    if constexpr (Rows > 1) tile_load<2>(lower, c_stride);
    if constexpr (Rows > 1 && Cols > 1) tile_load<3>(lower + kTileCols, c_stride);
  } else {
    tile_zero<0>();
    if constexpr (Cols > 1) tile_zero<1>();
    if constexpr (Rows > 1) tile_zero<2>();
    if constexpr (Rows > 1 && Cols > 1) tile_zero<3>();
  }
  const int64_t steps = args.steps, a_part = args.a_part, a_row = args.a_row;
  const int64_t* const offsets = args.offsets;
  for (int64_t s = 0; s < steps; ++s, b += Pairs::parts * 2 * kTileElements)
    multiply<Pairs, Rows, Cols, 0>(a + offsets[s], a_part, a_row, b);
  tile_store<0>(c, c_stride);
  if constexpr (Cols > 1) tile_store<1>(c + kTileCols, c_stride);
  if constexpr (Rows > 1) tile_store<2>(lower, c_stride);
  if constexpr (Rows > 1 && Cols > 1) tile_store<3>(lower + kTileCols, c_stride);
}

// Rows outside, so that what they read of the first operand stays in the first-level cache over all columns.
template <class Pairs>
void tile_gemm(const TileArgs* erased) {
  const TileArgs args = *erased;
  tile_configure();
  for (int64_t m = 0; m < args.row_tiles; m += 2) {
    const bool two_rows = m + 1 < args.row_tiles;
    const uint16_t* const a = args.a + m * kTileRows * args.a_row;
    for (int64_t n = 0; n < args.col_tiles; n += 2) {
      const bool two_cols = n + 1 < args.col_tiles;
      const uint16_t* const b = args.b + n / 2 * args.b_panel;
      float* const c = args.c + m * kTileRows * args.ldc + n * kTileCols;
      if (two_rows && two_cols)
        tile_block<Pairs, 2, 2>(args, a, b, c);
      else if (two_rows)
        tile_block<Pairs, 2, 1>(args, a, b, c);
      else if (two_cols)
        tile_block<Pairs, 1, 2>(args, a, b, c);
      else
        tile_block<Pairs, 1, 1>(args, a, b, c);
    }
  }
  tile_release();
}

typedef int32_t Words __attribute__((vector_size(64)));

// The largest magnitudes of what was split, lane by lane.
struct Largest {
  Words most = {};

  FASTCONV_INLINE void see(Reg<float> values) {
    const Words magnitude = (Words)values.v & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  FASTCONV_INLINE uint32_t bits() const {
    int32_t largest = 0;
    for (int i = 0; i < Reg<float>::width; ++i) largest = most[i] > largest ? most[i] : largest;
    return static_cast<uint32_t>(largest);
  }
};

// The next part of the values, in the upper halves of the words, and what it leaves over.
FASTCONV_INLINE Words next_part(Reg<float>& rest) {
  typedef Reg<float> V;
  // Rounded to nearest, ties to even, in the integers of the bits.
  const Words bits = (Words)rest.v;
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) & ~0xffff;
  rest = rest - V{(V::raw)rounded};
  return rounded;
}

FASTCONV_INLINE Words upper_half(Words words) {
  typedef uint32_t unsigned_words __attribute__((vector_size(64)));
  return (Words)((unsigned_words)words >> 16);
}

template <int Parts>
uint32_t split(const float* values, int64_t count, uint16_t* to, int64_t part_step) {
  typedef Reg<float> V;
  typedef uint16_t halves __attribute__((vector_size(32)));
  Largest largest;
  for (int64_t i = 0; i < count; i += V::width) {
    V rest = V::load(values + i);
    largest.see(rest);
#pragma GCC unroll 3
    for (int p = 0; p < Parts; ++p) {
      const halves part = __builtin_convertvector(upper_half(next_part(rest)), halves);
      memcpy(to + p * part_step + i, &part, sizeof part);
    }
  }
  return largest.bits();
}

// A pair of rows makes a row of words: the even one in their lower halves.
template <int Parts>
uint32_t split_panel(const float* values, uint16_t* to) {
  typedef Reg<float> V;
  constexpr int64_t cols = fastconv::kPanelCols;
  Largest largest;
  for (int64_t n = 0; n < cols; n += kTileCols)
    for (int64_t k = 0; k < kTileDepth; k += 2, to += 2 * kTileCols) {
      V even = V::load(values + k * cols + n), odd = V::load(values + (k + 1) * cols + n);
      largest.see(even);
      largest.see(odd);
#pragma GCC unroll 3
      for (int p = 0; p < Parts; ++p) {
        const Words lower = upper_half(next_part(even)), pairs = lower | next_part(odd);
        memcpy(to + p * fastconv::kPanelStep, &pairs, sizeof pairs);
      }
    }
  return largest.bits();
}

}  // namespace

namespace fastconv {

#define FASTCONV_TILE_ROW(name, level, Pairs)                                                 \
  {{"tiles", "tiles_f32_" name "_32x32_amx", Isa::amx, Dtype::f32, 32, 32, Precision::level}, \
   Pairs::parts,                                                                              \
   Pairs::products,                                                                           \
   tile_gemm<Pairs>,                                                                          \
   split<Pairs::parts>,                                                                       \
   split_panel<Pairs::parts>}

const TileKernel tile_kernels_amx[] = {
    FASTCONV_TILE_ROW("6", highest, Highest),
    FASTCONV_TILE_ROW("4", high, Exact16),
    FASTCONV_TILE_ROW("3", high, High),
    FASTCONV_TILE_ROW("1", medium, Medium),
};
const int tile_kernel_count_amx = 4;

// At lower levels the transforms would lose what the parts still hold.
const WinogradKernel winograd_kernels_amx[] = {
    {{"winograd", "winograd_f32_2x2_amx", Isa::amx, Dtype::f32, kWinogradTile, kTileCols},
     FASTCONV_WINOGRAD(float),
     &tile_kernels_amx[0]},
};
const int winograd_kernel_count_amx = 1;

}  // namespace fastconv
