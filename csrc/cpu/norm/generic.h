// The norms of channels over the register type of the file that includes it.
#pragma once

#include "cpu/norm/kernels.h"
#include "cpu/norm/moments.h"

namespace fastconv {
namespace {

// What the dot products lose by rounding the mean is given back.
FASTCONV_INLINE double with_mean(double dot, double sum, double mean, double center) {
  const double lost = mean - center;
  return dot - (lost - lost == 0 ? lost * sum : 0.0);
}

// Sum of gradients, and of gradients times values' distances from the mean: of one run after another.
template <class T>
class Products {
  using V = Reg<T>;

 public:
  explicit Products(double mean) : mean_(mean), center_(static_cast<T>(mean)) {}

  // `gradient(at, lanes)` gives a register of the run's gradients, zero behind the last of its lanes.
  template <class G>
  FASTCONV_INLINE void add(const T* x, int64_t count, G gradient) {
    const T center = center_;
    const V middle = V::broadcast(center);
    sums_.add_run(count, [&](int64_t at, int lanes, V& sum, V& dot) __attribute__((always_inline)) {
      const V g = gradient(at, lanes);
      sum = sum + g;
      dot = V::fma(g, load_lanes<V>(x + at, lanes, center) - middle, dot);
    });
  }

  FASTCONV_INLINE void store(double* sum, double* dot) {
    sums_.finish(sum, dot);
    *dot = with_mean(*dot, *sum, mean_, static_cast<double>(center_));
  }

 private:
  TwoSums<V> sums_;
  double mean_;
  T center_;
};

template <class T>
void plane_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t planes, int64_t length,
                    double mean, double* sum, double* dot) {
  using V = Reg<T>;
  Products<T> products(mean);
  for (int64_t n = 0; n < planes; ++n) {
    const T* g = static_cast<const T*>(g_) + n * g_stride;
    products.add(static_cast<const T*>(x_) + n * x_stride, length,
                 [&](int64_t at, int lanes) __attribute__((always_inline)) { return load_lanes<V>(g + at, lanes); });
  }
  products.store(sum, dot);
}

// Planes of few registers need neither several partial sums nor chains: the planes after them fill the time that theirs
// wait.
template <class T>
void group_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t planes, int64_t length,
                    double mean, double* sum, double* dot) {
  using V = Reg<T>;
  const T center = static_cast<T>(mean);
  const V middle = V::broadcast(center);
  for (int64_t n = 0; n < planes; ++n) {
    const T* g = static_cast<const T*>(g_) + n * g_stride;
    const T* x = static_cast<const T*>(x_) + n * x_stride;
    if (length > kChain * V::width) {
      plane_products<T>(g, 0, x, 0, 1, length, mean, sum + n, dot + n);
      continue;
    }
    V sums = V::zero(), dots = V::zero();
    int64_t i = 0;
    for (; i + V::width <= length; i += V::width) {
      const V gradient = V::load(g + i);
      sums = sums + gradient;
      dots = V::fma(gradient, V::load(x + i) - middle, dots);
    }
    if (i < length) {
      const int lanes = static_cast<int>(length - i);
      const V gradient = load_lanes<V>(g + i, lanes);
      sums = sums + gradient;
      dots = V::fma(gradient, load_lanes<V>(x + i, lanes, center) - middle, dots);
    }
    WideSum<V> wide_sum, wide_dot;
    wide_sum.add(sums);
    wide_dot.add(dots);
    sum[n] = wide_sum.sum();
    dot[n] = with_mean(wide_dot.sum(), sum[n], mean, static_cast<double>(center));
  }
}

// The affine maps of a register of values.
template <class V>
struct Coefficients {
  V mean, scale, shift, slope;
  FASTCONV_INLINE V forward(V x) const { return V::fma(x - mean, scale, shift); }
  FASTCONV_INLINE V backward(V g, V x) const { return V::fma(g, scale, V::fma(x - mean, slope, shift)); }
};

template <class T, class V>
FASTCONV_INLINE Coefficients<V> splat(const NormCoefficients& c, int64_t channel, bool backward) {
  const auto at = [&](const void* p) { return V::broadcast(static_cast<const T*>(p)[channel]); };
  if (backward && !c.slope) return {V::zero(), at(c.scale), V::zero(), V::zero()};
  return {at(c.mean), at(c.scale), at(c.shift), backward ? at(c.slope) : V::zero()};
}

template <class T, class V>
FASTCONV_INLINE Coefficients<V> load_coefficients(const NormCoefficients& c, int64_t channel, int lanes,
                                                  bool backward) {
  const auto at = [&](const void* p) {
    const T* from = static_cast<const T*>(p) + channel;
    return load_lanes<V>(from, lanes);
  };
  if (backward && !c.slope) return {V::zero(), at(c.scale), V::zero(), V::zero()};
  return {at(c.mean), at(c.scale), at(c.shift), backward ? at(c.slope) : V::zero()};
}

// A run's last register overlaps the one before it: every element is a function of its own inputs, so computing some
// twice changes nothing, and the result is not an input.
template <class V, class F>
FASTCONV_INLINE void cover(int64_t length, F f) {
  int64_t i = 0;
  for (; i + V::width <= length; i += V::width) f(i, V::width);
  if (i == length) return;
  if (length >= V::width) {
    f(length - V::width, V::width);
  } else {
    f(i, static_cast<int>(length - i));
  }
}

template <class T>
void plane_forward(const void* x_, int64_t x_stride, void* y_, int64_t y_stride, int64_t planes, int64_t length,
                   const NormCoefficients& coefficients) {
  using V = Reg<T>;
  for (int64_t c = 0; c < planes; ++c) {
    const T* x = static_cast<const T*>(x_) + c * x_stride;
    T* y = static_cast<T*>(y_) + c * y_stride;
    const auto k = splat<T, V>(coefficients, c, false);
    cover<V>(length, [&](int64_t i, int lanes) { store_lanes(k.forward(load_lanes<V>(x + i, lanes)), y + i, lanes); });
  }
}

template <class T>
void plane_backward(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, void* gx_, int64_t stride,
                    int64_t planes, int64_t length, const NormCoefficients& coefficients) {
  using V = Reg<T>;
  for (int64_t c = 0; c < planes; ++c) {
    const T* g = static_cast<const T*>(g_) + c * g_stride;
    const T* x = static_cast<const T*>(x_) + c * x_stride;
    T* gx = static_cast<T*>(gx_) + c * stride;
    const auto k = splat<T, V>(coefficients, c, true);
    if (coefficients.slope) {
      cover<V>(length, [&](int64_t i, int lanes) {
        store_lanes(k.backward(load_lanes<V>(g + i, lanes), load_lanes<V>(x + i, lanes)), gx + i, lanes);
      });
    } else {
      cover<V>(length,
               [&](int64_t i, int lanes) { store_lanes(load_lanes<V>(g + i, lanes) * k.scale, gx + i, lanes); });
    }
  }
}

template <class T>
void row_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t rows, int64_t columns,
                  const double* mean, double* sum, double* dot) {
  using V = Reg<T>;
  const T* g = static_cast<const T*>(g_);
  const T* x = static_cast<const T*>(x_);
  for (int64_t c = 0; c < columns; ++c) sum[c] = dot[c] = 0;
  const int64_t whole = columns / V::width * V::width;
  for_rows(rows, [&](int64_t r, auto together) __attribute__((always_inline)) {
    constexpr int count = decltype(together)::value;
    for (int64_t c = 0; c < whole; c += V::width) {
      const V center = narrow<V>(mean + c);
      V sums = V::zero(), dots = V::zero();
#pragma GCC unroll 8
      for (int k = 0; k < count; ++k) {
        const V gradient = V::load(g + (r + k) * g_stride + c);
        sums = sums + gradient;
        dots = V::fma(gradient, V::load(x + (r + k) * x_stride + c) - center, dots);
      }
      add_wide(sums, sum + c);
      add_wide(dots, dot + c);
    }
    for (int64_t c = whole; c < columns; ++c)
      for (int k = 0; k < count; ++k) {
        const auto gradient = static_cast<double>(g[(r + k) * g_stride + c]);
        sum[c] += gradient;
        dot[c] += gradient * (static_cast<double>(x[(r + k) * x_stride + c]) - mean[c]);
      }
  });
  for (int64_t c = 0; c < whole; ++c)
    dot[c] = with_mean(dot[c], sum[c], mean[c], static_cast<double>(static_cast<T>(mean[c])));
}

template <class T>
void row_forward(const void* x_, int64_t x_stride, void* y_, int64_t y_stride, int64_t rows, int64_t columns,
                 const NormCoefficients& coefficients) {
  using V = Reg<T>;
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = static_cast<const T*>(x_) + r * x_stride;
    T* y = static_cast<T*>(y_) + r * y_stride;
    cover<V>(columns, [&](int64_t c, int lanes) {
      const auto k = load_coefficients<T, V>(coefficients, c, lanes, false);
      store_lanes(k.forward(load_lanes<V>(x + c, lanes)), y + c, lanes);
    });
  }
}

template <class T>
void row_backward(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, void* gx_, int64_t stride,
                  int64_t rows, int64_t columns, const NormCoefficients& coefficients) {
  using V = Reg<T>;
  const bool through_statistics = coefficients.slope != nullptr;
  for (int64_t r = 0; r < rows; ++r) {
    const T* g = static_cast<const T*>(g_) + r * g_stride;
    const T* x = static_cast<const T*>(x_) + r * x_stride;
    T* gx = static_cast<T*>(gx_) + r * stride;
    cover<V>(columns, [&](int64_t c, int lanes) {
      const auto k = load_coefficients<T, V>(coefficients, c, lanes, true);
      const V gradient = load_lanes<V>(g + c, lanes);
      const V value = through_statistics ? k.backward(gradient, load_lanes<V>(x + c, lanes)) : gradient * k.scale;
      store_lanes(value, gx + c, lanes);
    });
  }
}

// The steps of a FinishCoefficients on one register. In place, so no value may be taken twice: `cover` would.
template <class T>
struct FinishSteps {
  using V = Reg<T>;
  bool biased, normed, rectified;
  V bias;
  Coefficients<V> forward;

  FASTCONV_INLINE void run(T* x, int lanes) const {
    V value = load_lanes<V>(x, lanes);
    if (biased) value = value + bias;
    if (normed) value = forward.forward(value);
    if (rectified) value = V::where_positive(value, value);
    store_lanes(value, x, lanes);
  }
};

template <class T>
void plane_finish(void* x_, int64_t stride, int64_t planes, int64_t length, const FinishCoefficients& k) {
  using V = Reg<T>;
  for (int64_t c = 0; c < planes; ++c) {
    T* x = static_cast<T*>(x_) + c * stride;
    FinishSteps<T> steps{k.bias != nullptr, k.forward.scale != nullptr, k.rectify, V::zero(), {}};
    if (steps.biased) steps.bias = V::broadcast(static_cast<const T*>(k.bias)[c]);
    if (steps.normed) steps.forward = splat<T, V>(k.forward, c, false);
    for (int64_t i = 0; i < length; i += V::width)
      steps.run(x + i, length - i < V::width ? static_cast<int>(length - i) : V::width);
  }
}

template <class T>
void row_finish(void* x_, int64_t stride, int64_t rows, int64_t columns, const FinishCoefficients& k) {
  using V = Reg<T>;
  for (int64_t c = 0; c < columns; c += V::width) {
    const int lanes = columns - c < V::width ? static_cast<int>(columns - c) : V::width;
    FinishSteps<T> steps{k.bias != nullptr, k.forward.scale != nullptr, k.rectify, V::zero(), {}};
    if (steps.biased) steps.bias = load_lanes<V>(static_cast<const T*>(k.bias) + c, lanes);
    if (steps.normed) steps.forward = load_coefficients<T, V>(k.forward, c, lanes, false);
    T* x = static_cast<T*>(x_) + c;
    for (int64_t r = 0; r < rows; ++r, x += stride) steps.run(x, lanes);
  }
}

template <class T>
constexpr BatchNormKernel batch_norm_row(const char* name, Isa isa) {
  return {{"batch_norm", name, isa, DtypeOf<T>::value, kUnroll, Reg<T>::width},
          plane_moments<T>,
          plane_products<T>,
          group_products<T>,
          plane_forward<T>,
          plane_backward<T>,
          row_moments<T>,
          row_products<T>,
          row_forward<T>,
          row_backward<T>,
          plane_finish<T>,
          row_finish<T>};
}

}  // namespace
}  // namespace fastconv
