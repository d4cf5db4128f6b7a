// Several strided arrays of one shape, walked together: axes of extent 1 dropped, the rest sorted so that the last is
// the densest of one array (the key), neighbours merged where every array allows it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/dtype.h"
#include "core/error.h"

namespace fastconv {

// An array of any rank, its strides in elements.
struct Strided {
  void* data = nullptr;
  std::vector<std::int64_t> shape, stride;

  std::int64_t size() const {
    std::int64_t count = 1;
    for (std::int64_t extent : shape) count *= extent;
    return count;
  }
};

constexpr int kNestRank = 64;  // NumPy's limit

template <int K>
struct LoopNest {
  int rank = 0;
  std::int64_t shape[kNestRank];
  std::int64_t stride[K][kNestRank];

  // `skip` is an axis to leave out (-1: none).
  LoopNest(const Strided* const (&arrays)[K], int key, int skip = -1) {
    const std::vector<std::int64_t>& extents = arrays[key]->shape;
    if (extents.size() > kNestRank) fail("too many axes");
    for (int axis = 0; axis < static_cast<int>(extents.size()); ++axis) {
      if (axis == skip || extents[axis] == 1) continue;
      shape[rank] = extents[axis];
      for (int k = 0; k < K; ++k) stride[k][rank] = arrays[k]->stride[axis];
      ++rank;
    }
    for (int i = 1; i < rank; ++i)
      for (int j = i; j > 0 && std::abs(stride[key][j - 1]) < std::abs(stride[key][j]); --j) swap_axes(j - 1, j);
    int kept = 0;
    for (int i = 1; i < rank; ++i) {
      bool mergeable = true;
      for (int k = 0; k < K; ++k) mergeable &= stride[k][kept] == shape[i] * stride[k][i];
      if (!mergeable) ++kept;
      shape[kept] = mergeable ? shape[kept] * shape[i] : shape[i];
      for (int k = 0; k < K; ++k) stride[k][kept] = stride[k][i];
    }
    rank = rank > 0 ? kept + 1 : 0;
  }

  std::int64_t inner() const { return rank > 0 ? shape[rank - 1] : 1; }
  std::int64_t inner_stride(int k) const { return rank > 0 ? stride[k][rank - 1] : 1; }

  // Offset of array k's element number `flat` in the nest's order.
  std::int64_t offset(int k, std::int64_t flat) const {
    std::int64_t sum = 0;
    for (int i = rank - 1; i >= 0; --i) {
      sum += flat % shape[i] * stride[k][i];
      flat /= shape[i];
    }
    return sum;
  }

  // Elements [flat, flat + count) of array k as one dense run: in place where they lie so, else copied to `buffer`, as
  // 16-bit ones always are, and widened.
  template <class S>
  const Compute<S>* run(int k, const S* base, std::int64_t flat, std::int64_t count, Compute<S>* buffer) const {
    const std::int64_t length = inner();
    if constexpr (is_wide<S>) {
      if (rank <= 1 && inner_stride(k) == 1) return base + flat;
      if (inner_stride(k) == 1 && flat % length + count <= length) return base + offset(k, flat);
    }
    std::int64_t done = 0;
    do {
      const std::int64_t begin = (flat + done) % length, some = std::min(length - begin, count - done);
      copy_strided(buffer + done, base + offset(k, flat + done), inner_stride(k), some);
      done += some;
    } while (done < count);
    return buffer;
  }

  template <class S>
  static void copy_strided(Compute<S>* dense, const S* from, std::int64_t step, std::int64_t count) {
    if (step == 1) {
      widen_run(from, dense, count);
    } else {
      for (std::int64_t i = 0; i < count; ++i) dense[i] = widen(from[i * step]);
    }
  }

 private:
  void swap_axes(int i, int j) {
    std::swap(shape[i], shape[j]);
    for (int k = 0; k < K; ++k) std::swap(stride[k][i], stride[k][j]);
  }
};

}  // namespace fastconv
