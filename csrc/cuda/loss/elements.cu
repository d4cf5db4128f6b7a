// The squared error and the binary cross entropy.
#include "cuda/loss/loss.h"
#include "cuda/loss/total.h"
#include "cuda/nest.h"

namespace fastconv {
namespace cuda {
namespace {

template <class S>
struct SquaredError {
  Nest<2> nest;
  const S *a, *b;

  FASTCONV_DEVICE double operator()(Index i) const {
    Index at[2];
    nest.offsets(i, at);
    const double difference = static_cast<double>(dev::load(a + at[0])) - static_cast<double>(dev::load(b + at[1]));
    return difference * difference;
  }
};

template <class S>
struct Elements {
  Nest<5> nest;  // x, target, weight, pos_weight, y
  const S *x, *target, *weight, *pos_weight;

  // With e = exp(-|x|) no exponential overflows, and each side of 0 has a form without cancellation:
  // softplus(x) = max(x, 0) + log1p(e), and the logistic function's smaller tail is e / (1 + e).
  FASTCONV_DEVICE Compute<S> value(const Index (&at)[5], bool derivative) const {
    using T = Compute<S>;
    const T logit = dev::load(x + at[0]), wanted = dev::load(target + at[1]);
    const T positive = pos_weight ? dev::load(pos_weight + at[3]) : T(1);
    const T e = std::exp(-std::fabs(logit));
    const T both = (positive - T(1)) * wanted + T(1);  // (1 - t) + p * t
    const bool below = logit < T(0);
    const T side = below ? -positive * wanted : T(1) - wanted;
    T result;
    if (derivative) {
      const T tail = both * (e / (T(1) + e));
      result = below ? side + tail : side - tail;
    } else {
      result = side * logit + both * std::log1p(e);
    }
    return weight ? result * dev::load(weight + at[2]) : result;
  }
  FASTCONV_DEVICE double operator()(Index i) const {
    Index at[5];
    nest.offsets(i, at);
    return static_cast<double>(value(at, false));
  }
};

template <class S>
__global__ void elements_kernel(Elements<S> elements, S* y, bool derivative, double factor) {
  for (Index i = dev::first(); i < elements.nest.size; i += dev::step()) {
    Index at[5];
    elements.nest.offsets(i, at);
    dev::store(y + at[4], elements.value(at, derivative) * static_cast<Compute<S>>(factor));
  }
}

template <class S>
Elements<S> elements_of(const BinaryCrossEntropy& p, const Operand& y) {
  for (const Operand* each : {&p.target, &p.weight, &p.pos_weight, &y}) require_shape(*each, p.x.shape, "target");
  const Operand* const arrays[] = {&p.x, &p.target, &p.weight, &p.pos_weight, &y};
  const auto data = [](const Operand& operand) { return static_cast<const S*>(operand.data); };
  return {nest_of<5>(p.x.shape, arrays), data(p.x), data(p.target), data(p.weight), data(p.pos_weight)};
}

}  // namespace

void squared_error(const Queue& queue, const Operand& a, const Operand& b, double* sum) {
  require_shape(b, a.shape, "b");
  const Operand* const arrays[] = {&a, &b};
  const Nest<2> nest = nest_of<2>(a.shape, arrays);
  dispatch_storage(a.dtype(), [&](auto zero) {
    using S = decltype(zero);
    total(queue, SquaredError<S>{nest, static_cast<const S*>(a.data), static_cast<const S*>(b.data)}, nest.size, sum);
  });
}

void binary_cross_entropy(const Queue& queue, const BinaryCrossEntropy& problem, const Operand& y, bool derivative,
                          double factor) {
  if (y.size() == 0) return;
  dispatch_storage(problem.x.dtype(), [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(y.size()), elements_kernel<S>, elements_of<S>(problem, y), static_cast<S*>(y.data),
           derivative, factor);
  });
}

void binary_cross_entropy_sum(const Queue& queue, const BinaryCrossEntropy& problem, double* sum) {
  dispatch_storage(problem.x.dtype(), [&](auto zero) {
    using S = decltype(zero);
    const Elements<S> elements = elements_of<S>(problem, Operand{});
    total(queue, elements, elements.nest.size, sum);
  });
}

}  // namespace cuda
}  // namespace fastconv
