#include "ops/update.h"

#include <algorithm>
#include <cmath>

#include "core/arithmetic.h"
#include "cpu/parallel.h"

namespace fastconv {
namespace {

constexpr std::int64_t kItem = 32768;  // elements of one work item

// body(begin, end) over fixed pieces of [0, count).
template <class Body>
void for_pieces(std::int64_t count, double nanoseconds, Body&& body) {
  parallel_for({ceil_div(count, kItem), nanoseconds * static_cast<double>(count)}, Subnormals::keep,
               [&](std::int64_t item) { body(item * kItem, std::min(count, (item + 1) * kItem)); });
}

}  // namespace

void sgd_update(Dtype dtype, std::int64_t count, void* data_, const void* grad_, void* velocity_, bool first,
                const SgdRule& rule) {
  dispatch_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    T *data = static_cast<T*>(data_), *velocity = static_cast<T*>(velocity_);
    const T* grad = static_cast<const T*>(grad_);
    const T rate = static_cast<T>(rule.rate), momentum = static_cast<T>(rule.momentum);
    const T decay = static_cast<T>(rule.weight_decay), l1 = static_cast<T>(rule.l1);
    for_pieces(count, 1.0, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        T g = grad[i];
        if (decay != 0) g += decay * data[i];
        if (l1 != 0) g += data[i] == 0 ? T(0) : std::copysign(l1, data[i]);
        if (velocity) {
          const T v = velocity[i] = first ? g : velocity[i] * momentum + g;
          g = rule.nesterov ? g + momentum * v : v;
        }
        data[i] -= rate * g;
      }
    });
  });
}

void adam_update(Dtype dtype, std::int64_t count, void* data_, const void* grad_, void* mean_, void* square_,
                 void* largest_, const AdamRule& rule) {
  dispatch_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    T *data = static_cast<T*>(data_), *mean = static_cast<T*>(mean_), *square = static_cast<T*>(square_);
    T* largest = static_cast<T*>(largest_);
    const T* grad = static_cast<const T*>(grad_);
    const T rate = static_cast<T>(rule.rate), eps = static_cast<T>(rule.eps);
    const T beta2 = static_cast<T>(rule.beta2), fresh = static_cast<T>(1 - rule.beta1);
    const T fresh_square = static_cast<T>(1 - rule.beta2), correction = static_cast<T>(rule.correction);
    const T decay = static_cast<T>(rule.weight_decay), shrink = static_cast<T>(rule.shrink);
    for_pieces(count, 2.0, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T value = data[i] * shrink, g = decay != 0 ? grad[i] + decay * value : grad[i];
        const T m = mean[i] += (g - mean[i]) * fresh;
        T s = square[i] = square[i] * beta2 + fresh_square * g * g;
        if (largest) s = largest[i] = s > largest[i] || s != s ? s : largest[i];  // a NaN stays
        data[i] = value - rate * (m / (std::sqrt(s) / correction + eps));
      }
    });
  });
}

}  // namespace fastconv
