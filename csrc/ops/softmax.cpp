#include "ops/softmax.h"

#include <algorithm>

#include "core/arithmetic.h"
#include "cpu/eltwise/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"

namespace fastconv {
namespace {

constexpr std::int64_t kItem = 32768;  // elements of one work item, about

// One array's distributions as a matrix of `count` rows and `positions` columns.
template <class T>
struct Matrix {
  T* data;
  std::int64_t row_stride;  // between entries of a distribution
  std::int64_t step;        // between distributions
};

// The matrix in a form that the kernels take (`step` 1, or `row_stride` 1 for single rows): itself or a copy.
template <class T>
struct Dense {
  T* data;
  std::int64_t stride;
};

template <class From, class To>
void copy_matrix(Matrix<From> from, Matrix<To> to, std::int64_t count, std::int64_t positions) {
  for (std::int64_t c = 0; c < count; ++c)
    for (std::int64_t p = 0; p < positions; ++p)
      to.data[c * to.row_stride + p * to.step] = narrow(widen(from.data[c * from.row_stride + p * from.step]), To{});
}

// Runs body(arrays, strides, positions, as_rows) over fixed blocks of distributions; the last of the K arrays is the
// result. Whether distributions are taken as rows depends on the stride of the first array's axis only, so that a
// sample's result does not depend on the others.
template <class S, int K, class Body>
void for_distributions(const Strided* const (&arrays)[K], int axis, Subnormals mode, Body&& body) {
  using T = Compute<S>;
  const std::int64_t count = arrays[0]->shape[static_cast<std::size_t>(axis)];
  const std::int64_t size = arrays[0]->size();
  if (size == 0) return;
  const bool as_rows = count == 1 || arrays[0]->stride[static_cast<std::size_t>(axis)] == 1;
  const LoopNest<K> nest(arrays, as_rows ? 0 : K - 1, axis);
  const std::int64_t inner = nest.inner(), outer = size / count / inner;
  // Blocks of side-by-side distributions small enough for the second-level cache, a multiple of every vector width.
  const std::int64_t block =
      as_rows ? std::max<std::int64_t>(1, kItem / count)
              : std::clamp<std::int64_t>(kItem / count / 16 * 16, 16, std::int64_t{kSoftmaxPositions});
  const std::int64_t blocks = ceil_div(inner, block);
  parallel_for({outer * blocks, 2.0 * static_cast<double>(size)}, mode, [&](std::int64_t item) {
    const std::int64_t begin = item % blocks * block, positions = std::min(block, inner - begin);
    Matrix<S> matrix[K];
    bool copied[K];
    bool any = false;
    for (int k = 0; k < K; ++k) {
      matrix[k] = {static_cast<S*>(arrays[k]->data) + nest.offset(k, item / blocks * inner + begin),
                   arrays[k]->stride[static_cast<std::size_t>(axis)], nest.inner_stride(k)};
      copied[k] =
          !is_wide<S> || (as_rows ? count > 1 && matrix[k].row_stride != 1 : positions > 1 && matrix[k].step != 1);
      any |= copied[k];
    }
    if (as_rows) {
      Workspace<T> scratch(any ? K * count : 0);
      for (std::int64_t p = 0; p < positions; ++p) {
        T* row[K];
        for (int k = 0; k < K; ++k) {
          S* own = matrix[k].data + p * matrix[k].step;
          row[k] = scratch.data() + k * count;
          if constexpr (is_wide<S>) {
            if (!copied[k]) row[k] = own;
          }
          if (copied[k] && k < K - 1) copy_matrix<S, T>({own, matrix[k].row_stride, 0}, {row[k], 1, 0}, count, 1);
        }
        body.row(row, count);
        if (copied[K - 1])
          copy_matrix<T, S>({row[K - 1], 1, 0},
                            {matrix[K - 1].data + p * matrix[K - 1].step, matrix[K - 1].row_stride, 0}, count, 1);
      }
      return;
    }
    Workspace<T> scratch(any ? K * count * positions : 0);
    Dense<T> dense[K];
    for (int k = 0; k < K; ++k) {
      if constexpr (is_wide<S>) dense[k] = {matrix[k].data, matrix[k].row_stride};
      if (!copied[k]) continue;
      dense[k] = {scratch.data() + k * count * positions, positions};
      if (k < K - 1) copy_matrix<S, T>(matrix[k], {dense[k].data, positions, 1}, count, positions);
    }
    body.columns(dense, count, positions);
    if (copied[K - 1]) copy_matrix<T, S>({dense[K - 1].data, positions, 1}, matrix[K - 1], count, positions);
  });
}

struct Forward {
  const SoftmaxKernel& kernel;
  bool logarithm;
  template <class T>
  void row(T* (&row)[2], std::int64_t count) const {
    kernel.row(row[0], row[1], count, logarithm);
  }
  template <class T>
  void columns(Dense<T> (&m)[2], std::int64_t count, std::int64_t positions) const {
    kernel.columns(m[0].data, m[0].stride, m[1].data, m[1].stride, count, positions, logarithm);
  }
};

struct Backward {
  const SoftmaxKernel& kernel;
  bool logarithm;
  // The order of the arrays is y, grad_output, grad_input: the layout follows y.
  template <class T>
  void row(T* (&row)[3], std::int64_t count) const {
    kernel.row_backward(row[1], row[0], row[2], count, logarithm);
  }
  template <class T>
  void columns(Dense<T> (&m)[3], std::int64_t count, std::int64_t positions) const {
    kernel.columns_backward(m[1].data, m[1].stride, m[0].data, m[0].stride, m[2].data, m[2].stride, count, positions,
                            logarithm);
  }
};

}  // namespace

void softmax(Dtype dtype, const Strided& x, const Strided& y, int axis, bool logarithm) {
  const Forward body{choose_softmax(compute_dtype(dtype), active_isa_mask()), logarithm};
  dispatch_storage(
      dtype, [&](auto zero) { for_distributions<decltype(zero), 2>({&x, &y}, axis, subnormals_of(dtype), body); });
}

void softmax_backward(Dtype dtype, const Strided& grad_output, const Strided& y, const Strided& grad_input, int axis,
                      bool logarithm) {
  const Backward body{choose_softmax(compute_dtype(dtype), active_isa_mask()), logarithm};
  dispatch_storage(dtype, [&](auto zero) {
    for_distributions<decltype(zero), 3>({&y, &grad_output, &grad_input}, axis, subnormals_of(dtype), body);
  });
}

}  // namespace fastconv
