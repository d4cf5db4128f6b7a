// The passes of every norm of channels over canonical views (N, C, D, H, W): sums, the normalised values, and the
// gradients. Sums are cut into blocks by the shape alone and combined in one order, so the number of threads never
// shows.
#pragma once

#include <cmath>
#include <vector>

#include "core/array_view.h"

namespace fastconv {

// How the result lies in memory: the positions of a channel together, or the channels of a position.
enum class ChannelLayout { planes, rows };

// What shares its sums and coefficients: a channel of the whole batch (C entries), or of one sample (N * C entries, the
// channels of a sample together), where a sample's result does not depend on the others.
enum class Scope { batch, sample };

// Mean and sum of squares around it.
void channel_moments(const ArrayView& x, ChannelLayout layout, Scope scope, double* mean, double* squares);

// y = (x - mean) * scale + shift, or 0 where `rectify` and it is less; y is dense in `layout`.
void normalise(const ArrayView& x, const ArrayView& y, ChannelLayout layout, Scope scope,
               const std::vector<double>& mean, const std::vector<double>& scale, const std::vector<double>& shift,
               bool rectify = false);

// What the mean loses by being rounded to T, put into the shift.
template <class T>
std::vector<double> compensated_shift(const std::vector<double>& mean, const std::vector<double>& scale,
                                      std::vector<double> shift) {
  for (std::size_t i = 0; i < shift.size(); ++i) {
    const double lost = mean[i] - static_cast<double>(static_cast<T>(mean[i]));
    if (std::isfinite(lost) && lost != 0) shift[i] -= lost * scale[i];
  }
  return shift;
}

// The gradient of a norm's result. Where `rectified`, the result of a ReLU behind the norm, is there, it is that of the
// ReLU's, and what the ReLU lets through of it is meant; `rectified` has a float type and is dense in the norm's
// layout.
struct NormGradient {
  ArrayView grad, rectified = {};
};

// The sums of the gradient and of the gradient times x - mean.
void channel_products(const NormGradient& gradient, const ArrayView& x, ChannelLayout layout, Scope scope,
                      const double* mean, double* sum, double* dot);

// grad_input = gradient * scale + (x - mean) * slope + shift; with a null slope it is gradient * scale.
void normalise_backward(const NormGradient& gradient, const ArrayView& x, const ArrayView& grad_input,
                        ChannelLayout layout, Scope scope, const double* mean, const double* scale, const double* slope,
                        const double* shift);

// Adds the moments of `more` values to those of `count` (sum and sum of squares around the mean).
void merge_moments(double count, double& sum, double& squares, double more, double more_sum, double more_squares);

}  // namespace fastconv
