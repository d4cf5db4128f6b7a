#include "ops/layer_norm.h"

#include <cmath>
#include <limits>

#include "core/arithmetic.h"
#include "cpu/norm/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/norm.h"
#include "ops/rounded_writes.h"

namespace fastconv {
namespace {

constexpr std::int64_t kItem = 16384;          // values of one work item, about
constexpr std::int64_t kBlock = 4096;          // values of a row that are summed together
constexpr std::int64_t kPart = 4 * kBlock;     // values of a row of 16-bit data that are widened together
constexpr std::int64_t kColumns = 1024;        // columns of a weight gradient's item
constexpr std::int64_t kRows = kLayerRows;     // its rows that are read together
constexpr std::int64_t kMaxChunks = 64;        // parts of the rows whose gradients are kept apart
constexpr std::int64_t kMaxEntries = 1 << 20;  // and how many entries those have at most

// Calls body(begin, end) over fixed pieces of the rows.
template <class Body>
void for_rows(const LayerNorm& p, Body&& body) {
  const std::int64_t all = p.rows * p.groups, some = std::max<std::int64_t>(1, kItem / p.length);
  parallel_for({ceil_div(all, some), 1.5 * static_cast<double>(all * p.length)}, subnormals_of(p.dtype),
               [&](std::int64_t item) { body(item * some, std::min(all, (item + 1) * some)); });
}

template <int K>
bool in_place(const LoopNest<K>& nest, int k, std::int64_t length) {
  return nest.inner_stride(k) == 1 && nest.inner() % length == 0;
}

// An array without data whose elements follow each other in C order.
Strided in_c_order(const std::vector<std::int64_t>& shape) {
  Strided order{nullptr, shape, shape};
  std::int64_t step = 1;
  for (std::size_t axis = shape.size(); axis-- > 0; step *= shape[axis]) order.stride[axis] = step;
  return order;
}

// The values of a row that are read together: all of them, unless they are widened first.
template <class S>
std::int64_t part_of(const LayerNorm& p) {
  return is_wide<S> ? p.length : std::min(p.length, kPart);
}

// Weights or biases, null where there are none. Rows with the same ones have 16-bit ones widened once.
template <class S>
class Weights {
 public:
  Weights(const void* values, const LayerNorm& p)
      : values_(static_cast<const S*>(values)), problem_(p), buffer_(values && !is_wide<S> ? part_of<S>(p) : 0) {}

  // The `count` of a row from `begin` on, which is where a part begins.
  const Compute<S>* of(std::int64_t row, std::int64_t begin, std::int64_t count) {
    if (!values_) return nullptr;
    const std::int64_t at = (problem_.groups == 1 ? 0 : row % problem_.groups * problem_.length) + begin;
    if constexpr (is_wide<S>) {
      return values_ + at;
    } else {
      if (at != held_) widen_run(values_ + at, buffer_.data(), count);
      held_ = at;
      return buffer_;
    }
  }

 private:
  const S* values_;
  const LayerNorm& problem_;
  Workspace<Compute<S>> buffer_;
  std::int64_t held_ = -1;
};

// Writes a row's gradient, or a part of it, from the sums of g = grad_output * weight and of g * (x - mean).
template <class S, class T = Compute<S>>
void write_gradient(const LayerNormKernel& kernel, const LayerNorm& p, const T* g, const T* x, const T* weight,
                    std::int64_t count, double mean, double invstd, double sum, double dot, S* result) {
  const auto length = static_cast<double>(p.length);
  write_runs(result, 0, 1, count, [&](T* out, std::int64_t) {
    kernel.backward(g, x, weight, out, count, mean, invstd, -invstd * invstd * invstd * dot / length,
                    -invstd * sum / length);
  });
}

void backward_input(const LayerNorm& p, const Strided& grad_output, const Strided& x, const Strided& grad_input,
                    const double* mean, const double* invstd) {
  const LayerNormKernel& kernel = choose_layer_norm(compute_dtype(p.dtype), active_isa_mask());
  if (p.length == 0) return;
  const LoopNest<3> nest({&grad_output, &x, &grad_input}, 2);
  dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const std::int64_t part = part_of<S>(p);
    for_rows(p, [&](std::int64_t begin, std::int64_t end) {
      const bool direct = is_wide<S> && in_place(nest, 0, p.length) && in_place(nest, 1, p.length);
      Workspace<T> buffer(direct ? 0 : 2 * part);
      Weights<S> weights(p.weight, p);
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row * p.length;
        const T *g = nullptr, *values = nullptr, *weight = nullptr;  // of the latest part
        const auto read = [&](std::int64_t i, std::int64_t count) {
          g = nest.run(0, static_cast<const S*>(grad_output.data), at + i, count, buffer.data());
          values = nest.run(1, static_cast<const S*>(x.data), at + i, count, buffer + part);
          weight = weights.of(row, i, count);
        };
        double sum = 0, dot = 0;
        for (std::int64_t i = 0; i < p.length; i += kBlock) {
          const std::int64_t from = i % part;
          if (from == 0) read(i, std::min(part, p.length - i));
          double more_sum, more_dot;
          kernel.products(g + from, values + from, weight ? weight + from : nullptr, std::min(kBlock, p.length - i),
                          mean[row], &more_sum, &more_dot);
          sum += more_sum;
          dot += more_dot;
        }
        for (std::int64_t i = 0; i < p.length; i += part) {
          const std::int64_t some = std::min(part, p.length - i);
          if (part < p.length) read(i, some);
          write_gradient(kernel, p, g, values, weight, some, mean[row], invstd[row], sum, dot,
                         static_cast<S*>(grad_input.data) + at + i);
        }
      }
    });
  });
}

// Also writes grad_input, unless it is null, while the rows are in the cache: rows of one block only.
void backward_weight(const LayerNorm& p, const Strided& grad_output, const Strided& x, const Strided& grad_input,
                     const double* mean, const double* invstd, double* grad_weight, double* grad_bias) {
  const LayerNormKernel& kernel = choose_layer_norm(compute_dtype(p.dtype), active_isa_mask());
  const std::int64_t width = p.groups * p.length;
  std::fill_n(grad_weight, width, 0.0);
  std::fill_n(grad_bias, width, 0.0);
  if (p.rows * width == 0) return;
  const Strided order = in_c_order(x.shape);
  const LoopNest<3> nest({&grad_output, &x, &order}, 2);
  const std::int64_t most = std::clamp<std::int64_t>(kMaxEntries / width, 1, kMaxChunks);
  const std::int64_t chunk = rounded_up(ceil_div(p.rows, std::min(most, ceil_div(p.rows, kRows))), kRows);
  const bool with_input = grad_input.data != nullptr;
  const std::int64_t chunks = ceil_div(p.rows, chunk), columns = with_input ? p.length : std::min(kColumns, p.length),
                     cuts = ceil_div(p.length, columns);
  Workspace<double> parts(2 * chunks * width);
  dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const Work work{chunks * p.groups * cuts, (with_input ? 2.0 : 1.0) * static_cast<double>(p.rows * width)};
    parallel_for(work, subnormals_of(p.dtype), [&](std::int64_t item) {
      const std::int64_t part = item / cuts / p.groups, group = item / cuts % p.groups, c = item % cuts * columns;
      const std::int64_t some = std::min(columns, p.length - c);
      double* dot = parts + 2 * part * width + group * p.length + c;
      double* sum = dot + width;
      std::fill_n(dot, some, 0.0);
      std::fill_n(sum, some, 0.0);
      Workspace<T> buffer(2 * kRows * some);
      Weights<S> weights(with_input ? p.weight : nullptr, p);
      const std::int64_t last = std::min(p.rows, (part + 1) * chunk);
      for (std::int64_t begin = part * chunk; begin < last; begin += kRows) {
        const std::int64_t count = std::min(kRows, last - begin);
        const void *gradients[kRows], *values[kRows];
        double means[kRows], inverses[kRows];
        for (std::int64_t r = 0; r < count; ++r) {
          const std::int64_t row = (begin + r) * p.groups + group, at = row * p.length + c;
          gradients[r] = nest.run(0, static_cast<const S*>(grad_output.data), at, some, buffer + 2 * r * some);
          values[r] = nest.run(1, static_cast<const S*>(x.data), at, some, buffer + (2 * r + 1) * some);
          means[r] = mean[row];
          inverses[r] = invstd[row];
        }
        for (std::int64_t r = 0; with_input && r < count; ++r) {
          const std::int64_t row = (begin + r) * p.groups + group;
          const T *const g = static_cast<const T*>(gradients[r]), *const own = static_cast<const T*>(values[r]);
          const T* const weight = weights.of(row, 0, some);
          double row_sum, row_dot;
          kernel.products(g, own, weight, some, mean[row], &row_sum, &row_dot);
          write_gradient(kernel, p, g, own, weight, some, mean[row], invstd[row], row_sum, row_dot,
                         static_cast<S*>(grad_input.data) + row * p.length);
        }
        kernel.accumulate(gradients, values, count, some, means, inverses, dot, sum);
      }
    });
  });
  for (std::int64_t part = 0; part < chunks; ++part)
    for (std::int64_t i = 0; i < width; ++i) {
      grad_weight[i] += parts[2 * part * width + i];
      grad_bias[i] += parts[(2 * part + 1) * width + i];
    }
}

}  // namespace

void layer_norm(const LayerNorm& p, const Strided& x, const Strided& y, const void* bias, double eps, double* mean,
                double* variance) {
  const LayerNormKernel& kernel = choose_layer_norm(compute_dtype(p.dtype), active_isa_mask());
  if (p.length == 0) {
    std::fill_n(mean, p.rows * p.groups, std::numeric_limits<double>::quiet_NaN());
    std::fill_n(variance, p.rows * p.groups, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  const LoopNest<2> nest({&x, &y}, 1);
  dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const std::int64_t part = part_of<S>(p);
    for_rows(p, [&](std::int64_t begin, std::int64_t end) {
      Workspace<T> buffer(is_wide<S> && in_place(nest, 0, p.length) ? 0 : part);
      Weights<S> weights(p.weight, p), biases(bias, p);
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row * p.length;
        const auto read = [&](std::int64_t i, std::int64_t count) {
          return nest.run(0, static_cast<const S*>(x.data), at + i, count, buffer.data());
        };
        double sum = 0, squares = 0;
        const T* values = nullptr;  // of the latest part
        for (std::int64_t i = 0; i < p.length; i += kBlock) {
          const std::int64_t some = std::min(kBlock, p.length - i);
          if (i % part == 0) values = read(i, std::min(part, p.length - i));
          double more_sum, more_squares;
          kernel.moments(values + i % part, 0, 1, some, &more_sum, &more_squares);
          merge_moments(static_cast<double>(i), sum, squares, static_cast<double>(some), more_sum, more_squares);
        }
        mean[row] = sum / static_cast<double>(p.length);
        variance[row] = squares / static_cast<double>(p.length);
        const double inverse = 1 / std::sqrt(variance[row] + eps);
        for (std::int64_t i = 0; i < p.length; i += part) {
          const std::int64_t some = std::min(part, p.length - i);
          if (part < p.length) values = read(i, some);
          write_runs(static_cast<S*>(y.data) + at + i, 0, 1, some, [&](T* out, std::int64_t) {
            kernel.forward(values, out, some, mean[row], inverse, weights.of(row, i, some), biases.of(row, i, some));
          });
        }
      }
    });
  });
}

void layer_norm_backward(const LayerNorm& p, const Strided& grad_output, const Strided& x, const Strided& grad_input,
                         const double* mean, const double* invstd, double* grad_weight, double* grad_bias) {
  const bool together = grad_input.data && grad_weight && p.length <= kBlock;
  if (grad_input.data && !together) backward_input(p, grad_output, x, grad_input, mean, invstd);
  if (grad_weight)
    backward_weight(p, grad_output, x, together ? grad_input : Strided{}, mean, invstd, grad_weight, grad_bias);
}

}  // namespace fastconv
