// The tile registers of AMX: eight matrices of 16 rows of 64 bytes. Two sides: the instructions, and with
// FASTCONV_EMULATE_AMX a model of them in C++ that gives the same bits, to test what is built on them elsewhere.
//
// The instructions are assembly and not the compiler's intrinsics, since these name registers by macros and say nothing
// of the memory that they read.
#pragma once

#include "cpu/simd/vec.h"

namespace {

constexpr int kTileRows = 16;   // rows of a tile
constexpr int kTileDepth = 32;  // bfloat16 values of a row
constexpr int kTileCols = 16;   // float32 values of a row

#if !defined(FASTCONV_EMULATE_AMX)

// What ldtilecfg reads: palette 1, and the size of each tile.
struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Before the first tile, in each thread; all tiles are then full ones.
FASTCONV_INLINE void tile_configure() {
  TileConfig config = {};
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = 64;
    config.rows[i] = kTileRows;
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}
// After the last: the operating system then has no tiles to save.
FASTCONV_INLINE void tile_release() { __asm__ volatile("tilerelease" ::: "memory"); }

template <int Tile>
FASTCONV_INLINE void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(Tile));
}
// Rows lie `stride` bytes apart.
template <int Tile>
FASTCONV_INLINE void tile_load(const void* base, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(base), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
FASTCONV_INLINE void tile_store(void* base, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(base), "r"(stride), "i"(Tile) : "memory");
}
// sum[m][n] += sum over k < 32 of a[m][k] * b[k / 2][n][k % 2].
template <int Sum, int A, int B>
FASTCONV_INLINE void tile_dot() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
}

#else

struct EmulatedTile {
  alignas(64) unsigned char bytes[kTileRows * 64];
};
thread_local EmulatedTile emulated_tiles[8];

FASTCONV_INLINE void tile_configure() { memset(emulated_tiles, 0, sizeof emulated_tiles); }
// What is read of a tile after its release shows: not a number.
FASTCONV_INLINE void tile_release() { memset(emulated_tiles, 0xff, sizeof emulated_tiles); }

template <int Tile>
FASTCONV_INLINE void tile_zero() {
  memset(emulated_tiles[Tile].bytes, 0, sizeof(EmulatedTile));
}
template <int Tile>
FASTCONV_INLINE void tile_load(const void* base, int64_t stride) {
  for (int m = 0; m < kTileRows; ++m)
    memcpy(emulated_tiles[Tile].bytes + m * 64, static_cast<const char*>(base) + m * stride, 64);
}
template <int Tile>
FASTCONV_INLINE void tile_store(void* base, int64_t stride) {
  for (int m = 0; m < kTileRows; ++m)
    memcpy(static_cast<char*>(base) + m * stride, emulated_tiles[Tile].bytes + m * 64, 64);
}

// As Intel's manual has TDPBF16PS: of each result the products of even and of odd k are summed apart, each by fused
// multiply-adds from zero in the order of k; then both sums are added, and that to the result. Subnormal operands count
// as zero and subnormal results become it, which is the mode that kernels run in (parallel.h); the rounding is to
// nearest, ties to even. Not inlined: kernels have dozens of these.
__attribute__((noinline)) void emulated_dot(EmulatedTile& sum, const EmulatedTile& a, const EmulatedTile& b) {
  typedef Vec<float, 8> V;
  typedef uint32_t bits __attribute__((vector_size(32)));
  for (int m = 0; m < kTileRows; ++m)
    for (int half = 0; half < 2; ++half) {
      V even = V::zero(), odd = V::zero();
      for (int k = 0; k < kTileDepth / 2; ++k) {
        bits pairs;
        uint32_t pair;
        memcpy(&pairs, b.bytes + k * 64 + half * 32, 32);
        memcpy(&pair, a.bytes + m * 64 + k * 4, 4);
        const bits left = pair - bits{};
        even = V::fma(V{(V::raw)(left << 16)}, V{(V::raw)(pairs << 16)}, even);
        odd = V::fma(V{(V::raw)(left & 0xffff0000U)}, V{(V::raw)(pairs & 0xffff0000U)}, odd);
      }
      float* const results = reinterpret_cast<float*>(sum.bytes + m * 64 + half * 32);
      (V::load(results) + (even + odd)).store(results);
    }
}
template <int Sum, int A, int B>
FASTCONV_INLINE void tile_dot() {
  emulated_dot(emulated_tiles[Sum], emulated_tiles[A], emulated_tiles[B]);
}

#endif

}  // namespace
