// Pooling: which kernel, which blocks, which threads. The memory order of a result follows its argument's: `lanes`
// says that it is contiguous as (N, D, H, W, C), else it is contiguous as (N, C, D, H, W).
#pragma once

#include <cstdint>

#include "core/array_view.h"
#include "core/pool_shape.h"

namespace fastconv {

// Whether an array's channels are neighbours in memory and its columns are not.
bool pool_in_lanes(const ArrayView& x);

// y and, for an extreme and unless null, the flat spatial positions of the extremes. `lanes` needs unit stride of C.
void pool_forward(PoolOp op, const ArrayView& x, const PoolShape& shape, bool lanes, void* y, std::int64_t* indices);

// From the gradient of an average pool's output to that of its input.
void avg_pool_backward(const ArrayView& grad_output, const PoolShape& shape, bool lanes, void* grad_input);

// Adds each gradient to the position its index names; an index outside [0, positions) is refused.
void pool_backward_from_indices(const ArrayView& grad_output, const View<const std::int64_t>& indices,
                                std::int64_t positions, bool lanes, void* grad_input);

// A root of each window's mean (`mean`) or sum of powers, as `count_include_pad` windows; the exponent is finite and
// not 0. `lanes` needs unit stride of C, in the backward pass of all three arrays.
void power_pool_forward(double exponent, bool mean, const ArrayView& x, const PoolShape& shape, bool lanes, void* y);
void power_pool_backward(double exponent, bool mean, const ArrayView& grad_output, const ArrayView& x,
                         const ArrayView& y, const PoolShape& shape, bool lanes, void* grad_input);

// Mean or maximum of bins: of `sizes` only the batch, the channels and each axis's `in` and `out` count.
void adaptive_pool_forward(PoolOp op, const ArrayView& x, const PoolShape& sizes, bool lanes, void* y,
                           std::int64_t* indices);
void adaptive_avg_pool_backward(const ArrayView& grad_output, const PoolShape& sizes, bool lanes, void* grad_input);

// Each value goes to the position its index names, the last one where they meet; zero elsewhere. The gradient comes
// back from there.
void max_unpool_forward(const ArrayView& x, const View<const std::int64_t>& indices, std::int64_t positions, bool lanes,
                        void* y);
void max_unpool_backward(const ArrayView& grad_output, const View<const std::int64_t>& indices, bool lanes,
                         void* grad_input);

// Mean or maximum over all spatial positions: y and indices are contiguous (N, C).
void global_pool_forward(PoolOp op, const ArrayView& x, bool lanes, void* y, std::int64_t* indices);

// The mean's gradient, shared alike among `positions`.
void global_avg_pool_backward(const ArrayView& grad_output, std::int64_t positions, bool lanes, void* grad_input);

}  // namespace fastconv
