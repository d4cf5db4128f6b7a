// Elementwise maps, dropout and the squared error over arrays of any rank and strides. Results go to dense arrays; an
// input that does not lie in the result's order is read through small buffers.
#pragma once

#include <string>

#include "core/dtype.h"
#include "cpu/eltwise/kernels.h"
#include "ops/loop_nest.h"

namespace fastconv {

Map map_by_name(const std::string& name);
bool map_has_two_inputs(Map map);

// y = map(a, b); b is null for a map of one input. All of one shape and dtype, y dense in some order of its axes.
void run_eltwise(Dtype dtype, Map map, const Strided& a, const Strided* b, const Strided& y, double parameter);

// Sum of (a - b)^2 over all elements, in float64 and in a fixed order.
double squared_error(Dtype dtype, const Strided& a, const Strided& b);

// keep[i] is true with probability 1 - p: word i of the seed's Philox stream against p.
void draw_dropout_mask(std::uint64_t seed, double p, std::int64_t count, std::uint8_t* keep);

// y = keep ? x * scale : 0; keep has x's shape, broadcast by zero strides.
void apply_dropout(Dtype dtype, const Strided& x, const Strided& keep, const Strided& y, double scale);

}  // namespace fastconv
