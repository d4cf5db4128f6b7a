// Batch norm over the register type of the file that includes it.
#pragma once

#include "cpu/norm/kernels.h"
#include "cpu/simd/vec.h"

namespace fastconv {
namespace {

using Wide = Reg<double>;

// As many values as a float64 register holds, widened.
template <class T>
FASTCONV_INLINE Wide load_wide(const T* p) {
  return Wide{__builtin_convertvector((Vec<T, Wide::width>::load(p).v), typename Wide::raw)};
}

constexpr int kUnroll = 4;

template <class T>
void plane_moments(const void* x_, int64_t stride, int64_t planes, int64_t length, double* sum, double* squares) {
  const T* x = static_cast<const T*>(x_);
  constexpr int width = Wide::width, step = kUnroll * width;
  Wide part[kUnroll];
  for (Wide& p : part) p = Wide::zero();
  double rest = 0;
  for (int64_t n = 0; n < planes; ++n) {
    const T* plane = x + n * stride;
    int64_t i = 0;
    for (; i + step <= length; i += step)
      for (int k = 0; k < kUnroll; ++k) part[k] = part[k] + load_wide(plane + i + k * width);
    for (; i + width <= length; i += width) part[0] = part[0] + load_wide(plane + i);
    for (; i < length; ++i) rest += static_cast<double>(plane[i]);
  }
  const double total = ((part[0] + part[1]) + (part[2] + part[3])).sum() + rest;
  // The second pass reads what the first left in the cache: deviations from the mean do not cancel.
  const double mean = total / static_cast<double>(planes * length);
  const Wide center = Wide::broadcast(mean);
  for (Wide& p : part) p = Wide::zero();
  rest = 0;
  for (int64_t n = 0; n < planes; ++n) {
    const T* plane = x + n * stride;
    int64_t i = 0;
    for (; i + step <= length; i += step)
      for (int k = 0; k < kUnroll; ++k) {
        const Wide d = load_wide(plane + i + k * width) - center;
        part[k] = Wide::fma(d, d, part[k]);
      }
    for (; i + width <= length; i += width) {
      const Wide d = load_wide(plane + i) - center;
      part[0] = Wide::fma(d, d, part[0]);
    }
    for (; i < length; ++i) {
      const double d = static_cast<double>(plane[i]) - mean;
      rest += d * d;
    }
  }
  *sum = total;
  *squares = ((part[0] + part[1]) + (part[2] + part[3])).sum() + rest;
}

template <class T>
void plane_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t planes, int64_t length,
                    double mean, double* sum, double* dot) {
  constexpr int width = Wide::width, step = kUnroll * width;
  const Wide center = Wide::broadcast(mean);
  Wide sums[kUnroll], dots[kUnroll];
  for (int k = 0; k < kUnroll; ++k) sums[k] = dots[k] = Wide::zero();
  double rest_sum = 0, rest_dot = 0;
  for (int64_t n = 0; n < planes; ++n) {
    const T* g = static_cast<const T*>(g_) + n * g_stride;
    const T* x = static_cast<const T*>(x_) + n * x_stride;
    int64_t i = 0;
    const auto add = [&](int64_t at, int k) {
      const Wide gradient = load_wide(g + at);
      sums[k] = sums[k] + gradient;
      dots[k] = Wide::fma(gradient, load_wide(x + at) - center, dots[k]);
    };
    for (; i + step <= length; i += step)
      for (int k = 0; k < kUnroll; ++k) add(i + k * width, k);
    for (; i + width <= length; i += width) add(i, 0);
    for (; i < length; ++i) {
      rest_sum += static_cast<double>(g[i]);
      rest_dot += static_cast<double>(g[i]) * (static_cast<double>(x[i]) - mean);
    }
  }
  *sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum() + rest_sum;
  *dot = ((dots[0] + dots[1]) + (dots[2] + dots[3])).sum() + rest_dot;
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
    return lanes == V::width ? V::load(from) : V::load_partial(from, lanes);
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

template <class V>
FASTCONV_INLINE V load_some(const typename V::element* p, int lanes) {
  return lanes == V::width ? V::load(p) : V::load_partial(p, lanes);
}

template <class V>
FASTCONV_INLINE void store_some(V v, typename V::element* p, int lanes) {
  if (lanes == V::width) {
    v.store(p);
  } else {
    v.store_partial(p, lanes);
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
    cover<V>(length, [&](int64_t i, int lanes) { store_some(k.forward(load_some<V>(x + i, lanes)), y + i, lanes); });
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
        store_some(k.backward(load_some<V>(g + i, lanes), load_some<V>(x + i, lanes)), gx + i, lanes);
      });
    } else {
      cover<V>(length, [&](int64_t i, int lanes) { store_some(load_some<V>(g + i, lanes) * k.scale, gx + i, lanes); });
    }
  }
}

template <class T, int unroll>
FASTCONV_INLINE void moments_of_columns(const T* x, int64_t stride, int64_t rows, double* sum, double* squares) {
  constexpr int width = Wide::width;
  Wide part[unroll], center[unroll];
  for (Wide& p : part) p = Wide::zero();
  for (int64_t r = 0; r < rows; ++r)
    for (int k = 0; k < unroll; ++k) part[k] = part[k] + load_wide(x + r * stride + k * width);
  const Wide count = Wide::broadcast(static_cast<double>(rows));
  for (int k = 0; k < unroll; ++k) {
    part[k].store(sum + k * width);
    center[k] = part[k] / count;
    part[k] = Wide::zero();
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int k = 0; k < unroll; ++k) {
      const Wide d = load_wide(x + r * stride + k * width) - center[k];
      part[k] = Wide::fma(d, d, part[k]);
    }
  for (int k = 0; k < unroll; ++k) part[k].store(squares + k * width);
}

template <class T>
void row_moments(const void* x_, int64_t stride, int64_t rows, int64_t columns, double* sum, double* squares) {
  constexpr int width = Wide::width;
  const T* x = static_cast<const T*>(x_);
  int64_t c = 0;
  for (; c + kUnroll * width <= columns; c += kUnroll * width)
    moments_of_columns<T, kUnroll>(x + c, stride, rows, sum + c, squares + c);
  for (; c + width <= columns; c += width) moments_of_columns<T, 1>(x + c, stride, rows, sum + c, squares + c);
  for (; c < columns; ++c) {
    double total = 0, around = 0;
    for (int64_t r = 0; r < rows; ++r) total += static_cast<double>(x[r * stride + c]);
    const double mean = total / static_cast<double>(rows);
    for (int64_t r = 0; r < rows; ++r) {
      const double d = static_cast<double>(x[r * stride + c]) - mean;
      around += d * d;
    }
    sum[c] = total;
    squares[c] = around;
  }
}

template <class T, int unroll>
FASTCONV_INLINE void products_of_columns(const T* g, int64_t g_stride, const T* x, int64_t x_stride, int64_t rows,
                                         const double* mean, double* sum, double* dot) {
  constexpr int width = Wide::width;
  Wide sums[unroll], dots[unroll], center[unroll];
  for (int k = 0; k < unroll; ++k) {
    sums[k] = dots[k] = Wide::zero();
    center[k] = Wide::load(mean + k * width);
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int k = 0; k < unroll; ++k) {
      const Wide gradient = load_wide(g + r * g_stride + k * width);
      sums[k] = sums[k] + gradient;
      dots[k] = Wide::fma(gradient, load_wide(x + r * x_stride + k * width) - center[k], dots[k]);
    }
  for (int k = 0; k < unroll; ++k) {
    sums[k].store(sum + k * width);
    dots[k].store(dot + k * width);
  }
}

template <class T>
void row_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t rows, int64_t columns,
                  const double* mean, double* sum, double* dot) {
  constexpr int width = Wide::width;
  const T* g = static_cast<const T*>(g_);
  const T* x = static_cast<const T*>(x_);
  int64_t c = 0;
  for (; c + kUnroll * width <= columns; c += kUnroll * width)
    products_of_columns<T, kUnroll>(g + c, g_stride, x + c, x_stride, rows, mean + c, sum + c, dot + c);
  for (; c + width <= columns; c += width)
    products_of_columns<T, 1>(g + c, g_stride, x + c, x_stride, rows, mean + c, sum + c, dot + c);
  for (; c < columns; ++c) {
    sum[c] = dot[c] = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const auto gradient = static_cast<double>(g[r * g_stride + c]);
      sum[c] += gradient;
      dot[c] += gradient * (static_cast<double>(x[r * x_stride + c]) - mean[c]);
    }
  }
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
      store_some(k.forward(load_some<V>(x + c, lanes)), y + c, lanes);
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
      const V gradient = load_some<V>(g + c, lanes);
      const V value = through_statistics ? k.backward(gradient, load_some<V>(x + c, lanes)) : gradient * k.scale;
      store_some(value, gx + c, lanes);
    });
  }
}

template <class T>
constexpr BatchNormKernel batch_norm_row(const char* name, Isa isa) {
  return {{"batch_norm", name, isa, DtypeOf<T>::value, kUnroll, Reg<T>::width},
          plane_moments<T>,
          plane_products<T>,
          plane_forward<T>,
          plane_backward<T>,
          row_moments<T>,
          row_products<T>,
          row_forward<T>,
          row_backward<T>};
}

}  // namespace
}  // namespace fastconv
