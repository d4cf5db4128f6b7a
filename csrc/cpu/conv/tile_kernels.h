// The contract of the kernels on tile registers, which multiply bfloat16 and add float32. A float32 number is written
// as a sum of parts, each the rounding to bfloat16 of what those before it left over; three hold all of it. A product
// of numbers is a sum of products of parts, each exact in float32; the smallest of them are left out.
//
//   split      parts[p][i] of values[i]; of a panel's values, also to its layout
//   tile_gemm  c[m][n] (+)= sum over steps s, k < 32, and pairs of parts (p, q) of
//                           a[p][m * a_row + offset[s] + k] * b[q][n / 16][s][k][n % 16]
//
// What splitting does not keep: infinities and NaN, numbers of which parts are subnormal, sums beyond float32's range.
// Drivers look for these and compute what they are in with other kernels.
#pragma once

#include <cstdint>

#include "core/precision.h"
#include "cpu/conv/kernels.h"
#include "cpu/registry.h"

namespace fastconv {

constexpr std::int64_t kPartRun = 32;    // values of a row of the first operand in a step
constexpr std::int64_t kPanelTile = 16;  // columns of a tile
constexpr std::int64_t kPanelCols = 32;  // columns of a panel, whose tiles lie side by side
// Elements of one part of a panel in one step: two tiles of 16 pairs of rows, each with 16 columns, a pair's two values
// next to each other.
constexpr std::int64_t kPanelStep = kPartRun * kPanelCols;

// Where a panel's step has the value of row k and column n.
constexpr std::int64_t panel_place(std::int64_t k, std::int64_t n) {
  return n / kPanelTile * (kPartRun * kPanelTile) + (k / 2 * kPanelTile + n % kPanelTile) * 2 + k % 2;
}

struct TileArgs {
  const std::uint16_t* a;  // row m of part p at a + p * a_part + m * a_row; rows up to a multiple of 16 are read
  std::int64_t a_part, a_row;
  const std::int64_t* offsets;  // of each step
  std::int64_t steps;
  const std::uint16_t* b;  // panel j at b + j * b_panel; [step][part][kPanelStep]
  std::int64_t b_panel;
  float* c;  // row m at c + m * ldc
  std::int64_t ldc;
  std::int64_t row_tiles, col_tiles;  // of 16 rows and of 16 columns
  bool accumulate;                    // go on from what c holds
};

struct TileKernel : KernelInfo {
  int parts, products;
  void (*gemm)(const TileArgs* args);
  // Writes part p of `count` values, a multiple of 16, at to + p * part_step; the largest magnitude as bits, those of
  // infinity or more if any value is not finite.
  std::uint32_t (*split)(const float* values, std::int64_t count, std::uint16_t* to, std::int64_t part_step);
  // The same for a step of a panel: from kPartRun rows of kPanelCols values to part after part, as `panel_place` has
  // it.
  std::uint32_t (*split_panel)(const float* values, std::uint16_t* to);
};

#if FASTCONV_HAVE_AMX
extern const TileKernel tile_kernels_amx[];
extern const int tile_kernel_count_amx;
extern const WinogradKernel winograd_kernels_amx[];
extern const int winograd_kernel_count_amx;
#endif

// The kernel for arrays of a type at a level, or null: where there are no tiles, or a row of another kind is forced.
// `forced` says whether it was by name.
const TileKernel* find_tiles(Dtype storage, Precision precision, IsaMask mask, bool& forced);

}  // namespace fastconv
