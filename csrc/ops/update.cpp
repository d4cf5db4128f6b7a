#include "ops/update.h"

#include <algorithm>
#include <cmath>

#include "cpu/parallel.h"

namespace fastconv {
namespace {

// A rule's numbers in the dtype of the data. The loops below have no choices inside, so that the compiler makes them
// vectors; the arrays are of different parameters or states.
template <class T>
struct Sgd {
  T rate, momentum, decay, l1;

  // A penalty that is not there is not added: zero times an infinite value would be a NaN.
  template <bool decays, bool shrinks>
  T gradient(T grad, T value) const {
    if constexpr (decays) grad += decay * value;
    if constexpr (shrinks) grad += l1 * static_cast<T>((value > 0) - (value < 0));
    return grad;
  }

  template <bool decays, bool shrinks>
  void plain(std::int64_t count, T* __restrict data, const T* __restrict grad) const {
    for (std::int64_t i = 0; i < count; ++i) data[i] -= rate * gradient<decays, shrinks>(grad[i], data[i]);
  }

  template <bool decays, bool shrinks, bool nesterov>
  void moving(std::int64_t count, T* __restrict data, const T* __restrict grad, T* __restrict velocity,
              bool first) const {
    const T kept = first ? T(0) : momentum;
    if (first) std::fill_n(velocity, count, T(0));
    for (std::int64_t i = 0; i < count; ++i) {
      const T g = gradient<decays, shrinks>(grad[i], data[i]), v = velocity[i] * kept + g;
      velocity[i] = v;
      data[i] -= rate * (nesterov ? g + momentum * v : v);
    }
  }

  template <bool decays, bool shrinks>
  void update(std::int64_t count, T* data, const T* grad, T* velocity, bool first, bool nesterov) const {
    if (!velocity)
      plain<decays, shrinks>(count, data, grad);
    else if (nesterov)
      moving<decays, shrinks, true>(count, data, grad, velocity, first);
    else
      moving<decays, shrinks, false>(count, data, grad, velocity, first);
  }
};

template <class T>
struct Adam {
  T rate, fresh, beta2, fresh_square, correction, eps, decay, shrink;

  template <bool decays, bool keeps_largest>
  void update(std::int64_t count, T* __restrict data, const T* __restrict grad, T* __restrict mean,
              T* __restrict square, T* __restrict largest) const {
    for (std::int64_t i = 0; i < count; ++i) {
      const T value = data[i] * shrink, g = decays ? grad[i] + decay * value : grad[i];
      const T m = mean[i] + (g - mean[i]) * fresh;
      T s = square[i] * beta2 + fresh_square * g * g;
      mean[i] = m;
      square[i] = s;
      if constexpr (keeps_largest) {
        s = s < largest[i] ? largest[i] : s;  // a NaN stays
        largest[i] = s;
      }
      data[i] = value - rate * (m / (std::sqrt(s) / correction + eps));
    }
  }
};

}  // namespace

void sgd_update(Dtype dtype, std::int64_t count, void* data, const void* grad, void* velocity, bool first,
                const SgdRule& rule) {
  dispatch_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Sgd<T> sgd{static_cast<T>(rule.rate), static_cast<T>(rule.momentum), static_cast<T>(rule.weight_decay),
                     static_cast<T>(rule.l1)};
    const bool decays = rule.weight_decay != 0, shrinks = rule.l1 != 0;
    const auto update = decays ? shrinks ? &Sgd<T>::template update<true, true> : &Sgd<T>::template update<true, false>
                        : shrinks ? &Sgd<T>::template update<false, true>
                                  : &Sgd<T>::template update<false, false>;
    parallel_pieces(count, 0.4, Subnormals::keep, [&](std::int64_t begin, std::int64_t end) {
      T* const own = velocity ? static_cast<T*>(velocity) + begin : nullptr;
      (sgd.*update)(end - begin, static_cast<T*>(data) + begin, static_cast<const T*>(grad) + begin, own, first,
                    rule.nesterov);
    });
  });
}

void adam_update(Dtype dtype, std::int64_t count, void* data, const void* grad, void* mean, void* square, void* largest,
                 const AdamRule& rule) {
  dispatch_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Adam<T> adam{static_cast<T>(rule.rate),         static_cast<T>(1 - rule.beta1),  static_cast<T>(rule.beta2),
                       static_cast<T>(1 - rule.beta2),    static_cast<T>(rule.correction), static_cast<T>(rule.eps),
                       static_cast<T>(rule.weight_decay), static_cast<T>(rule.shrink)};
    const auto update = rule.weight_decay != 0
                            ? largest ? &Adam<T>::template update<true, true> : &Adam<T>::template update<true, false>
                        : largest ? &Adam<T>::template update<false, true>
                                  : &Adam<T>::template update<false, false>;
    parallel_pieces(count, 1.5, Subnormals::keep, [&](std::int64_t begin, std::int64_t end) {
      (adam.*update)(end - begin, static_cast<T*>(data) + begin, static_cast<const T*>(grad) + begin,
                     static_cast<T*>(mean) + begin, static_cast<T*>(square) + begin,
                     largest ? static_cast<T*>(largest) + begin : nullptr);
    });
  });
}

}  // namespace fastconv
