// Sums of 16-bit arrays on tensor cores.
#pragma once

#include "cuda/conv/pack.h"
#include "cuda/conv/runs.h"
#include "cuda/conv/tiles.h"

namespace fastconv {
namespace cuda {

// Whether the device has tensor cores for the dtype.
bool products_serve(Dtype dtype);

// y = map(sum + bias), by x as `pack_image` gives it; but nothing where `odd`, if any, is raised, because zeros stand
// for the padding.
void conv_products(const Queue& queue, const TileSum& sum, const ArrayView& packed, const ArrayView& bias,
                   const ArrayView& y, const void* filter, const int* odd);

// Sums over runs of positions of the products of the output's gradient and the input, both as `pack_image` gives them:
// partial[run][output channel][tap][input channel]; but nothing where `odd`, if any, is raised.
Runs weight_product_runs(const TileSum& sum);
void conv_weight_products(const Queue& queue, const TileSum& sum, const ArrayView& grad_output, const ArrayView& x,
                          const Runs& runs, float* partial, const int* odd);

}  // namespace cuda
}  // namespace fastconv
