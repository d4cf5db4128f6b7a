// The norms of channels over the register type of the file that includes it.
#pragma once

#include "cpu/norm/kernels.h"
#include "cpu/simd/lanes.h"

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

// Additions in the data's own type before a sum is widened: short enough to lose no accuracy that shows, long enough
// that the conversions to float64 do not count.
constexpr int kChain = 16;

// A sum of registers, lane by lane in float64.
template <class V>
struct WideSum {
  static constexpr int parts = V::width / Wide::width;
  Wide part[parts];

  FASTCONV_INLINE WideSum() {
    for (int i = 0; i < parts; ++i) part[i] = Wide::zero();
  }
  FASTCONV_INLINE void add(V value) {
    typename V::element lanes[V::width];
    value.store(lanes);
    for (int i = 0; i < parts; ++i) part[i] = part[i] + load_wide(lanes + i * Wide::width);
  }
  FASTCONV_INLINE double sum() const {
    Wide all = part[0];
    for (int i = 1; i < parts; ++i) all = all + part[i];
    return all.sum();
  }
};

// Sum of gradients, and of gradients times values' distances from the mean: of one run after another.
template <class T>
struct Products {
  using V = Reg<T>;
  WideSum<V> sums, dots;
  double rest_sum = 0, rest_dot = 0;
  double mean;
  T center;

  explicit Products(double mean_) : mean(mean_), center(static_cast<T>(mean_)) {}

  // `gradient(at)` and `scalar_gradient(at)` give a register, and one, of the run's gradients.
  template <class G, class S>
  FASTCONV_INLINE void add(const T* x, int64_t count, G gradient, S scalar_gradient) {
    constexpr int width = V::width, step = kUnroll * width;
    const V middle = V::broadcast(center);
    int64_t i = 0;
    while (i + width <= count) {
      V sum[kUnroll], dot[kUnroll];
#pragma GCC unroll 4
      for (int k = 0; k < kUnroll; ++k) sum[k] = dot[k] = V::zero();
      const auto take = [&](int64_t at, int k) __attribute__((always_inline)) {
        const V g = gradient(at);
        sum[k] = sum[k] + g;
        dot[k] = V::fma(g, V::load(x + at) - middle, dot[k]);
      };
      for (int chain = 0; chain < kChain && i + step <= count; ++chain, i += step)
#pragma GCC unroll 4
        for (int k = 0; k < kUnroll; ++k) take(i + k * width, k);
      if (i + step > count)
        for (; i + width <= count; i += width) take(i, 0);
      sums.add((sum[0] + sum[1]) + (sum[2] + sum[3]));
      dots.add((dot[0] + dot[1]) + (dot[2] + dot[3]));
    }
    for (; i < count; ++i) {
      const double g = scalar_gradient(i);
      rest_sum += g;
      rest_dot += g * (static_cast<double>(x[i]) - static_cast<double>(center));
    }
  }

  FASTCONV_INLINE void store(double* sum, double* dot) const {
    *sum = sums.sum() + rest_sum;
    const double lost = mean - static_cast<double>(center);  // by rounding the mean
    *dot = dots.sum() + rest_dot - (lost - lost == 0 ? lost * *sum : 0.0);
  }
};

template <class T>
void plane_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t planes, int64_t length,
                    double mean, double* sum, double* dot) {
  Products<T> products(mean);
  for (int64_t n = 0; n < planes; ++n) {
    const T* g = static_cast<const T*>(g_) + n * g_stride;
    products.add(
        static_cast<const T*>(x_) + n * x_stride, length, [&](int64_t at) { return Reg<T>::load(g + at); },
        [&](int64_t at) { return static_cast<double>(g[at]); });
  }
  products.store(sum, dot);
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

template <int n>
struct Count {
  static constexpr int value = n;
};

// Rows are read in the order in which they lie, a few at a time; the channels' sums live in the result arrays.
template <class T>
void row_moments(const void* x_, int64_t stride, int64_t rows, int64_t columns, double* sum, double* squares) {
  constexpr int width = Wide::width;
  const T* x = static_cast<const T*>(x_);
  for (int64_t c = 0; c < columns; ++c) sum[c] = squares[c] = 0;
  int64_t r = 0;
  const int64_t whole = columns / width * width;
  const auto add_rows = [&](const T* row, auto rows_at_once) {
    constexpr int count = decltype(rows_at_once)::value;
    for (int64_t c = 0; c < whole; c += width) {
      Wide part = load_wide(row + c);
      for (int k = 1; k < count; ++k) part = part + load_wide(row + k * stride + c);
      (Wide::load(sum + c) + part).store(sum + c);
    }
    for (int64_t c = whole; c < columns; ++c)
      for (int k = 0; k < count; ++k) sum[c] += static_cast<double>(row[k * stride + c]);
  };
  for (; r + kUnroll <= rows; r += kUnroll) add_rows(x + r * stride, Count<kUnroll>{});
  for (; r < rows; ++r) add_rows(x + r * stride, Count<1>{});
  // The second pass reads what the first left in the cache: deviations from the mean do not cancel.
  const double share = 1 / static_cast<double>(rows);
  const auto square_rows = [&](const T* row, auto rows_at_once) {
    constexpr int count = decltype(rows_at_once)::value;
    for (int64_t c = 0; c < whole; c += width) {
      const Wide center = Wide::load(sum + c) * Wide::broadcast(share);
      Wide part = Wide::load(squares + c);
      for (int k = 0; k < count; ++k) {
        const Wide d = load_wide(row + k * stride + c) - center;
        part = Wide::fma(d, d, part);
      }
      part.store(squares + c);
    }
    for (int64_t c = whole; c < columns; ++c)
      for (int k = 0; k < count; ++k) {
        const double d = static_cast<double>(row[k * stride + c]) - sum[c] * share;
        squares[c] += d * d;
      }
  };
  for (r = 0; r + kUnroll <= rows; r += kUnroll) square_rows(x + r * stride, Count<kUnroll>{});
  for (; r < rows; ++r) square_rows(x + r * stride, Count<1>{});
}

template <class T>
void row_products(const void* g_, int64_t g_stride, const void* x_, int64_t x_stride, int64_t rows, int64_t columns,
                  const double* mean, double* sum, double* dot) {
  constexpr int width = Wide::width;
  for (int64_t c = 0; c < columns; ++c) sum[c] = dot[c] = 0;
  const int64_t whole = columns / width * width;
  const auto add_rows = [&](const T* g, const T* x, auto rows_at_once) {
    constexpr int count = decltype(rows_at_once)::value;
    for (int64_t c = 0; c < whole; c += width) {
      const Wide center = Wide::load(mean + c);
      Wide sums = Wide::load(sum + c), dots = Wide::load(dot + c);
      for (int k = 0; k < count; ++k) {
        const Wide gradient = load_wide(g + k * g_stride + c);
        sums = sums + gradient;
        dots = Wide::fma(gradient, load_wide(x + k * x_stride + c) - center, dots);
      }
      sums.store(sum + c);
      dots.store(dot + c);
    }
    for (int64_t c = whole; c < columns; ++c)
      for (int k = 0; k < count; ++k) {
        const auto gradient = static_cast<double>(g[k * g_stride + c]);
        sum[c] += gradient;
        dot[c] += gradient * (static_cast<double>(x[k * x_stride + c]) - mean[c]);
      }
  };
  const T* g = static_cast<const T*>(g_);
  const T* x = static_cast<const T*>(x_);
  int64_t r = 0;
  for (; r + kUnroll <= rows; r += kUnroll) add_rows(g + r * g_stride, x + r * x_stride, Count<kUnroll>{});
  for (; r < rows; ++r) add_rows(g + r * g_stride, x + r * x_stride, Count<1>{});
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
