// A block's part of a product of matrices of 16-bit numbers, on tensor cores: two operands come to shared memory by
// asynchronous copies, 32 steps of the sum at a time, two such stages ahead of the one that is multiplied. Each warp
// keeps 64 rows by 32 columns of the result in registers. A result's sum runs in one order, whatever its place in a
// tile.
#pragma once

#include "cuda/conv/pack.h"
#include "cuda/dev_async.h"
#include "cuda/dev_matrix.h"

namespace fastconv {
namespace cuda {

constexpr int kSteps = 32;  // of the sum in a stage
constexpr int kStages = 3;  // one is multiplied, the others are on their way
constexpr int kUnit = 16;   // bytes of a piece
constexpr int kWarpRows = 64, kWarpColumns = 32;

template <int Rows, int Columns>
constexpr int kMatrixThreads = (Rows / kWarpRows) * (Columns / kWarpColumns) * 32;

// Blocks that the registers of a processor are shared out for. With one more of any, some would be spilled.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <int Rows, int Columns>
constexpr int kMatrixBlocks = 1;
#else
template <int Rows, int Columns>
constexpr int kMatrixBlocks = kMatrixThreads<Rows, Columns> > 128 ? 1 : 3;
#endif

// Where an operand's pieces lie in a stage. In lines of a side (a row of the left operand, a column of the right one),
// each with four pieces of eight steps; or, `Turned`, in lines of a step, with pieces of eight sides. Pieces are
// permuted so that the eight that a matrix consists of lie in different banks.
template <bool Turned, int Sides>
struct Layout {
  static constexpr int kLines = Turned ? kSteps : Sides;
  static constexpr int kPieces = (Turned ? Sides : kSteps) / kPiece;  // of a line
  static constexpr int kSize = Sides * kSteps / kPiece;               // pieces
  static_assert(kPieces == 4 || kPieces % 8 == 0, "as the permutation needs");

  static FASTCONV_DEVICE int place(int line, int piece) {
    return line * kPieces + (piece ^ (kPieces == 4 ? line / 2 % 4 : line % 8));
  }
  // The place of this lane's row of four matrices: sides from `side` and steps from `step` on, 16 of each. The four are
  // the halves of both; `SideFirst`: neighbouring matrices are halves of the sides.
  template <bool SideFirst>
  static FASTCONV_DEVICE int lanes_place(int side, int step) {
    const int lane = static_cast<int>(threadIdx.x) % 32, matrix = lane / 8, row = lane % 8;
    const int side_half = SideFirst ? matrix % 2 : matrix / 2, step_half = SideFirst ? matrix / 2 : matrix % 2;
    if (Turned) return place(step + step_half * 8 + row, side / kPiece + side_half);
    return place(side + side_half * 8 + row, step / kPiece + step_half);
  }
};

// The results of a warp.
template <class S, bool Turned, int Rows, int Columns>
struct WarpTile {
  using Left = Layout<Turned, Rows>;
  using Right = Layout<Turned, Columns>;
  static constexpr int kHigh = kWarpRows / 16, kWide = kWarpColumns / 8;  // small matrices
  float sum[kHigh][kWide][4] = {};

  static FASTCONV_DEVICE int first_row() {
    return static_cast<int>(threadIdx.x) / 32 / (Columns / kWarpColumns) * kWarpRows;
  }
  static FASTCONV_DEVICE int first_column() {
    return static_cast<int>(threadIdx.x) / 32 % (Columns / kWarpColumns) * kWarpColumns;
  }

  FASTCONV_DEVICE void add_stage(const unsigned char* left, const unsigned char* right) {
    FASTCONV_UNROLL
    for (int step = 0; step < kSteps; step += 16) {
      unsigned b[kWide / 2][4];  // each of two columns of matrices
      FASTCONV_UNROLL
      for (int j = 0; j < kWide / 2; ++j)
        dev::load_matrices<Turned>(right + Right::template lanes_place<false>(first_column() + 16 * j, step) * kUnit,
                                   b[j]);
      FASTCONV_UNROLL
      for (int i = 0; i < kHigh; ++i) {
        unsigned a[4];
        dev::load_matrices<Turned>(left + Left::template lanes_place<true>(first_row() + 16 * i, step) * kUnit, a);
        FASTCONV_UNROLL
        for (int j = 0; j < kWide; ++j)
          dev::multiply(S{}, a, {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}, sum[i][j]);
      }
    }
  }

  // Calls put(cursor, column, value) for each result. They go by way of shared memory, so that the lanes of a warp have
  // neighbours each time: rows of a column if `along_rows`, otherwise columns of a row. `cursor_at` makes a cursor of a
  // row's number, whose next() goes on to the next one. All threads of the block call it, between barriers.
  template <class CursorAt, class Put>
  FASTCONV_DEVICE void store(bool along_rows, const CursorAt& cursor_at, const Put& put) const {
    constexpr int pass_rows = 32, pitch = kWarpColumns + 1;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    float* const scratch = dev::shared_memory<float>() + warp * pass_rows * pitch;
    FASTCONV_NO_UNROLL
    for (int pass = 0; pass < kWarpRows / pass_rows; ++pass) {
      FASTCONV_UNROLL
      for (int i = 0; i < kHigh; ++i) {
        if (i * 16 / pass_rows != pass) continue;
        FASTCONV_UNROLL
        for (int j = 0; j < kWide; ++j) FASTCONV_UNROLL
        for (int k = 0; k < 4; ++k)
          scratch[(i * 16 % pass_rows + lane / 4 + k / 2 * 8) * pitch + j * 8 + lane % 4 * 2 + k % 2] = sum[i][j][k];
      }
      __syncwarp();
      auto cursor = cursor_at(first_row() + pass * pass_rows + (along_rows ? lane : 0));
      FASTCONV_NO_UNROLL
      for (int n = 0; n < 32; ++n) {
        const int row = along_rows ? lane : n, column = along_rows ? n : lane;
        put(cursor, first_column() + column, scratch[row * pitch + column]);
        if (!along_rows) cursor.next();
      }
      __syncwarp();
    }
  }
};
static_assert(kWarpColumns == 32, "a lane a column");

template <int Rows, int Columns>
constexpr std::size_t kMatrixShared = std::size_t{kStages} * (Rows + Columns) * kSteps / kPiece * kUnit;

// tile += the product of `stages` stages. `left` and `right` start the copies of their part of the next stage, whose
// memory they are given, and are called in turn. All threads of the block call it; it ends with a barrier.
template <class Tile, class Left, class Right>
FASTCONV_DEVICE void add_stages(Tile& tile, Left& left, Right& right, int stages) {
  constexpr int left_size = Tile::Left::kSize * kUnit, size = left_size + Tile::Right::kSize * kUnit;
  unsigned char* memory = dev::shared_memory<unsigned char>();
  const auto fetch = [&](int number) {
    if (number < stages) {
      unsigned char* stage = memory + number % kStages * size;
      left.fetch(stage);
      right.fetch(stage + left_size);
    }
    dev::commit_copies();
  };
  FASTCONV_UNROLL
  for (int i = 0; i < kStages - 1; ++i) fetch(i);
  for (int i = 0; i < stages; ++i) {
    dev::wait_copies<kStages - 2>();
    __syncthreads();  // all copies of this stage are there, and all have multiplied the one before
    fetch(i + kStages - 1);
    const unsigned char* stage = memory + i % kStages * size;
    tile.add_stage(stage, stage + left_size);
  }
  __syncthreads();
}

}  // namespace cuda
}  // namespace fastconv
