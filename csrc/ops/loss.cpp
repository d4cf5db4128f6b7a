#include "ops/loss.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/eltwise/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"

namespace fastconv {
namespace {

constexpr std::int64_t kItem = 16384;  // logits of one work item, about

// loss = -sum over c of coefficient[c] * log_softmax[c]. For class indices the coefficient is `even` * weight[c], plus
// `hard` * weight at the target; for probabilities it is (probability * `hard` + `even`) * weight[c].
struct Shares {
  double hard, even;
  explicit Shares(const CrossEntropy& p)
      : hard(1 - p.label_smoothing), even(p.label_smoothing / static_cast<double>(p.classes)) {}
};

// A block of `count` neighbouring positions of sample n; entry c of position p lies at c * stride + p. In the arrays
// themselves, or, widened, in copies.
template <class T>
struct Block {
  std::int64_t sample, begin, count, stride;
  const T* logits;
  const T* probabilities;  // or null
  T* result;               // the logits' gradient, or null
};

// Calls body(block, scratch) over fixed blocks of positions, small enough for the cache; the scratch memory has room
// for `numbers` of each class of a block's positions.
template <class S, class Body>
void for_blocks(const CrossEntropy& p, void* grad_input, std::int64_t numbers, Body&& body) {
  using T = Compute<S>;
  const std::int64_t size = std::clamp<std::int64_t>(kItem / p.classes / 16 * 16, 16, kSoftmaxPositions);
  const std::int64_t blocks = ceil_div(p.positions, size);
  // Samples of few logits share an item.
  const std::int64_t together = std::max<std::int64_t>(1, kItem / (p.classes * std::min(size, p.positions)));
  const std::int64_t all = p.samples * blocks, most = p.classes * std::min(size, p.positions);
  const Work work{ceil_div(all, together), 2.0 * static_cast<double>(p.samples * p.positions * p.classes)};
  parallel_for(work, subnormals_of(p.dtype), [&](std::int64_t item) {
    Workspace<T> scratch((numbers + (is_wide<S> ? 0 : 3)) * most);
    for (std::int64_t i = item * together; i < std::min(all, (item + 1) * together); ++i) {
      const std::int64_t n = i / blocks, begin = i % blocks * size, count = std::min(size, p.positions - begin);
      const std::int64_t offset = n * p.classes * p.positions + begin;
      const S* logits = static_cast<const S*>(p.logits) + offset;
      const S* probabilities = p.target ? nullptr : static_cast<const S*>(p.probabilities) + offset;
      S* result = grad_input ? static_cast<S*>(grad_input) + offset : nullptr;
      if constexpr (is_wide<S>) {
        body(Block<T>{n, begin, count, p.positions, logits, probabilities, result}, scratch.data());
      } else {
        T* copies = scratch + numbers * most;
        for (std::int64_t c = 0; c < p.classes; ++c) {
          widen_run(logits + c * p.positions, copies + c * count, count);
          if (probabilities) widen_run(probabilities + c * p.positions, copies + most + c * count, count);
        }
        T* wide_result = copies + 2 * most;
        body(Block<T>{n, begin, count, count, copies, probabilities ? copies + most : nullptr, wide_result},
             scratch.data());
        for (std::int64_t c = 0; result && c < p.classes; ++c)
          narrow_run(wide_result + c * count, result + c * p.positions, count);
      }
    }
  });
}

template <class T>
void softmax_block(const SoftmaxKernel& kernel, const CrossEntropy& p, const Block<T>& block, T* to,
                   std::int64_t stride, bool logarithm) {
  if (p.positions == 1) {
    kernel.row(block.logits, to, p.classes, logarithm);
  } else {
    kernel.columns(block.logits, block.stride, to, stride, p.classes, block.count, logarithm);
  }
}

bool counts(const CrossEntropy& p, std::int64_t position) { return !p.target || p.target[position] != p.ignore_index; }

}  // namespace

double cross_entropy_divisor(const CrossEntropy& p) {
  const std::int64_t size = p.samples * p.positions;
  if (!p.target) return static_cast<double>(size);
  double total = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const std::int64_t target = p.target[i];
    if (target == p.ignore_index) continue;
    if (target < 0 || target >= p.classes)
      fail("target: got class " + std::to_string(target) + ", expected 0 to " + std::to_string(p.classes - 1));
    total += p.weight[target];
  }
  return total;
}

double cross_entropy(const CrossEntropy& p, void* losses) {
  const SoftmaxKernel& kernel = choose_softmax(compute_dtype(p.dtype), active_isa_mask());
  const Shares shares(p);
  const std::int64_t size = p.samples * p.positions;
  if (size == 0) return 0;
  Workspace<double> values(size);
  dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    for_blocks<S>(p, nullptr, 1, [&](const Block<T>& block, T* logarithms) {
      softmax_block(kernel, p, block, logarithms, block.count, true);
      double* loss = values + block.sample * p.positions + block.begin;
      std::fill_n(loss, block.count, 0.0);
      const T* own = block.probabilities;
      const auto share = [&](std::int64_t c, std::int64_t i) {
        return own ? static_cast<double>(own[c * block.stride + i]) * shares.hard + shares.even : shares.even;
      };
      const bool all_classes = own || shares.even != 0;
      if (all_classes && p.positions == 1) {  // four sums side by side: one alone would wait for each addition
        double part[4] = {0, 0, 0, 0};
        for (std::int64_t c = 0; c < p.classes; ++c)
          part[c % 4] -= share(c, 0) * p.weight[c] * static_cast<double>(logarithms[c]);
        loss[0] = (part[0] + part[1]) + (part[2] + part[3]);
      } else if (all_classes) {
        for (std::int64_t c = 0; c < p.classes; ++c)
          for (std::int64_t i = 0; i < block.count; ++i)
            loss[i] -= share(c, i) * p.weight[c] * static_cast<double>(logarithms[c * block.count + i]);
      }
      for (std::int64_t i = 0; p.target && i < block.count; ++i) {
        const std::int64_t position = block.sample * p.positions + block.begin + i, target = p.target[position];
        if (counts(p, position)) {
          loss[i] -= shares.hard * p.weight[target] * static_cast<double>(logarithms[target * block.count + i]);
        } else {
          loss[i] = 0;
        }
      }
      for (std::int64_t i = 0; losses && i < block.count; ++i)
        static_cast<S*>(losses)[block.sample * p.positions + block.begin + i] = narrow(static_cast<T>(loss[i]), S{});
    });
  });
  // Runs of 128 first: the rounding errors of a long sum grow with its longest chain.
  double total = 0;
  for (std::int64_t begin = 0; begin < size; begin += 128) {
    double part = 0;
    for (std::int64_t i = begin; i < std::min(size, begin + 128); ++i) part += values[i];
    total += part;
  }
  return total;
}

void cross_entropy_backward(const CrossEntropy& p, const void* grad_output, double factor, void* grad_input) {
  const SoftmaxKernel& kernel = choose_softmax(compute_dtype(p.dtype), active_isa_mask());
  const Shares shares(p);
  if (p.samples * p.positions == 0) return;
  double all_weights = 0;
  for (std::int64_t c = 0; c < p.classes; ++c) all_weights += p.weight[c];
  dispatch_storage(p.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    for_blocks<S>(p, grad_input, 0, [&](const Block<T>& block, T*) {
      T* result = block.result;
      softmax_block(kernel, p, block, result, block.stride, false);
      // The gradient is (softmax * sum of the coefficients - coefficients) times the loss's own gradient.
      T sums[kSoftmaxPositions], gradients[kSoftmaxPositions];
      const std::int64_t first = block.sample * p.positions + block.begin;
      const T* own = block.probabilities;
      for (std::int64_t i = 0; i < block.count; ++i) {
        const double g =
            grad_output ? static_cast<double>(widen(static_cast<const S*>(grad_output)[first + i])) : factor;
        gradients[i] = counts(p, first + i) ? static_cast<T>(g) : T(0);
        double sum = shares.even * all_weights;
        if (!own && counts(p, first + i)) sum += shares.hard * p.weight[p.target[first + i]];
        for (std::int64_t c = 0; own && c < p.classes; ++c)
          sum += shares.hard * p.weight[c] * static_cast<double>(own[c * block.stride + i]);
        sums[i] = static_cast<T>(sum) * gradients[i];
      }
      const T hard = static_cast<T>(shares.hard), even = static_cast<T>(shares.even);
      if (p.positions == 1) {  // one line of classes
        for (std::int64_t c = 0; c < p.classes; ++c) {
          const T share = (own ? own[c] * hard + even : even) * static_cast<T>(p.weight[c]);
          result[c] = result[c] * sums[0] - share * gradients[0];
        }
      }
      for (std::int64_t c = 0; p.positions > 1 && c < p.classes; ++c) {
        T* row = result + c * block.stride;
        const T weight = static_cast<T>(p.weight[c]), smooth = even * weight;
        if (own) {
          const T* probability = own + c * block.stride;
          for (std::int64_t i = 0; i < block.count; ++i)
            row[i] = row[i] * sums[i] - (probability[i] * hard * weight + smooth) * gradients[i];
        } else {
          for (std::int64_t i = 0; i < block.count; ++i) row[i] = row[i] * sums[i] - smooth * gradients[i];
        }
      }
      for (std::int64_t i = 0; p.target && i < block.count; ++i)
        if (counts(p, first + i)) {
          const std::int64_t target = p.target[first + i];
          result[target * block.stride + i] -= static_cast<T>(shares.hard * p.weight[target]) * gradients[i];
        } else {
          for (std::int64_t c = 0; c < p.classes; ++c) result[c * block.stride + i] = 0;
        }
    });
  });
}

}  // namespace fastconv
