// Sums over all samples and positions, split into runs of one length. One thread or block sums a run; then one thread
// adds up a weight's runs in their order. The number of runs follows from the shapes alone, so the result is the same
// each time and on every device.
#pragma once

#include "core/dtype.h"
#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {

struct Runs {
  Index count, length;  // the last one may be shorter, but not empty
};

// About `wanted` runs over `items`, none shorter than `shortest` but an only one, in multiples of `unit`.
inline Runs runs_of(Index items, Index wanted, Index shortest, Index unit = 1) {
  const Index most = std::max<Index>(items / shortest, 1);
  const Index count = std::clamp<Index>(wanted, 1, most);
  const Index length = std::max<Index>(ceil_div(ceil_div(items, count), unit) * unit, 1);
  return {std::max<Index>(ceil_div(items, length), 1), length};
}

// Weight i of `weights`' order is the sum of partial[run * size + i].
template <class P, class S>
__global__ void join_kernel(const P* partial, Index size, Index runs, Walk weights, View<S> gw) {
  for (Index i = dev::first(); i < size; i += dev::step()) {
    double sum = 0;
    for (Index run = 0; run < runs; ++run) sum += static_cast<double>(partial[run * size + i]);
    dev::store(gw.data + offset_of(gw, weights.at(i)), static_cast<Compute<S>>(sum));
  }
}

template <class P, class S>
void join_runs(const Queue& queue, const P* partial, Index runs, const Walk& weights, const ArrayView& gw) {
  launch(queue, grid_of(gw.size()), join_kernel<P, S>, partial, gw.size(), runs, weights, gw.as<S>());
}

}  // namespace cuda
}  // namespace fastconv
