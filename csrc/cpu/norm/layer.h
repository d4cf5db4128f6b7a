// Layer norm over the register type of the file that includes it: a row's entries share their statistics, each has its
// own weight and bias.
#pragma once

#include "cpu/norm/generic.h"

namespace fastconv {
namespace {

// `rest` is what the mean loses by rounding, times -invstd.
template <class T, bool has_weight, bool has_bias>
void run_layer_forward(const T* x, T* y, int64_t count, T mean, T invstd, T rest, const T* weight, const T* bias) {
  using V = Reg<T>;
  const V center = V::broadcast(mean), scale = V::broadcast(invstd), shift = V::broadcast(rest);
  cover<V>(count, [&](int64_t i, int lanes) {
    V value = V::fma(load_lanes<V>(x + i, lanes) - center, scale, shift);
    if (has_weight && has_bias) {
      value = V::fma(value, load_lanes<V>(weight + i, lanes), load_lanes<V>(bias + i, lanes));
    } else if (has_weight) {
      value = value * load_lanes<V>(weight + i, lanes);
    } else if (has_bias) {
      value = value + load_lanes<V>(bias + i, lanes);
    }
    store_lanes(value, y + i, lanes);
  });
}

template <class T>
void layer_forward(const void* x_, void* y_, int64_t count, double mean, double invstd, const void* weight_,
                   const void* bias_) {
  const T* x = static_cast<const T*>(x_);
  T* y = static_cast<T*>(y_);
  const T* weight = static_cast<const T*>(weight_);
  const T* bias = static_cast<const T*>(bias_);
  const T center = static_cast<T>(mean), scale = static_cast<T>(invstd);
  const double lost = mean - static_cast<double>(center);
  const T rest = lost - lost == 0 ? static_cast<T>(-lost * invstd) : T(0);  // an infinite mean loses nothing
  if (weight && bias) {
    run_layer_forward<T, true, true>(x, y, count, center, scale, rest, weight, bias);
  } else if (weight) {
    run_layer_forward<T, true, false>(x, y, count, center, scale, rest, weight, bias);
  } else if (bias) {
    run_layer_forward<T, false, true>(x, y, count, center, scale, rest, weight, bias);
  } else {
    run_layer_forward<T, false, false>(x, y, count, center, scale, rest, weight, bias);
  }
}

template <class T>
void layer_products(const void* g_, const void* x_, const void* weight_, int64_t count, double mean, double* sum,
                    double* dot) {
  using V = Reg<T>;
  const T* g = static_cast<const T*>(g_);
  const T* x = static_cast<const T*>(x_);
  const T* weight = static_cast<const T*>(weight_);
  Products<T> products(mean);
  if (weight) {
    products.add(x, count, [&](int64_t at, int lanes) __attribute__((always_inline)) {
      return load_lanes<V>(g + at, lanes) * load_lanes<V>(weight + at, lanes);
    });
  } else {
    products.add(x, count,
                 [&](int64_t at, int lanes) __attribute__((always_inline)) { return load_lanes<V>(g + at, lanes); });
  }
  products.store(sum, dot);
}

template <class T>
void layer_backward(const void* g_, const void* x_, const void* weight_, void* gx_, int64_t count, double mean,
                    double scale, double slope, double shift) {
  using V = Reg<T>;
  const T* g = static_cast<const T*>(g_);
  const T* x = static_cast<const T*>(x_);
  const T* weight = static_cast<const T*>(weight_);
  T* gx = static_cast<T*>(gx_);
  const auto splat = [](double value) { return V::broadcast(static_cast<T>(value)); };
  const Coefficients<V> k{splat(mean), splat(scale), splat(shift), splat(slope)};
  if (weight) {
    cover<V>(count, [&](int64_t i, int lanes) {
      const V gradient = load_lanes<V>(g + i, lanes) * load_lanes<V>(weight + i, lanes);
      store_lanes(k.backward(gradient, load_lanes<V>(x + i, lanes)), gx + i, lanes);
    });
  } else {
    cover<V>(count, [&](int64_t i, int lanes) {
      store_lanes(k.backward(load_lanes<V>(g + i, lanes), load_lanes<V>(x + i, lanes)), gx + i, lanes);
    });
  }
}

template <class T>
void layer_accumulate(const void* const* g, const void* const* x, int64_t rows, int64_t columns, const double* mean,
                      const double* invstd, double* dot, double* sum) {
  using V = Reg<T>;
  constexpr int pair = 2;
  const auto at = [](const void* const* run, int64_t r, int64_t c) { return static_cast<const T*>(run[r]) + c; };
  // As run_layer_forward has them.
  T center[kLayerRows], scale[kLayerRows], rest[kLayerRows];
  for (int64_t r = 0; r < rows; ++r) {
    center[r] = static_cast<T>(mean[r]);
    scale[r] = static_cast<T>(invstd[r]);
    const double lost = mean[r] - static_cast<double>(center[r]);
    rest[r] = lost - lost == 0 ? static_cast<T>(-lost * invstd[r]) : T(0);
  }
  int64_t c = 0;
  for (; c + pair * V::width <= columns; c += pair * V::width) {
    V dots[pair], sums[pair];
    for (int k = 0; k < pair; ++k) dots[k] = sums[k] = V::zero();
    for (int64_t r = 0; r < rows; ++r)
#pragma GCC unroll 2
      for (int k = 0; k < pair; ++k) {
        const V gradient = V::load(at(g, r, c + k * V::width));
        const V value = V::load(at(x, r, c + k * V::width));
        const V normal = V::fma(value - V::broadcast(center[r]), V::broadcast(scale[r]), V::broadcast(rest[r]));
        dots[k] = V::fma(gradient, normal, dots[k]);
        sums[k] = sums[k] + gradient;
      }
    for (int k = 0; k < pair; ++k) {
      add_wide(dots[k], dot + c + k * V::width);
      add_wide(sums[k], sum + c + k * V::width);
    }
  }
  for (; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) {
      const auto gradient = static_cast<double>(*at(g, r, c));
      dot[c] += gradient * ((static_cast<double>(*at(x, r, c)) - mean[r]) * invstd[r]);
      sum[c] += gradient;
    }
}

template <class T>
constexpr LayerNormKernel layer_norm_row(const char* name, Isa isa) {
  return {{"layer_norm", name, isa, DtypeOf<T>::value, kUnroll, Reg<T>::width},
          plane_moments<T>,
          layer_forward<T>,
          layer_products<T>,
          layer_backward<T>,
          layer_accumulate<T>};
}

}  // namespace
}  // namespace fastconv
