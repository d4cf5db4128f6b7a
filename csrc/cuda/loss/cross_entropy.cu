// Softmax cross entropy, one thread a position: loss = -sum over classes of coefficient * log_softmax. For class
// indices the coefficient is `even` * weight[c], plus `hard` * weight at the target; for probabilities it is
// (probability * `hard` + `even`) * weight[c].
#include "cuda/loss/loss.h"
#include "cuda/loss/total.h"
#include "cuda/nest.h"

namespace fastconv {
namespace cuda {
namespace {

template <class S>
struct Problem {
  const S *logits, *probabilities, *weight;
  const std::int64_t* target;
  Index classes, positions, ignore_index;
  double hard, even;

  FASTCONV_DEVICE double logit(Index n, Index c, Index s) const {
    return static_cast<double>(dev::load(logits + (n * classes + c) * positions + s));
  }
  FASTCONV_DEVICE double probability(Index n, Index c, Index s) const {
    return static_cast<double>(dev::load(probabilities + (n * classes + c) * positions + s));
  }
  FASTCONV_DEVICE double factor(Index c) const { return weight ? static_cast<double>(dev::load(weight + c)) : 1.0; }
  FASTCONV_DEVICE bool counts(Index i) const { return !target || target[i] != ignore_index; }
  // Whether the position's class exists.
  FASTCONV_DEVICE bool sound(Index i) const { return !target || (target[i] >= 0 && target[i] < classes); }
  FASTCONV_DEVICE double share(Index n, Index c, Index s) const {
    double value = even;
    if (probabilities)
      value += probability(n, c, s) * hard;
    else if (target[n * positions + s] == c)
      value += hard;
    return value * factor(c);
  }
};

// The largest logit of a position, and the logarithm of the sum of exponentials above it.
struct Scale {
  double top, log_sum;
};

template <class S>
FASTCONV_DEVICE Scale scale_of(const Problem<S>& p, Index n, Index s) {
  double top = -INFINITY;
  for (Index c = 0; c < p.classes; ++c) {
    const double value = p.logit(n, c, s);
    top = value > top || value != value ? value : top;
  }
  double sum = 0;
  for (Index c = 0; c < p.classes; ++c) sum += std::exp(p.logit(n, c, s) - top);
  return {top, std::log(sum)};
}

template <class S>
__global__ void loss_kernel(Problem<S> p, Index count, double* losses, double* divisors) {
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Index n = i / p.positions, s = i % p.positions;
    double loss = 0, divisor = p.target ? 0 : 1;
    if (!p.sound(i) && p.counts(i)) {
      loss = divisor = NAN;
    } else if (p.counts(i)) {
      const Scale scale = scale_of(p, n, s);
      for (Index c = 0; c < p.classes; ++c) {
        const double share = p.share(n, c, s);
        if (p.probabilities || p.even != 0 || p.target[i] == c)
          loss -= share * ((p.logit(n, c, s) - scale.top) - scale.log_sum);
      }
      if (p.target) divisor = p.factor(p.target[i]);
    }
    losses[i] = loss;
    divisors[i] = divisor;
  }
}

template <class S>
__global__ void narrow_kernel(const double* values, Index count, S* result) {
  for (Index i = dev::first(); i < count; i += dev::step()) dev::store(result + i, static_cast<Compute<S>>(values[i]));
}

template <class S>
__global__ void finish_kernel(const double* sums, bool mean, S* result) {
  // Nothing counted: NaN, as in PyTorch.
  if (threadIdx.x == 0) dev::store(result, static_cast<Compute<S>>(mean ? sums[0] / sums[1] : sums[0]));
}

template <class S>
__global__ void divisors_kernel(Problem<S> p, Index count, double* divisors) {
  for (Index i = dev::first(); i < count; i += dev::step())
    divisors[i] = !p.target ? 1 : !p.counts(i) ? 0 : p.sound(i) ? p.factor(p.target[i]) : NAN;
}

// gradient = (softmax * sum of the shares - shares) times the loss's own gradient.
template <class S>
__global__ void backward_kernel(Problem<S> p, Index count, const S* grad_output, double number, bool each,
                                const double* divisor, S* gx) {
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Index n = i / p.positions, s = i % p.positions;
    double g = grad_output ? static_cast<double>(dev::load(grad_output + (each ? i : 0))) : number;
    if (divisor) g = *divisor == 0 ? 0 : g / *divisor;
    const bool counted = p.counts(i);
    if (!p.sound(i) && counted) g = NAN;
    if (!counted || !p.sound(i)) {
      for (Index c = 0; c < p.classes; ++c)
        dev::store(gx + (n * p.classes + c) * p.positions + s, static_cast<Compute<S>>(counted ? g : 0.0));
      continue;
    }
    const Scale scale = scale_of(p, n, s);
    double shares = 0;
    for (Index c = 0; c < p.classes; ++c) shares += p.share(n, c, s);
    for (Index c = 0; c < p.classes; ++c) {
      const double softmax = std::exp((p.logit(n, c, s) - scale.top) - scale.log_sum);
      dev::store(gx + (n * p.classes + c) * p.positions + s,
                 static_cast<Compute<S>>((softmax * shares - p.share(n, c, s)) * g));
    }
  }
}

template <class S>
Problem<S> problem_of(const CrossEntropy& p) {
  const bool classes = p.by_class();
  return {static_cast<const S*>(p.logits.data),
          classes ? nullptr : static_cast<const S*>(p.target.data),
          static_cast<const S*>(p.weight.data),
          classes ? static_cast<const std::int64_t*>(p.target.data) : nullptr,
          p.classes,
          p.positions,
          p.ignore_index,
          1 - p.label_smoothing,
          p.label_smoothing / static_cast<double>(p.classes)};
}

double* doubles(const Queue& queue, Index count) {
  return static_cast<double*>(queue.scratch(sizeof(double) * static_cast<std::size_t>(count)));
}

}  // namespace

void cross_entropy(const Queue& queue, const CrossEntropy& problem, Reduction reduction, const Operand& result) {
  const Index count = problem.samples * problem.positions;
  double *losses = doubles(queue, count), *divisors = doubles(queue, count), *sums = doubles(queue, 2);
  dispatch_storage(problem.logits.dtype(), [&](auto zero) {
    using S = decltype(zero);
    auto* to = static_cast<S*>(result.data);
    if (count > 0) launch(queue, grid_of(count), loss_kernel<S>, problem_of<S>(problem), count, losses, divisors);
    if (reduction == Reduction::none) {
      if (count > 0) launch(queue, grid_of(count), narrow_kernel<S>, static_cast<const double*>(losses), count, to);
      return;
    }
    total(queue, Numbers{losses}, count, sums);
    total(queue, Numbers{divisors}, count, sums + 1);
    launch(queue, Grid{1, 32, 0}, finish_kernel<S>, static_cast<const double*>(sums), reduction == Reduction::mean, to);
  });
}

void cross_entropy_backward(const Queue& queue, const CrossEntropy& problem, const Operand& grad_output, bool mean,
                            const Operand& grad_input) {
  const Index count = problem.samples * problem.positions;
  if (count == 0) return;
  double *divisors = doubles(queue, count), *divisor = doubles(queue, 1);
  dispatch_storage(problem.logits.dtype(), [&](auto zero) {
    using S = decltype(zero);
    const Problem<S> p = problem_of<S>(problem);
    if (mean) {
      launch(queue, grid_of(count), divisors_kernel<S>, p, count, divisors);
      total(queue, Numbers{divisors}, count, divisor);
    }
    launch(queue, grid_of(count), backward_kernel<S>, p, count, static_cast<const S*>(grad_output.data),
           grad_output.number, grad_output.shape.size() == 2, mean ? static_cast<const double*>(divisor) : nullptr,
           static_cast<S*>(grad_input.data));
  });
}

}  // namespace cuda
}  // namespace fastconv
