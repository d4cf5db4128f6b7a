#include "ops/group_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace fastconv {
namespace {

constexpr std::int64_t kValues = 1 << 18;  // values of the samples that are taken together, about

// Calls body(first sample, number of samples).
template <class Body>
void for_samples(const ArrayView& x, Body&& body) {
  const std::int64_t all = x.shape[0], each = all > 0 ? x.size() / all : 0;
  const std::int64_t together = std::max<std::int64_t>(1, kValues / std::max<std::int64_t>(1, each));
  for (std::int64_t n = 0; n < all && each > 0; n += together) body(n, std::min(together, all - n));
}

// A group whose channels' planes follow each other in memory is one plane: fills `joined` if all are so.
bool join_planes(const ArrayView& x, std::int64_t groups, ArrayView& joined) {
  std::int64_t positions = 1;
  for (int axis = kRank - 1; axis >= 2; --axis) {
    if (x.shape[axis] > 1 && x.stride[axis] != positions) return false;
    positions *= x.shape[axis];
  }
  const std::int64_t members = x.shape[1] / groups;
  if (members > 1 && x.stride[1] != positions) return false;
  joined = x;
  joined.shape[1] = groups;
  joined.stride[1] = x.stride[1] * members;
  joined.shape[2] = joined.shape[3] = 1;
  joined.shape[4] = positions * members;
  joined.stride[4] = 1;
  return true;
}

// Mean and variance of each group, N * groups entries.
void group_moments(const ArrayView& x, ChannelLayout layout, std::int64_t groups, double* mean, double* variance) {
  const std::int64_t members = x.shape[1] / groups, all = x.shape[0] * groups;
  const std::int64_t positions = x.size() / (x.shape[0] * x.shape[1]);
  const auto count = static_cast<double>(members * positions);
  ArrayView joined;
  if (layout == ChannelLayout::planes && join_planes(x, groups, joined)) {
    channel_moments(joined, layout, Scope::sample, mean, variance);
    for (std::int64_t i = 0; i < all; ++i) variance[i] /= count;
    return;
  }
  std::vector<double> means(static_cast<std::size_t>(all * members)), squares(means.size());
  channel_moments(x, layout, Scope::sample, means.data(), squares.data());
  const auto own = static_cast<double>(positions);
  for (std::int64_t i = 0; i < all; ++i) {
    double sum = 0, deviations = 0;
    for (std::int64_t m = 0; m < members; ++m) {
      const auto c = static_cast<std::size_t>(i * members + m);
      merge_moments(own * static_cast<double>(m), sum, deviations, own, means[c] * own, squares[c]);
    }
    mean[i] = sum / count;
    variance[i] = deviations / count;
  }
}

// Calls body(group of all samples, its first channel among those of all samples, and in its sample).
template <class Body>
void for_groups(std::int64_t samples, std::int64_t groups, std::int64_t members, Body&& body) {
  std::int64_t group = 0;
  for (std::int64_t n = 0; n < samples; ++n)
    for (std::int64_t g = 0; g < groups; ++g, ++group)
      body(group, static_cast<std::size_t>(group * members), g * members);
}

}  // namespace

void group_norm(const ArrayView& x, const ArrayView& y, ChannelLayout layout, std::int64_t groups, double eps,
                const double* weight, const double* bias, double* mean, double* variance) {
  const std::int64_t channels = x.shape[1];
  for_samples(x, [&](std::int64_t first, std::int64_t count) {
    const ArrayView own = x.samples(first, count);
    double* own_mean = mean + first * groups;
    double* own_variance = variance + first * groups;
    group_moments(own, layout, groups, own_mean, own_variance);
    const auto entries = static_cast<std::size_t>(count * channels);
    std::vector<double> center(entries), scale(entries), shift(entries);
    for_groups(count, groups, channels / groups, [&](std::int64_t group, std::size_t at, std::int64_t c) {
      const double inverse = 1 / std::sqrt(own_variance[group] + eps);
      for (std::int64_t m = 0; m < channels / groups; ++m, ++at, ++c) {
        center[at] = own_mean[group];
        scale[at] = weight[c] * inverse;
        shift[at] = bias[c];
      }
    });
    normalise(own, y.samples(first, count), layout, Scope::sample, center.data(), scale.data(), shift.data());
  });
}

void group_norm_backward(const ArrayView& grad_output, const ArrayView& x, const ArrayView& grad_input,
                         ChannelLayout layout, std::int64_t groups, const double* mean, const double* invstd,
                         const double* weight, double* grad_weight, double* grad_bias) {
  const std::int64_t channels = x.shape[1], members = groups > 0 ? channels / groups : 0;
  std::fill_n(grad_weight, channels, 0.0);
  std::fill_n(grad_bias, channels, 0.0);
  for_samples(x, [&](std::int64_t first, std::int64_t count) {
    const ArrayView own = x.samples(first, count), g = grad_output.samples(first, count);
    const auto values = static_cast<double>(x.size() / x.shape[0] / groups);
    const auto entries = static_cast<std::size_t>(count * channels);
    std::vector<double> center(entries), sum(entries), dot(entries), scale(entries), slope(entries), shift(entries);
    for_groups(count, groups, members, [&](std::int64_t group, std::size_t at, std::int64_t) {
      std::fill_n(center.begin() + static_cast<std::ptrdiff_t>(at), members, mean[first * groups + group]);
    });
    channel_products(g, own, layout, Scope::sample, center.data(), sum.data(), dot.data());
    for_groups(count, groups, members, [&](std::int64_t group, std::size_t begin, std::int64_t c) {
      const double inverse = invstd[first * groups + group];
      double all_sum = 0, all_dot = 0;
      std::size_t at = begin;
      for (std::int64_t m = 0; m < members; ++m, ++at) {
        all_sum += weight[c + m] * sum[at];
        all_dot += weight[c + m] * dot[at];
        grad_weight[c + m] += dot[at] * inverse;
        grad_bias[c + m] += sum[at];
      }
      const double own_slope = -inverse * inverse * inverse * all_dot / values, own_shift = -inverse * all_sum / values;
      at = begin;
      for (std::int64_t m = 0; m < members; ++m, ++at) {
        scale[at] = weight[c + m] * inverse;
        slope[at] = own_slope;
        shift[at] = own_shift;
      }
    });
    if (grad_input)
      normalise_backward(g, own, grad_input.samples(first, count), layout, Scope::sample, center.data(), scale.data(),
                         slope.data(), shift.data());
  });
}

}  // namespace fastconv
