// Sums over a warp and over a block, in one fixed order.
#pragma once

#include "cuda/dev.h"

namespace fastconv {
namespace dev {

constexpr int kLanes = 32;

// Every lane gets the sum of all 32.
template <class T>
FASTCONV_DEVICE T warp_sum(T value) {
  for (int bits = kLanes / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
  return value;
}

template <class T>
FASTCONV_DEVICE T warp_max(T value) {
  for (int bits = kLanes / 2; bits > 0; bits /= 2) {
    const T other = __shfl_xor_sync(0xffffffffu, value, bits);
    value = other > value || other != other ? other : value;
  }
  return value;
}

// Every thread gets the sum over the block, whose warps are full; `scratch` has room for kLanes numbers.
template <class T>
FASTCONV_DEVICE T block_sum(T value, T* scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes, warp = static_cast<int>(threadIdx.x) / kLanes;
  const int warps = static_cast<int>(blockDim.x) / kLanes;
  value = warp_sum(value);
  __syncthreads();  // the scratch memory of a call before is read
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  return warp_sum(lane < warps ? scratch[lane] : T(0));
}

// The same of the largest; a NaN wins.
template <class T>
FASTCONV_DEVICE T block_max(T value, T* scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes, warp = static_cast<int>(threadIdx.x) / kLanes;
  const int warps = static_cast<int>(blockDim.x) / kLanes;
  value = warp_max(value);
  __syncthreads();
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  return warp_max(scratch[lane < warps ? lane : 0]);
}

}  // namespace dev
}  // namespace fastconv
