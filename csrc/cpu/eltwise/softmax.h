// Softmax, its logarithm and their gradients, for distributions that lie dense in memory (row) and for distributions
// side by side (columns). The largest entry is subtracted first, so no exponential overflows.
#pragma once

#include "cpu/eltwise/functions.h"
#include "cpu/simd/lanes.h"

namespace fastconv {
namespace {

// f(vector index, lanes) over a run; the last call may have fewer lanes than a register.
template <class V, class F>
FASTCONV_INLINE void each(int64_t count, F f) {
  int64_t i = 0;
  for (; i + V::width <= count; i += V::width) f(i, V::width);
  if (i < count) f(i, static_cast<int>(count - i));
}

template <class V>
FASTCONV_INLINE V larger(V a, V b) {
  return V::select(b > a, b, a);  // a NaN is found later, by the sum of exponentials
}

template <class T, bool logarithm>
void run_softmax_row(const void* x_, void* y_, int64_t count) {
  using V = Reg<T>;
  const T* x = static_cast<const T*>(x_);
  T* y = static_cast<T*>(y_);
  const T lowest = -static_cast<T>(__builtin_inf());
  V best = V::broadcast(lowest);
  each<V>(count, [&](int64_t i, int lanes) { best = larger(best, load_lanes<V>(x + i, lanes, lowest)); });
  T most = lowest;
  for (int i = 0; i < V::width; ++i) most = best.v[i] > most ? best.v[i] : most;
  const V shift = V::broadcast(most);
  V sums[2] = {V::zero(), V::zero()};
  if (logarithm) {
    each<V>(count, [&](int64_t i, int lanes) { sums[0] = sums[0] + exp(load_lanes<V>(x + i, lanes, lowest) - shift); });
    const V log_sum = log(V::broadcast(sums[0].sum()));
    each<V>(count,
            [&](int64_t i, int lanes) { store_lanes((load_lanes<V>(x + i, lanes) - shift) - log_sum, y + i, lanes); });
    return;
  }
  each<V>(count, [&](int64_t i, int lanes) {
    const V e = exp(load_lanes<V>(x + i, lanes, lowest) - shift);
    store_lanes(e, y + i, lanes);
    sums[0] = sums[0] + e;
  });
  const V sum = V::broadcast(sums[0].sum());
  each<V>(count, [&](int64_t i, int lanes) { store_lanes(load_lanes<V>(y + i, lanes) / sum, y + i, lanes); });
}

template <class T, bool logarithm>
void run_softmax_row_backward(const void* g_, const void* y_, void* gx_, int64_t count) {
  using V = Reg<T>;
  const T* g = static_cast<const T*>(g_);
  const T* y = static_cast<const T*>(y_);
  T* gx = static_cast<T*>(gx_);
  V total = V::zero();
  each<V>(count, [&](int64_t i, int lanes) {
    const V gradient = load_lanes<V>(g + i, lanes);
    total = logarithm ? total + gradient : V::fma(gradient, load_lanes<V>(y + i, lanes), total);
  });
  const V sum = V::broadcast(total.sum());
  each<V>(count, [&](int64_t i, int lanes) {
    const V gradient = load_lanes<V>(g + i, lanes), value = load_lanes<V>(y + i, lanes);
    store_lanes(logarithm ? gradient - exp(value) * sum : value * (gradient - sum), gx + i, lanes);
  });
}

template <class T, bool logarithm>
void run_softmax_columns(const void* x_, int64_t x_stride, void* y_, int64_t y_stride, int64_t count,
                         int64_t positions) {
  using V = Reg<T>;
  const T* x = static_cast<const T*>(x_);
  T* y = static_cast<T*>(y_);
  alignas(64) T most[kSoftmaxPositions];
  alignas(64) T sum[kSoftmaxPositions];
  each<V>(positions, [&](int64_t p, int lanes) { store_lanes(load_lanes<V>(x + p, lanes), most + p, lanes); });
  for (int64_t c = 1; c < count; ++c)
    each<V>(positions, [&](int64_t p, int lanes) {
      store_lanes(larger(load_lanes<V>(most + p, lanes), load_lanes<V>(x + c * x_stride + p, lanes)), most + p, lanes);
    });
  each<V>(positions, [&](int64_t p, int lanes) { store_lanes(V::zero(), sum + p, lanes); });
  for (int64_t c = 0; c < count; ++c)
    each<V>(positions, [&](int64_t p, int lanes) {
      const V e = exp(load_lanes<V>(x + c * x_stride + p, lanes) - load_lanes<V>(most + p, lanes));
      if (!logarithm) store_lanes(e, y + c * y_stride + p, lanes);
      store_lanes(load_lanes<V>(sum + p, lanes) + e, sum + p, lanes);
    });
  if (logarithm)
    each<V>(positions,
            [&](int64_t p, int lanes) { store_lanes(log(load_lanes<V>(sum + p, lanes, 1)), sum + p, lanes); });
  for (int64_t c = 0; c < count; ++c)
    each<V>(positions, [&](int64_t p, int lanes) {
      T* out = y + c * y_stride + p;
      const V total = load_lanes<V>(sum + p, lanes, 1);
      const V value = logarithm ? (load_lanes<V>(x + c * x_stride + p, lanes) - load_lanes<V>(most + p, lanes)) - total
                                : load_lanes<V>(out, lanes) / total;
      store_lanes(value, out, lanes);
    });
}

template <class T, bool logarithm>
void run_softmax_columns_backward(const void* g_, int64_t g_stride, const void* y_, int64_t y_stride, void* gx_,
                                  int64_t stride, int64_t count, int64_t positions) {
  using V = Reg<T>;
  const T* g = static_cast<const T*>(g_);
  const T* y = static_cast<const T*>(y_);
  T* gx = static_cast<T*>(gx_);
  alignas(64) T sum[kSoftmaxPositions];
  each<V>(positions, [&](int64_t p, int lanes) { store_lanes(V::zero(), sum + p, lanes); });
  for (int64_t c = 0; c < count; ++c)
    each<V>(positions, [&](int64_t p, int lanes) {
      const V gradient = load_lanes<V>(g + c * g_stride + p, lanes), total = load_lanes<V>(sum + p, lanes);
      const V value = load_lanes<V>(y + c * y_stride + p, lanes);
      store_lanes(logarithm ? total + gradient : V::fma(gradient, value, total), sum + p, lanes);
    });
  for (int64_t c = 0; c < count; ++c)
    each<V>(positions, [&](int64_t p, int lanes) {
      const V gradient = load_lanes<V>(g + c * g_stride + p, lanes), total = load_lanes<V>(sum + p, lanes);
      const V value = load_lanes<V>(y + c * y_stride + p, lanes);
      store_lanes(logarithm ? gradient - exp(value) * total : value * (gradient - total), gx + c * stride + p, lanes);
    });
}

template <class T>
void softmax_row(const void* x, void* y, int64_t count, bool logarithm) {
  (logarithm ? run_softmax_row<T, true> : run_softmax_row<T, false>)(x, y, count);
}

template <class T>
void softmax_row_backward(const void* g, const void* y, void* gx, int64_t count, bool logarithm) {
  (logarithm ? run_softmax_row_backward<T, true> : run_softmax_row_backward<T, false>)(g, y, gx, count);
}

template <class T>
void softmax_columns(const void* x, int64_t x_stride, void* y, int64_t y_stride, int64_t count, int64_t positions,
                     bool logarithm) {
  (logarithm ? run_softmax_columns<T, true> : run_softmax_columns<T, false>)(x, x_stride, y, y_stride, count,
                                                                             positions);
}

template <class T>
void softmax_columns_backward(const void* g, int64_t g_stride, const void* y, int64_t y_stride, void* gx,
                              int64_t stride, int64_t count, int64_t positions, bool logarithm) {
  (logarithm ? run_softmax_columns_backward<T, true>
             : run_softmax_columns_backward<T, false>)(g, g_stride, y, y_stride, gx, stride, count, positions);
}

template <class T>
constexpr SoftmaxKernel softmax_kernel_row(const char* name, Isa isa) {
  return {{"softmax", name, isa, DtypeOf<T>::value, 1, Reg<T>::width},
          softmax_row<T>,
          softmax_row_backward<T>,
          softmax_columns<T>,
          softmax_columns_backward<T>};
}

}  // namespace
}  // namespace fastconv
