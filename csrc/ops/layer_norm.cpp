#include "ops/layer_norm.h"

#include <cmath>
#include <limits>

#include "core/arithmetic.h"
#include "cpu/norm/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/norm.h"

namespace fastconv {
namespace {

constexpr std::int64_t kItem = 16384;          // values of one work item, about
constexpr std::int64_t kBlock = 4096;          // values of a row that are summed together
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

template <class T>
const T* weights_of(const void* values, const LayerNorm& p, std::int64_t row) {
  return values ? static_cast<const T*>(values) + row % p.groups * p.length : nullptr;
}

}  // namespace

void layer_norm(const LayerNorm& p, const Strided& x, const Strided& y, const void* bias, double eps, double* mean,
                double* variance) {
  const LayerNormKernel& kernel = choose_layer_norm(p.dtype, active_isa_mask());
  if (p.length == 0) {
    std::fill_n(mean, p.rows * p.groups, std::numeric_limits<double>::quiet_NaN());
    std::fill_n(variance, p.rows * p.groups, std::numeric_limits<double>::quiet_NaN());
    return;
  }
  const LoopNest<2> nest({&x, &y}, 1);
  dispatch_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(p, [&](std::int64_t begin, std::int64_t end) {
      Workspace<T> buffer(in_place(nest, 0, p.length) ? 0 : p.length);
      for (std::int64_t row = begin; row < end; ++row) {
        const T* values = nest.run(0, static_cast<const T*>(x.data), row * p.length, p.length, buffer.data());
        double sum = 0, squares = 0;
        for (std::int64_t i = 0; i < p.length; i += kBlock) {
          const std::int64_t some = std::min(kBlock, p.length - i);
          double more_sum, more_squares;
          kernel.moments(values + i, 0, 1, some, &more_sum, &more_squares);
          merge_moments(static_cast<double>(i), sum, squares, static_cast<double>(some), more_sum, more_squares);
        }
        mean[row] = sum / static_cast<double>(p.length);
        variance[row] = squares / static_cast<double>(p.length);
        kernel.forward(values, static_cast<T*>(y.data) + row * p.length, p.length, mean[row],
                       1 / std::sqrt(variance[row] + eps), weights_of<T>(p.weight, p, row),
                       weights_of<T>(bias, p, row));
      }
    });
  });
}

void layer_norm_backward_input(const LayerNorm& p, const Strided& grad_output, const Strided& x,
                               const Strided& grad_input, const double* mean, const double* invstd) {
  const LayerNormKernel& kernel = choose_layer_norm(p.dtype, active_isa_mask());
  if (p.length == 0) return;
  const LoopNest<3> nest({&grad_output, &x, &grad_input}, 2);
  dispatch_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_rows(p, [&](std::int64_t begin, std::int64_t end) {
      Workspace<T> buffer(in_place(nest, 0, p.length) && in_place(nest, 1, p.length) ? 0 : 2 * p.length);
      for (std::int64_t row = begin; row < end; ++row) {
        const std::int64_t at = row * p.length;
        const T* g = nest.run(0, static_cast<const T*>(grad_output.data), at, p.length, buffer.data());
        const T* values = nest.run(1, static_cast<const T*>(x.data), at, p.length, buffer + p.length);
        const T* weight = weights_of<T>(p.weight, p, row);
        double sum = 0, dot = 0;
        for (std::int64_t i = 0; i < p.length; i += kBlock) {
          double more_sum, more_dot;
          kernel.products(g + i, values + i, weight ? weight + i : nullptr, std::min(kBlock, p.length - i), mean[row],
                          &more_sum, &more_dot);
          sum += more_sum;
          dot += more_dot;
        }
        const double inverse = invstd[row], count = static_cast<double>(p.length);
        kernel.backward(g, values, weight, static_cast<T*>(grad_input.data) + at, p.length, mean[row], inverse,
                        -inverse * inverse * inverse * dot / count, -inverse * sum / count);
      }
    });
  });
}

void layer_norm_backward_weight(const LayerNorm& p, const Strided& grad_output, const Strided& x, const double* mean,
                                const double* invstd, double* grad_weight, double* grad_bias) {
  const LayerNormKernel& kernel = choose_layer_norm(p.dtype, active_isa_mask());
  const std::int64_t width = p.groups * p.length;
  std::fill_n(grad_weight, width, 0.0);
  std::fill_n(grad_bias, width, 0.0);
  if (p.rows * width == 0) return;
  const Strided order = in_c_order(x.shape);
  const LoopNest<3> nest({&grad_output, &x, &order}, 2);
  const std::int64_t most = std::clamp<std::int64_t>(kMaxEntries / width, 1, kMaxChunks);
  const std::int64_t chunk = ceil_div(ceil_div(p.rows, std::min(most, ceil_div(p.rows, kRows))), kRows) * kRows;
  const std::int64_t chunks = ceil_div(p.rows, chunk), columns = std::min(kColumns, p.length),
                     cuts = ceil_div(p.length, columns);
  Workspace<double> parts(2 * chunks * width);
  dispatch_dtype(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Work work{chunks * p.groups * cuts, static_cast<double>(p.rows * width)};
    parallel_for(work, subnormals_of(p.dtype), [&](std::int64_t item) {
      const std::int64_t part = item / cuts / p.groups, group = item / cuts % p.groups, c = item % cuts * columns;
      const std::int64_t some = std::min(columns, p.length - c);
      double* dot = parts + 2 * part * width + group * p.length + c;
      double* sum = dot + width;
      std::fill_n(dot, some, 0.0);
      std::fill_n(sum, some, 0.0);
      Workspace<T> buffer(2 * kRows * some);
      const std::int64_t last = std::min(p.rows, (part + 1) * chunk);
      for (std::int64_t begin = part * chunk; begin < last; begin += kRows) {
        const std::int64_t count = std::min(kRows, last - begin);
        const void *gradients[kRows], *values[kRows];
        double means[kRows], inverses[kRows];
        for (std::int64_t r = 0; r < count; ++r) {
          const std::int64_t row = (begin + r) * p.groups + group, at = row * p.length + c;
          gradients[r] = nest.run(0, static_cast<const T*>(grad_output.data), at, some, buffer + 2 * r * some);
          values[r] = nest.run(1, static_cast<const T*>(x.data), at, some, buffer + (2 * r + 1) * some);
          means[r] = mean[row];
          inverses[r] = invstd[row];
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

}  // namespace fastconv
