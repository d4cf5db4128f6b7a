// Norms on a device, in two steps: the statistics of sets of elements, and what is done to each element with them. So
// several processes can add up their statistics in between.
#pragma once

#include "core/array_view.h"
#include "cuda/queue.h"

namespace fastconv {
namespace cuda {

// Which elements share a statistic: `groups` runs of channels, of each sample or of the whole batch. Set (n, g) has
// number n * groups + g, or g.
struct Sets {
  Index groups;
  bool per_sample;

  Index count(const ArrayView& x) const { return (per_sample ? x.shape[0] : 1) * groups; }
};

// Mean and biased variance of each set.
void moments(const Queue& queue, const ArrayView& x, Sets sets, double* mean, double* variance);

// Of each of `sets`: the sums of g and of g * (x - mean) * scale, where g is grad_output times weight[c] (null: 1), and
// mean and scale (null: 1) are those of the element's set in `statistics`.
void products(const Queue& queue, const ArrayView& grad_output, const ArrayView& x, Sets sets, Sets statistics,
              const double* mean, const double* scale, const ArrayView& weight, double* sum, double* dot);

// y = (x - mean) * scale * weight + bias; weight and bias (C,), or absent.
void normalise(const Queue& queue, const ArrayView& x, const ArrayView& y, Sets sets, const double* mean,
               const double* scale, const ArrayView& weight, const ArrayView& bias);

// slope = -weight * inverse^3 * dot / count and shift = -weight * inverse * sum / count, of each set (weight: of each
// channel where a set is one, else absent): a norm's input gradient is then what `normalise_backward` computes.
void coefficients(const Queue& queue, Index sets, double count, const double* sum, const double* dot,
                  const double* inverse, const ArrayView& weight, double* slope, double* shift);

// grad_input = grad_output * scale * weight + (x - mean) * slope + shift; slope and shift may be null.
void normalise_backward(const Queue& queue, const ArrayView& grad_output, const ArrayView& x,
                        const ArrayView& grad_input, Sets sets, const double* mean, const double* scale,
                        const double* slope, const double* shift, const ArrayView& weight);

}  // namespace cuda
}  // namespace fastconv
