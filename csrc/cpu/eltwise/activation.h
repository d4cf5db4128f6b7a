// Elementwise maps over dense runs, and the squared error's sum.
#pragma once

#include "cpu/eltwise/functions.h"
#include "cpu/simd/lanes.h"

namespace fastconv {
namespace {

struct Relu {
  template <class V>
  static FASTCONV_INLINE V of(V x, V, V) {
    return V::where_positive(x, x);
  }
};
struct LeakyRelu {
  template <class V>
  static FASTCONV_INLINE V of(V x, V, V slope) {
    return V::select(x > V::zero(), x, x * slope);
  }
};
struct Elu {
  template <class V>
  static FASTCONV_INLINE V of(V x, V, V alpha) {
    return V::select(x > V::zero(), x, alpha * expm1(x));
  }
};
struct Sigmoid {
  template <class V>
  static FASTCONV_INLINE V of(V x, V, V) {
    return sigmoid(x);
  }
};
struct Tanh {
  template <class V>
  static FASTCONV_INLINE V of(V x, V, V) {
    return tanh(x);
  }
};
struct Step {
  template <class V>
  static FASTCONV_INLINE V of(V x, V, V) {
    return V::select(x > V::zero(), V::broadcast(1), V::where_positive(x, x));  // a NaN stays
  }
};
struct ReluBackward {
  template <class V>
  static FASTCONV_INLINE V of(V g, V y, V) {
    return V::where_positive(y, g);
  }
};
struct LeakyReluBackward {
  template <class V>
  static FASTCONV_INLINE V of(V g, V x, V slope) {
    return V::select(x > V::zero(), g, g * slope);
  }
};
struct EluBackward {
  template <class V>
  static FASTCONV_INLINE V of(V g, V x, V alpha) {
    return V::select(x > V::zero(), g, g * (alpha * exp(x)));
  }
};
struct SigmoidBackward {
  template <class V>
  static FASTCONV_INLINE V of(V g, V y, V) {
    return g * (y * (V::broadcast(1) - y));
  }
};
struct TanhBackward {
  template <class V>
  static FASTCONV_INLINE V of(V g, V y, V) {
    return g * ((V::broadcast(1) - y) * (V::broadcast(1) + y));
  }
};
struct SquaredDifference {
  template <class V>
  static FASTCONV_INLINE V of(V a, V b, V) {
    return (a - b) * (a - b);
  }
};
struct ScaledDifference {
  template <class V>
  static FASTCONV_INLINE V of(V a, V b, V factor) {
    return factor * (a - b);
  }
};

struct Sum {
  template <class V>
  static FASTCONV_INLINE V of(V a, V b, V) {
    return a + b;
  }
};
struct ReluOfSum {
  template <class V>
  static FASTCONV_INLINE V of(V a, V b, V p) {
    return Relu::of(a + b, b, p);
  }
};

template <class F, class T, bool two_inputs>
void run_map(const void* a_, const void* b_, void* y_, int64_t count, double parameter) {
  using V = Reg<T>;
  const T* a = static_cast<const T*>(a_);
  const T* b = static_cast<const T*>(b_);
  T* y = static_cast<T*>(y_);
  const V p = V::broadcast(static_cast<T>(parameter));
  int64_t i = 0;
  for (; i + 2 * V::width <= count; i += 2 * V::width) {
    const V first = F::of(V::load(a + i), two_inputs ? V::load(b + i) : V::zero(), p);
    const V second = F::of(V::load(a + i + V::width), two_inputs ? V::load(b + i + V::width) : V::zero(), p);
    first.store(y + i);
    second.store(y + i + V::width);
  }
  for (; i < count; i += V::width) {
    const int left = count - i < V::width ? static_cast<int>(count - i) : V::width;
    const V value = F::of(load_lanes<V>(a + i, left), two_inputs ? load_lanes<V>(b + i, left) : V::zero(), p);
    store_lanes(value, y + i, left);
  }
}

template <class T>
double run_squared_error(const void* a_, const void* b_, int64_t count) {
  using D = Reg<double>;
  using N = Vec<T, D::width>;
  const T* a = static_cast<const T*>(a_);
  const T* b = static_cast<const T*>(b_);
  D sums[2] = {D::zero(), D::zero()};
  int64_t i = 0;
  for (; i + 2 * D::width <= count; i += 2 * D::width)
    for (int k = 0; k < 2; ++k) {
      const N difference = N::load(a + i + k * D::width) - N::load(b + i + k * D::width);
      const D wide{__builtin_convertvector(difference.v, typename D::raw)};
      sums[k] = D::fma(wide, wide, sums[k]);
    }
  double rest = 0;
  for (; i < count; ++i) {
    const double difference = a[i] - b[i];
    rest += difference * difference;
  }
  return (sums[0] + sums[1]).sum() + rest;
}

// With e = exp(-|x|) no exponential overflows, and each side of 0 has a form without cancellation:
// softplus(x) = max(x, 0) + log1p(e), and the logistic function's smaller tail is e / (1 + e).
template <class T, bool derivative>
void run_binary_cross_entropy(const void* x_, const void* t_, const void* w_, const void* p_, void* y_, int64_t count,
                              double factor) {
  using V = Reg<T>;
  const T *x = static_cast<const T*>(x_), *t = static_cast<const T*>(t_), *w = static_cast<const T*>(w_),
          *p = static_cast<const T*>(p_);
  T* y = static_cast<T*>(y_);
  const V one = V::broadcast(1), scale = V::broadcast(static_cast<T>(factor));
  for (int64_t i = 0; i < count; i += V::width) {
    const int lanes = count - i < V::width ? static_cast<int>(count - i) : V::width;
    const V logit = load_lanes<V>(x + i, lanes), target = load_lanes<V>(t + i, lanes);
    const V positive = p ? load_lanes<V>(p + i, lanes) : one;
    const V e = exp(V::zero() - V::magnitude(logit));
    const V both = V::fma(positive - one, target, one);  // (1 - t) + p * t
    const auto below = logit < V::zero();
    const V side = V::select(below, V::zero() - positive * target, one - target);
    V value;
    if (derivative) {
      const V tail = both * (e / (one + e));
      value = V::select(below, side + tail, side - tail);
    } else {
      value = V::fma(side, logit, both * log1p_of_small(e));
    }
    if (w) value = value * load_lanes<V>(w + i, lanes);
    store_lanes(value * scale, y + i, lanes);
  }
}

template <class T>
double run_sum(const void* x_, int64_t count) {
  using D = Reg<double>;
  const T* x = static_cast<const T*>(x_);
  D sums[2] = {D::zero(), D::zero()};
  int64_t i = 0;
  for (; i + 2 * D::width <= count; i += 2 * D::width)
    for (int k = 0; k < 2; ++k) {
      const auto narrow = Vec<T, D::width>::load(x + i + k * D::width);
      sums[k] = sums[k] + D{__builtin_convertvector(narrow.v, typename D::raw)};
    }
  double rest = 0;
  for (; i < count; ++i) rest += static_cast<double>(x[i]);
  return (sums[0] + sums[1]).sum() + rest;
}

template <class T>
constexpr ActivationKernel activation_row(const char* name, Isa isa) {
  return {{"activation", name, isa, DtypeOf<T>::value, 1, Reg<T>::width},
          {run_map<Relu, T, false>, run_map<LeakyRelu, T, false>, run_map<Elu, T, false>, run_map<Sigmoid, T, false>,
           run_map<Tanh, T, false>, run_map<Step, T, false>, run_map<ReluBackward, T, true>,
           run_map<LeakyReluBackward, T, true>, run_map<EluBackward, T, true>, run_map<SigmoidBackward, T, true>,
           run_map<TanhBackward, T, true>, run_map<SquaredDifference, T, true>, run_map<ScaledDifference, T, true>,
           run_map<Sum, T, true>, run_map<ReluOfSum, T, true>},
          run_squared_error<T>,
          run_binary_cross_entropy<T, false>,
          run_binary_cross_entropy<T, true>,
          run_sum<T>};
}

}  // namespace
}  // namespace fastconv
