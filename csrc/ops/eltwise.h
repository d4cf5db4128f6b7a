// Elementwise maps, dropout and the squared error over arrays of any rank and strides. Results go to dense arrays; an
// input that does not lie in the result's order is read through small buffers.
#pragma once

#include "core/dtype.h"
#include "cpu/eltwise/kernels.h"
#include "ops/loop_nest.h"

namespace fastconv {

bool map_has_two_inputs(Map map);

// y = map(a, b); b is null for a map of one input. All of one shape and dtype, y dense in some order of its axes.
void run_eltwise(Dtype dtype, Map map, const Strided& a, const Strided* b, const Strided& y, double parameter);

// Sum of (a - b)^2 over all elements, in float64 and in a fixed order.
double squared_error(Dtype dtype, const Strided& a, const Strided& b);

// Logits and targets, and the weights of the elements and of the positive ones (data null: 1), all of one shape.
struct BinaryCrossEntropy {
  Dtype dtype;
  Strided x, target, weight, pos_weight;
};

// The loss of each element, or its derivative by x, times `factor`; y dense in some order of its axes.
void binary_cross_entropy(const BinaryCrossEntropy& problem, const Strided& y, bool derivative, double factor);

// Sum of the losses, in float64 and in a fixed order.
double binary_cross_entropy_sum(const BinaryCrossEntropy& problem);

// keep[i] is true with probability 1 - p: word i of the seed's Philox stream against p.
void draw_dropout_mask(std::uint64_t seed, double p, std::int64_t count, std::uint8_t* keep);

// y = keep ? x * scale : 0; keep has x's shape, broadcast by zero strides.
void apply_dropout(Dtype dtype, const Strided& x, const Strided& keep, const Strided& y, double scale);

}  // namespace fastconv
