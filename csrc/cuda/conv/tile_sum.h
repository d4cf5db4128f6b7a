// A block's part of a product of matrices: 64 rows by 64 columns, each of its 256 threads 4 by 4 of them, in registers.
// Sixteen steps of the sum at a time come to shared memory, twice over, so that the next ones are on their way
// meanwhile. Every result's sum runs in one order, whatever its place in a tile.
//
// The left operand is the input of the convolution. Its elements in the padding are zeros in the tile, and zero times
// an infinite or NaN number would be a NaN: from the first such number of the right operand on, a block looks each
// input up again before it multiplies.
#pragma once

#include "cuda/dev.h"

namespace fastconv {
namespace cuda {

constexpr int kTile = 64, kDeep = 16, kSide = 4;  // of a block, of a step, of a thread
constexpr int kTileThreads = (kTile / kSide) * (kTile / kSide);
constexpr int kTileBlocks = 1;  // that the registers of a processor are shared out for; two would make it spill some
constexpr int kLoads = kTile * kDeep / kTileThreads;  // elements of each operand that a thread fetches for a step
constexpr int kPitch = kTile + 4;
constexpr int kStage = kDeep * kPitch;

template <class T>
constexpr std::size_t kTileShared = sizeof(T) * 4 * kStage + 16;

// Which of an operand's 64 by 16 elements a thread fetches, one after another. `Deep`: neighbouring threads take
// neighbouring depths, and a thread one depth of four sides; otherwise neighbouring sides, and one side at four depths.
// With either, the depths of a thread lie `kNext` apart, over all its stages.
template <bool Deep>
struct Share {
  static constexpr int kSides = Deep ? kLoads : 1;
  static constexpr int kNext = Deep ? kDeep : kTileThreads / kTile;
  static FASTCONV_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
  static FASTCONV_DEVICE int depth(int i) { return Deep ? thread() % kDeep : thread() / kTile + i * kNext; }
  static FASTCONV_DEVICE int side(int i) {
    return Deep ? thread() / kDeep + i * (kTileThreads / kDeep) : thread() % kTile;
  }
  static FASTCONV_DEVICE bool same_depth(int i) { return Deep && i > 0; }
};

FASTCONV_DEVICE int my_row() { return static_cast<int>(threadIdx.x) / (kTile / kSide) * kSide; }
FASTCONV_DEVICE int my_column() { return static_cast<int>(threadIdx.x) % (kTile / kSide) * kSide; }

template <class T>
FASTCONV_DEVICE bool finite(T value) {
  return value - value == T(0);
}

// total[i][j] += the sum over the next `count` depths of left(my_row() + i, .) * right(my_column() + j, .).
//   Left, Right   have their `Places`, a Share, and next(i): the i-th element that this thread brings to a stage,
//                 asked in order and zero where there is none; both are asked for whole stages
//   padding(i, k) whether left has nothing for row my_row() + i at depth k of these
// `memory` is kTileShared<T> bytes. All threads of the block call it; it ends with a barrier.
template <class T, class Left, class Right, class Padding>
FASTCONV_DEVICE void add_products(Left& left, Right& right, const Padding& padding, int count, T* memory,
                                  T (&total)[kSide][kSide]) {
  T* const lefts = memory;  // two stages, then two of the right operand
  T* const rights = memory + 2 * kStage;
  int* const odd_right = reinterpret_cast<int*>(memory + 4 * kStage);

  T next_left[kLoads], next_right[kLoads];
  const auto fetch = [&] {
    FASTCONV_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      next_left[i] = left.next(i);
      next_right[i] = right.next(i);
    }
  };
  const auto keep = [&](int stage) {
    using L = typename Left::Places;
    using R = typename Right::Places;
    FASTCONV_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      lefts[stage * kStage + L::depth(i) * kPitch + L::side(i)] = next_left[i];
      rights[stage * kStage + R::depth(i) * kPitch + R::side(i)] = next_right[i];
      if (!finite(next_right[i])) *odd_right = 1;
    }
  };

  if (threadIdx.x == 0) *odd_right = 0;
  __syncthreads();
  fetch();
  keep(0);
  __syncthreads();
  for (int begin = 0, stage = 0; begin < count; begin += kDeep, stage ^= 1) {
    const bool more = begin + kDeep < count;
    const bool odd = *odd_right != 0;
    const T* const a = lefts + stage * kStage + my_row();
    const T* const b = rights + stage * kStage + my_column();
    if (more) fetch();
    if (odd) {
      for (int k = 0; k < kDeep && begin + k < count; ++k) FASTCONV_UNROLL
      for (int i = 0; i < kSide; ++i) {
        if (padding(i, begin + k)) continue;
        FASTCONV_UNROLL
        for (int j = 0; j < kSide; ++j) total[i][j] += a[k * kPitch + i] * b[k * kPitch + j];
      }
    } else {
      FASTCONV_UNROLL
      for (int k = 0; k < kDeep; ++k) {
        T row[kSide], column[kSide];
        FASTCONV_UNROLL
        for (int i = 0; i < kSide; ++i) {
          row[i] = a[k * kPitch + i];
          column[i] = b[k * kPitch + i];
        }
        FASTCONV_UNROLL
        for (int i = 0; i < kSide; ++i) FASTCONV_UNROLL
        for (int j = 0; j < kSide; ++j) total[i][j] += row[i] * column[j];
      }
    }
    __syncthreads();  // all have read the flag and this stage
    if (more) keep(stage ^ 1);
    __syncthreads();
  }
}

}  // namespace cuda
}  // namespace fastconv
