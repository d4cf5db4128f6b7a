#include "ops/group_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/norm/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/channel_image.h"
#include "ops/rounded_writes.h"

namespace fastconv {
namespace {

constexpr std::int64_t kValues = 1 << 18;   // values of the samples that are taken together, about
constexpr std::int64_t kGroup = 1 << 16;    // values of a group that one thread takes as a whole
constexpr std::int64_t kBlock = 4096;       // of these, how many are summed together
constexpr std::int64_t kItem = 16384;       // values of one work item, about
constexpr std::int64_t kEntries = 1 << 20;  // channels of samples whose sums are kept apart

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

// Groups that are one run of memory each, and short enough to stay in a cache between the passes over them.
class Runs {
 public:
  // Whether all of these arrays are so.
  static bool fit(ChannelLayout layout, std::int64_t groups, std::initializer_list<const ArrayView*> arrays) {
    if (layout != ChannelLayout::planes) return false;
    for (const ArrayView* x : arrays) {
      ArrayView joined;
      const std::int64_t values = x->size() / (x->shape[0] * groups);
      if (values > kGroup || !join_planes(*x, groups, joined)) return false;
    }
    return true;
  }

  Runs(const ArrayView& x, std::int64_t groups)
      : groups_(groups), members_(x.shape[1] / groups), positions_(x.size() / (x.shape[0] * x.shape[1])) {}

  std::int64_t members() const { return members_; }
  std::int64_t positions() const { return positions_; }
  std::int64_t values() const { return members_ * positions_; }

  // Calls body(group of all samples, its first channel) for those of the samples [first, first + count).
  template <class Body>
  void for_each(std::int64_t first, std::int64_t count, Dtype dtype, double nanoseconds, Body&& body) const {
    const std::int64_t all = count * groups_, some = std::max<std::int64_t>(1, kItem / values());
    parallel_for({ceil_div(all, some), nanoseconds * static_cast<double>(all * values())}, subnormals_of(dtype),
                 [&](std::int64_t item) {
                   for (std::int64_t i = item * some; i < std::min(all, (item + 1) * some); ++i)
                     body(first * groups_ + i, i % groups_ * members_);
                 });
  }

  // Elements of a buffer for a group's values that are not read where they are.
  template <class S>
  std::int64_t buffered() const {
    return is_wide<S> ? 0 : values();
  }

  // A group's values: where they are, or widened.
  template <class S>
  const Compute<S>* read(const ChannelImage<S>& x, std::int64_t group, std::int64_t channel, Compute<S>* buffer) const {
    return x.channel_planes(group / groups_, channel, members_, 0, positions_, buffer).data;
  }

  // Calls body(begin of a group's results).
  template <class S, class Body>
  void write(S* all, std::int64_t group, Body&& body) const {
    write_runs(all + group * values(), values(), 1, values(), [&](Compute<S>* to, std::int64_t) { body(to); });
  }

 private:
  std::int64_t groups_, members_, positions_;
};

template <class T>
void run_moments(const BatchNormKernel& kernel, const T* x, std::int64_t values, double& mean, double& variance) {
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < values; i += kBlock) {
    const std::int64_t some = std::min(kBlock, values - i);
    double more_sum, more_squares;
    kernel.plane_moments(x + i, 0, 1, some, &more_sum, &more_squares);
    merge_moments(static_cast<double>(i), sum, squares, static_cast<double>(some), more_sum, more_squares);
  }
  mean = sum / static_cast<double>(values);
  variance = squares / static_cast<double>(values);
}

// Statistics and result of one group after the other.
template <class S>
void normalise_runs(const ArrayView& x, S* y, std::int64_t groups, double eps, const double* weight, const double* bias,
                    double* mean, double* variance) {
  using T = Compute<S>;
  const BatchNormKernel& kernel = choose_batch_norm(compute_dtype(x.dtype), active_isa_mask());
  const Runs runs(x, groups);
  const ChannelImage<S> image(x.as<S>());
  runs.for_each(0, x.shape[0], x.dtype, 0.6, [&](std::int64_t group, std::int64_t channel) {
    Workspace<T> buffer(runs.buffered<S>());
    const T* const from = runs.read(image, group, channel, buffer.data());
    run_moments(kernel, from, runs.values(), mean[group], variance[group]);
    const double inverse = 1 / std::sqrt(variance[group] + eps);
    const T center = static_cast<T>(mean[group]);
    const double lost = mean[group] - static_cast<double>(center);  // by rounding: it goes into the shift
    const double kept = std::isfinite(lost) ? lost : 0;
    const std::int64_t members = runs.members();
    Workspace<T> numbers(3 * members);
    T *const centers = numbers, *const scale = centers + members, *const shift = scale + members;
    for (std::int64_t m = 0; m < members; ++m) {
      const double factor = weight[channel + m] * inverse;
      centers[m] = center;
      scale[m] = static_cast<T>(factor);
      shift[m] = static_cast<T>(kept != 0 ? bias[channel + m] - kept * factor : bias[channel + m]);
    }
    runs.write(y, group, [&](T* to) {
      kernel.plane_forward(from, runs.positions(), to, runs.positions(), members, runs.positions(),
                           {centers, scale, shift, nullptr});
    });
  });
}

// The gradients of the samples [first, first + count); `sum` and `dot` are of their channels.
template <class S>
void run_gradients(const Runs& runs, const ArrayView& grad_output, const ArrayView& x, S* grad_input,
                   std::int64_t first, std::int64_t count, const double* mean, const double* invstd,
                   const double* weight, double* sum, double* dot) {
  using T = Compute<S>;
  const BatchNormKernel& kernel = choose_batch_norm(compute_dtype(x.dtype), active_isa_mask());
  const std::int64_t members = runs.members(), positions = runs.positions();
  const auto values = static_cast<double>(runs.values());
  const ChannelImage<S> image(x.as<S>()), gradient(grad_output.as<S>());
  runs.for_each(first, count, x.dtype, 1.0, [&](std::int64_t group, std::int64_t channel) {
    Workspace<T> buffer(2 * runs.buffered<S>());
    const T* const g = runs.read(gradient, group, channel, buffer.data());
    const T* const from = runs.read(image, group, channel, buffer + runs.buffered<S>());
    const std::int64_t at = group * members - first * x.shape[1];
    kernel.group_products(g, positions, from, positions, members, positions, mean[group], sum + at, dot + at);
    if (!grad_input) return;
    double all_sum = 0, all_dot = 0;
    for (std::int64_t m = 0; m < members; ++m) {
      all_sum += weight[channel + m] * sum[at + m];
      all_dot += weight[channel + m] * dot[at + m];
    }
    const double inverse = invstd[group];
    Workspace<T> numbers(4 * members);
    T *const centers = numbers, *const scale = centers + members, *const slope = scale + members,
             *const shift = slope + members;
    std::fill_n(centers, members, static_cast<T>(mean[group]));
    std::fill_n(slope, members, static_cast<T>(-inverse * inverse * inverse * all_dot / values));
    std::fill_n(shift, members, static_cast<T>(-inverse * all_sum / values));
    for (std::int64_t m = 0; m < members; ++m) scale[m] = static_cast<T>(weight[channel + m] * inverse);
    runs.write(grad_input, group, [&](T* to) {
      kernel.plane_backward(g, positions, from, positions, to, positions, members, positions,
                            {centers, scale, shift, slope});
    });
  });
}

template <class S>
void backward_runs(const ArrayView& grad_output, const ArrayView& x, S* grad_input, std::int64_t groups,
                   const double* mean, const double* invstd, const double* weight, double* grad_weight,
                   double* grad_bias) {
  const std::int64_t channels = x.shape[1], some = std::max<std::int64_t>(1, kEntries / channels);
  const Runs runs(x, groups);
  Workspace<double> sums(2 * std::min(some, x.shape[0]) * channels);
  for (std::int64_t first = 0; first < x.shape[0]; first += some) {
    const std::int64_t count = std::min(some, x.shape[0] - first);
    double *const sum = sums, *const dot = sum + count * channels;
    run_gradients(runs, grad_output, x, grad_input, first, count, mean, invstd, weight, sum, dot);
    for_groups(count, groups, runs.members(), [&](std::int64_t group, std::size_t at, std::int64_t c) {
      for (std::int64_t m = 0; m < runs.members(); ++m, ++at) {
        grad_weight[c + m] += dot[at] * invstd[first * groups + group];
        grad_bias[c + m] += sum[at];
      }
    });
  }
}

}  // namespace

void group_norm(const ArrayView& x, const ArrayView& y, ChannelLayout layout, std::int64_t groups, double eps,
                const double* weight, const double* bias, double* mean, double* variance) {
  const std::int64_t channels = x.shape[1];
  if (x.size() == 0) return;
  if (Runs::fit(layout, groups, {&x, &y})) {
    dispatch_storage(x.dtype, [&](auto zero) {
      using S = decltype(zero);
      normalise_runs(x, static_cast<S*>(y.data), groups, eps, weight, bias, mean, variance);
    });
    return;
  }
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
    normalise(own, y.samples(first, count), layout, Scope::sample, center, scale, shift);
  });
}

void group_norm_backward(const ArrayView& grad_output, const ArrayView& x, const ArrayView& grad_input,
                         ChannelLayout layout, std::int64_t groups, const double* mean, const double* invstd,
                         const double* weight, double* grad_weight, double* grad_bias) {
  const std::int64_t channels = x.shape[1], members = groups > 0 ? channels / groups : 0;
  std::fill_n(grad_weight, channels, 0.0);
  std::fill_n(grad_bias, channels, 0.0);
  if (x.size() == 0) return;
  if (Runs::fit(layout, groups, {&x, &grad_output})) {
    dispatch_storage(x.dtype, [&](auto zero) {
      using S = decltype(zero);
      backward_runs(grad_output, x, static_cast<S*>(grad_input.data), groups, mean, invstd, weight, grad_weight,
                    grad_bias);
    });
    return;
  }
  for_samples(x, [&](std::int64_t first, std::int64_t count) {
    const ArrayView own = x.samples(first, count), g = grad_output.samples(first, count);
    const auto values = static_cast<double>(x.size() / x.shape[0] / groups);
    const auto entries = static_cast<std::size_t>(count * channels);
    std::vector<double> center(entries), sum(entries), dot(entries), scale(entries), slope(entries), shift(entries);
    for_groups(count, groups, members, [&](std::int64_t group, std::size_t at, std::int64_t) {
      std::fill_n(center.begin() + static_cast<std::ptrdiff_t>(at), members, mean[first * groups + group]);
    });
    channel_products({g}, own, layout, Scope::sample, center.data(), sum.data(), dot.data());
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
      normalise_backward({g}, own, grad_input.samples(first, count), layout, Scope::sample, center.data(), scale.data(),
                         slope.data(), shift.data());
  });
}

}  // namespace fastconv
