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
  constexpr int width = Wide::width, step = kUnroll * width;
  const T* g = static_cast<const T*>(g_);
  const T* x = static_cast<const T*>(x_);
  const T* weight = static_cast<const T*>(weight_);
  const Wide center = Wide::broadcast(mean);
  Wide sums[kUnroll], dots[kUnroll];
  for (int k = 0; k < kUnroll; ++k) sums[k] = dots[k] = Wide::zero();
  const auto add = [&](int64_t at, int k) {
    Wide gradient = load_wide(g + at);
    if (weight) gradient = gradient * load_wide(weight + at);
    sums[k] = sums[k] + gradient;
    dots[k] = Wide::fma(gradient, load_wide(x + at) - center, dots[k]);
  };
  int64_t i = 0;
  for (; i + step <= count; i += step)
    for (int k = 0; k < kUnroll; ++k) add(i + k * width, k);
  for (; i + width <= count; i += width) add(i, 0);
  double rest_sum = 0, rest_dot = 0;
  for (; i < count; ++i) {
    const double gradient = static_cast<double>(g[i]) * (weight ? static_cast<double>(weight[i]) : 1.0);
    rest_sum += gradient;
    rest_dot += gradient * (static_cast<double>(x[i]) - mean);
  }
  *sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum() + rest_sum;
  *dot = ((dots[0] + dots[1]) + (dots[2] + dots[3])).sum() + rest_dot;
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
  constexpr int width = Wide::width;
  const auto at = [](const void* const* run, int64_t r, int64_t c) { return static_cast<const T*>(run[r]) + c; };
  int64_t c = 0;
  for (; c + width <= columns; c += width) {
    Wide dots = Wide::load(dot + c), sums = Wide::load(sum + c);
    for (int64_t r = 0; r < rows; ++r) {
      const Wide gradient = load_wide(at(g, r, c));
      const Wide normal = (load_wide(at(x, r, c)) - Wide::broadcast(mean[r])) * Wide::broadcast(invstd[r]);
      dots = Wide::fma(gradient, normal, dots);
      sums = sums + gradient;
    }
    dots.store(dot + c);
    sums.store(sum + c);
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
