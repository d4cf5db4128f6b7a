#include "ops/eltwise.h"

#include <cmath>
#include <numeric>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"

namespace fastconv {
namespace {

constexpr std::int64_t kRun = 1024;  // elements gathered at a time where an input is not dense

// Maps that only pick, scale or add their inputs keep subnormal numbers; so does float64 everywhere.
Subnormals mode_of(Dtype dtype, Map map) {
  const bool selection = map == Map::relu || map == Map::leaky_relu || map == Map::step || map == Map::relu_backward ||
                         map == Map::leaky_relu_backward || map == Map::sum || map == Map::relu_of_sum;
  return selection ? Subnormals::keep : subnormals_of(dtype);
}

// Whether all of a nest is one dense run of array k.
template <int K>
bool dense(const LoopNest<K>& nest, int k) {
  return nest.rank == 0 || (nest.rank == 1 && nest.stride[k][0] == 1);
}

template <int K>
void require_dense_result(const LoopNest<K>& nest, int k) {
  std::int64_t expected = 1;
  for (int i = nest.rank - 1; i >= 0; --i) {
    require(nest.stride[k][i] == expected, "y: expected a dense array");
    expected *= nest.shape[i];
  }
}

// Calls body(y) for a result of at most kRun elements where they are 16-bit ones: for the result itself, or for a
// buffer that is then rounded to it.
template <class S, class Body>
void into(S* y, std::int64_t count, Body&& body) {
  if constexpr (is_wide<S>) {
    body(y);
  } else {
    Compute<S> buffer[kRun];
    body(buffer);
    narrow_run(buffer, y, count);
  }
}

// body(first, count) over fixed pieces of [0, size): whole ones where every input is dense, else gathered runs.
template <class Body>
void for_pieces(std::int64_t size, bool all_dense, Subnormals mode, Body&& body) {
  parallel_pieces(size, 1, mode, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t step = all_dense ? end - begin : kRun;
    for (std::int64_t at = begin; at < end; at += step) body(at, std::min(step, end - at));
  });
}

// The sum of term(first, count) over fixed pieces of [0, size), whatever the strides: its order depends on the size
// only.
template <class Term>
double sum_of_pieces(std::int64_t size, Subnormals mode, Term&& term) {
  const std::int64_t pieces = ceil_div(size, kPiece);
  Workspace<double> sums(pieces);
  for_pieces(size, false, mode, [&](std::int64_t at, std::int64_t count) {
    const double part = term(at, count);
    double& sum = sums[at / kPiece];
    sum = at % kPiece == 0 ? part : sum + part;
  });
  return std::accumulate(sums.data(), sums.data() + pieces, 0.0);
}

}  // namespace

bool map_has_two_inputs(Map map) { return map >= Map::relu_backward; }

void run_eltwise(Dtype dtype, Map map, const Strided& a, const Strided* b, const Strided& y, double parameter) {
  const std::int64_t size = y.size();
  const ActivationKernel& kernel = choose_activation(compute_dtype(dtype), active_isa_mask());
  if (size == 0) return;
  const LoopNest<3> nest({&a, b ? b : &a, &y}, 2);
  require_dense_result(nest, 2);
  const MapFunction function = kernel.maps[static_cast<int>(map)];
  const bool all_dense = dense(nest, 0) && dense(nest, 1);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const S* first = static_cast<const S*>(a.data);
    const S* second = b ? static_cast<const S*>(b->data) : nullptr;
    S* result = static_cast<S*>(y.data);
    for_pieces(size, all_dense && is_wide<S>, mode_of(dtype, map), [&](std::int64_t at, std::int64_t count) {
      T buffers[2][kRun];
      const T* left = nest.run(0, first, at, count, buffers[0]);
      const T* right = second ? nest.run(1, second, at, count, buffers[1]) : nullptr;
      into(result + at, count, [&](T* to) { function(left, right, to, count, parameter); });
    });
  });
}

double squared_error(Dtype dtype, const Strided& a, const Strided& b) {
  const std::int64_t size = a.size();
  const ActivationKernel& kernel = choose_activation(compute_dtype(dtype), active_isa_mask());
  if (size == 0) return 0;
  const LoopNest<2> nest({&a, &b}, 0);
  return dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    return sum_of_pieces(size, Subnormals::keep, [&](std::int64_t at, std::int64_t count) {
      Compute<S> buffers[2][kRun];
      return kernel.squared_error(nest.run(0, static_cast<const S*>(a.data), at, count, buffers[0]),
                                  nest.run(1, static_cast<const S*>(b.data), at, count, buffers[1]), count);
    });
  });
}

namespace {

// A binary cross entropy's arrays, read in the order of `y`.
struct Operands {
  const BinaryCrossEntropy& p;
  LoopNest<5> nest;

  Operands(const BinaryCrossEntropy& problem, const Strided& y)
      : p(problem), nest({&p.x, &p.target, &or_x(p.weight), &or_x(p.pos_weight), &y}, 4) {}

  const Strided& or_x(const Strided& array) const { return array.data ? array : p.x; }

  // S: the type of the arrays' elements.
  template <class S>
  void run(BinaryCrossEntropyFunction function, std::int64_t at, std::int64_t count, Compute<S>* y,
           double factor) const {
    const Strided* arrays[4] = {&p.x, &p.target, &p.weight, &p.pos_weight};
    Compute<S> buffers[4][kRun];
    const Compute<S>* runs[4];
    for (int k = 0; k < 4; ++k) {
      const S* data = static_cast<const S*>(arrays[k]->data);
      runs[k] = data ? nest.run(k, data, at, count, buffers[k]) : nullptr;
    }
    function(runs[0], runs[1], runs[2], runs[3], y, count, factor);
  }
};

}  // namespace

void binary_cross_entropy(const BinaryCrossEntropy& p, const Strided& y, bool derivative, double factor) {
  const std::int64_t size = y.size();
  const ActivationKernel& kernel = choose_activation(compute_dtype(p.dtype), active_isa_mask());
  if (size == 0) return;
  const Operands operands(p, y);
  require_dense_result(operands.nest, 4);
  const auto function = derivative ? kernel.binary_cross_entropy_backward : kernel.binary_cross_entropy;
  dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    for_pieces(size, false, subnormals_of(p.dtype), [&](std::int64_t at, std::int64_t count) {
      into(static_cast<S*>(y.data) + at, count,
           [&](Compute<S>* to) { operands.template run<S>(function, at, count, to, factor); });
    });
  });
}

double binary_cross_entropy_sum(const BinaryCrossEntropy& p) {
  const std::int64_t size = p.x.size();
  const ActivationKernel& kernel = choose_activation(compute_dtype(p.dtype), active_isa_mask());
  if (size == 0) return 0;
  const Operands operands(p, p.x);
  return dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    return sum_of_pieces(size, subnormals_of(p.dtype), [&](std::int64_t at, std::int64_t count) {
      Compute<S> losses[kRun];
      operands.template run<S>(kernel.binary_cross_entropy, at, count, losses, 1);
      return static_cast<double>(kernel.sum(losses, count));
    });
  });
}

void draw_dropout_mask(std::uint64_t seed, double p, std::int64_t count, std::uint8_t* keep) {
  require(p >= 0 && p <= 1, "p: expected a probability between 0 and 1");
  const auto threshold = static_cast<std::uint64_t>(std::llround(std::ldexp(p, 32)));
  const DropoutKernel& kernel = choose_dropout(Dtype::f32, active_isa_mask());
  for_pieces(count, true, Subnormals::keep,
             [&](std::int64_t at, std::int64_t some) { kernel.draw(seed, at, some, threshold, keep + at); });
}

void apply_dropout(Dtype dtype, const Strided& x, const Strided& keep, const Strided& y, double scale) {
  const std::int64_t size = y.size();
  const DropoutKernel& kernel = choose_dropout(compute_dtype(dtype), active_isa_mask());
  if (size == 0) return;
  const LoopNest<3> nest({&x, &keep, &y}, 2);
  require_dense_result(nest, 2);
  dispatch_storage(dtype, [&](auto zero) {
    using S = decltype(zero);
    for_pieces(size, dense(nest, 0) && dense(nest, 1) && is_wide<S>, Subnormals::keep,
               [&](std::int64_t at, std::int64_t count) {
                 Compute<S> buffer[kRun];
                 std::uint8_t flags[kRun];
                 const Compute<S>* values = nest.run(0, static_cast<const S*>(x.data), at, count, buffer);
                 const std::uint8_t* kept = nest.run(1, static_cast<const std::uint8_t*>(keep.data), at, count, flags);
                 into(static_cast<S*>(y.data) + at, count,
                      [&](Compute<S>* to) { kernel.apply(values, kept, to, count, scale); });
               });
  });
}

}  // namespace fastconv
