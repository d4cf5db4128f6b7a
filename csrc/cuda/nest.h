// Loops over several arrays of one shape, of any rank and strides.
#pragma once

#include "cuda/dev_half.h"
#include "cuda/launch.h"
#include "cuda/operand.h"

namespace fastconv {
namespace cuda {

constexpr int kMostAxes = 8;  // after neighbours that lie in one run have been merged

// N arrays of one shape, as a loop nest with as few axes as possible.
template <int N>
struct Nest {
  int rank = 0;
  Index size = 1;
  Index shape[kMostAxes];
  Index stride[N][kMostAxes];

  // Each array's offset at flat index i in C order.
  FASTCONV_DEVICE void offsets(Index i, Index (&offset)[N]) const {
    for (int k = 0; k < N; ++k) offset[k] = 0;
    for (int axis = rank - 1; axis >= 0; --axis) {
      const Index at = axis == 0 ? i : i % shape[axis];
      if (axis > 0) i /= shape[axis];
      for (int k = 0; k < N; ++k) offset[k] += at * stride[k][axis];
    }
  }
};

// Strides of absent and single operands are zero.
template <int N>
Nest<N> nest_of(const std::vector<Index>& shape, const Operand* const (&arrays)[N]) {
  Nest<N> nest;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    nest.size *= shape[axis];
    if (shape[axis] == 1) continue;
    Index step[N];
    bool joins = nest.rank > 0;
    for (int k = 0; k < N; ++k) {
      const bool strided = arrays[k] && arrays[k]->data;
      step[k] = strided ? arrays[k]->stride[axis] : 0;
      joins = joins && nest.stride[k][nest.rank - 1] == step[k] * shape[axis];
    }
    if (!joins && nest.rank == kMostAxes) fail("x: more than 8 axes that cannot be merged; pass a contiguous array");
    const int at = joins ? nest.rank - 1 : nest.rank++;
    nest.shape[at] = joins ? nest.shape[at] * shape[axis] : shape[axis];
    for (int k = 0; k < N; ++k) nest.stride[k][at] = step[k];
  }
  return nest;
}

}  // namespace cuda
}  // namespace fastconv
