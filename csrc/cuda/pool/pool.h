// Pooling on a device: windows, adaptive bins, powers, and what indices scatter. Views are canonical (N, C, D, H, W).
#pragma once

#include "core/array_view.h"
#include "core/pool_shape.h"
#include "cuda/queue.h"

namespace fastconv {
namespace cuda {

using Indices = View<std::int64_t>;  // flat over an image's spatial positions; data null where there are none

void pool_forward(const Queue& queue, PoolOp op, const ArrayView& x, const PoolShape& shape, const ArrayView& y,
                  const Indices& indices);
void avg_pool_backward(const Queue& queue, const ArrayView& grad_output, const PoolShape& shape,
                       const ArrayView& grad_input);

// The root of the mean (or sum) of powers.
void power_pool_forward(const Queue& queue, double exponent, bool mean, const ArrayView& x, const PoolShape& shape,
                        const ArrayView& y);
void power_pool_backward(const Queue& queue, double exponent, bool mean, const ArrayView& grad_output,
                         const ArrayView& x, const ArrayView& y, const PoolShape& shape, const ArrayView& grad_input);

// Bins of nearly one size; `in` and `out` of each axis are those of x and y.
void adaptive_pool_forward(const Queue& queue, PoolOp op, const ArrayView& x, const ArrayView& y,
                           const Indices& indices);
void adaptive_avg_pool_backward(const Queue& queue, const ArrayView& grad_output, const ArrayView& grad_input);

// Each value goes to the position that its index names: meetings add up, or, without `sum`, the last one stays. An
// index outside the image is passed over.
void scatter(const Queue& queue, bool sum, const ArrayView& values, const Indices& indices, const ArrayView& image);
// What lies where each index points; zero for an index outside the image.
void gather(const Queue& queue, const ArrayView& image, const Indices& indices, const ArrayView& values);

}  // namespace cuda
}  // namespace fastconv
