// Sums and squared deviations, of planes and of the columns of rows.
//
// One pass adds up d = x - centre and d^2 for a centre near the mean, a few at a time in the data's own type and those
// in float64. The centre is the mean of the first values; where it is so far from the mean of all that
// sum(d^2) - sum(d)^2 / n would cancel, a second pass has the mean that the first one found as its centre. Values whose
// squares overflow or vanish in the data's type, and those that are not finite, get two passes in float64.
#pragma once

#include "cpu/norm/sums.h"

namespace fastconv {
namespace {

// A mean square below this may have lost parts to underflow.
template <class T>
constexpr double kLeastSquare = sizeof(T) == 4 ? 1e-30 : 1e-290;

// The most sum(d)^2 / n may be, in squared deviations: more cancels digits that float32 does not have.
constexpr double kFarthest = 4;

// Two passes over the same values, in float64 throughout.
template <class T>
void wide_plane_moments(const T* x, int64_t stride, int64_t planes, int64_t length, double* sum, double* squares) {
  const auto pass = [&](auto term) {
    constexpr int width = Wide::width, step = kUnroll * width;
    Wide part[kUnroll];
    for (Wide& p : part) p = Wide::zero();
    double rest = 0;
    for (int64_t n = 0; n < planes; ++n) {
      const T* plane = x + n * stride;
      int64_t i = 0;
      for (; i + step <= length; i += step)
        for (int k = 0; k < kUnroll; ++k) part[k] = part[k] + term(load_wide(plane + i + k * width));
      for (; i + width <= length; i += width) part[0] = part[0] + term(load_wide(plane + i));
      for (; i < length; ++i) rest += term(Wide::broadcast(static_cast<double>(plane[i]))).v[0];
    }
    return ((part[0] + part[1]) + (part[2] + part[3])).sum() + rest;
  };
  *sum = pass([](Wide value) { return value; });
  const Wide center = Wide::broadcast(*sum / static_cast<double>(planes * length));
  *squares = pass([center](Wide value) { return (value - center) * (value - center); });
}

template <class T>
void plane_moments(const void* x_, int64_t stride, int64_t planes, int64_t length, double* sum, double* squares) {
  using V = Reg<T>;
  const T* x = static_cast<const T*>(x_);
  const auto count = static_cast<double>(planes * length);
  T center = length < 4 ? x[0] : ((x[0] + x[1]) + (x[2] + x[3])) * T(0.25);
  for (bool again : {false, true}) {
    TwoSums<V> sums;
    const V middle = V::broadcast(center);
    for (int64_t n = 0; n < planes; ++n) {
      const T* plane = x + n * stride;
      sums.add_run(length, [&](int64_t at, int lanes, V& first, V& second) __attribute__((always_inline)) {
        const V d = load_lanes<V>(plane + at, lanes, center) - middle;
        first = first + d;
        second = V::fma(d, d, second);
      });
    }
    double total, own;
    sums.finish(&total, &own);
    const double distance = total / count, off = total * distance;
    own -= off;
    if (!again && off > kFarthest * own) {
      center = static_cast<T>(static_cast<double>(center) + distance);
    } else if (own >= kLeastSquare<T> * count && own - own == 0) {
      *sum = (static_cast<double>(center) + distance) * count;
      *squares = own;
      return;
    } else {
      break;
    }
  }
  wide_plane_moments(x, stride, planes, length, sum, squares);
}

template <int n>
struct Count {
  static constexpr int value = n;
};

// Calls body(first row, Count<n>) for n rows after the other, as many at a time as possible.
template <class F>
FASTCONV_INLINE void for_rows(int64_t rows, F body) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) body(r, Count<8>{});
  if (r + 4 <= rows) {
    body(r, Count<4>{});
    r += 4;
  }
  for (; r < rows; ++r) body(r, Count<1>{});
}

// Up to a register's columns, by two passes in float64.
template <class T>
void wide_row_moments(const T* x, int64_t stride, int64_t rows, int64_t columns, double* sum, double* squares) {
  const double share = 1 / static_cast<double>(rows);
  for (int64_t c = 0; c < columns; ++c) sum[c] = squares[c] = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) sum[c] += static_cast<double>(x[r * stride + c]);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      const double d = static_cast<double>(x[r * stride + c]) - sum[c] * share;
      squares[c] += d * d;
    }
}

// The sums around `center` of whole registers of columns, row after row as they lie in memory, become sums and squared
// deviations. Returns whether all of them are to be trusted, and marks the registers in `good`.
template <class T>
FASTCONV_INLINE bool center_rows(const T* x, int64_t stride, int64_t rows, int64_t columns, const T* center,
                                 double* sum, double* squares, bool* good) {
  using V = Reg<T>;
  for (int64_t c = 0; c < columns; ++c) sum[c] = squares[c] = 0;
  for_rows(rows, [&](int64_t r, auto together) __attribute__((always_inline)) {
    constexpr int count = decltype(together)::value;
    const T* row = x + r * stride;
    for (int64_t c = 0; c < columns; c += V::width) {
      const V middle = V::load(center + c);
      V first = V::zero(), second = V::zero();
#pragma GCC unroll 8
      for (int k = 0; k < count; ++k) {
        const V d = V::load(row + k * stride + c) - middle;
        first = first + d;
        second = V::fma(d, d, second);
      }
      add_wide(first, sum + c);
      add_wide(second, squares + c);
    }
  });
  const auto n = static_cast<double>(rows);
  const Wide count = Wide::broadcast(n), share = Wide::broadcast(1 / n);
  const Wide least = Wide::broadcast(kLeastSquare<T> * n), most = Wide::broadcast(__DBL_MAX__);
  bool all = true;
  for (int64_t c = 0; c < columns; c += V::width) {
    typename Wide::mask fine = Wide::zero() == Wide::zero();
    for (int64_t i = c; i < c + V::width; i += Wide::width) {
      const Wide total = Wide::load(sum + i), distance = total * share, off = total * distance;
      const Wide own = Wide::load(squares + i) - off;
      fine = fine & (own > least) & (own < most) & (own * Wide::broadcast(kFarthest) > off);
      own.store(squares + i);
      ((load_wide(center + i) + distance) * count).store(sum + i);
    }
    int64_t bits = -1;
    for (int i = 0; i < Wide::width; ++i) bits &= fine[i];
    good[(c / V::width)] = bits != 0;
    all = all && bits != 0;
  }
  return all;
}

template <class T>
void row_moments(const void* x_, int64_t stride, int64_t rows, int64_t columns, double* sum, double* squares) {
  using V = Reg<T>;
  constexpr int64_t segment = 512;
  const int64_t whole = columns / V::width * V::width;
  const T* x = static_cast<const T*>(x_);
  T center[segment];
  bool good[segment];
  for (int64_t begin = 0; begin < whole; begin += segment) {
    const T* from = x + begin;
    const int64_t some = whole - begin < segment ? whole - begin : segment;
    for (int64_t c = 0; c < some; c += V::width) {
      V middle = V::load(from + c);
      if (rows >= 4)
        middle =
            (middle + V::load(from + stride + c) + V::load(from + 2 * stride + c) + V::load(from + 3 * stride + c)) *
            V::broadcast(T(0.25));
      middle.store(center + c);
    }
    if (center_rows(from, stride, rows, some, center, sum + begin, squares + begin, good)) continue;
    for (int64_t c = 0; c < some; c += V::width) {
      if (good[c / V::width]) continue;
      double* own_sum = sum + begin + c;
      double* own_squares = squares + begin + c;
      bool fine;
      for (int i = 0; i < V::width; ++i) center[c + i] = static_cast<T>(own_sum[i] / static_cast<double>(rows));
      if (!center_rows(from + c, stride, rows, V::width, center + c, own_sum, own_squares, &fine))
        wide_row_moments(from + c, stride, rows, V::width, own_sum, own_squares);
    }
  }
  wide_row_moments(x + whole, stride, rows, columns - whole, sum + whole, squares + whole);
}

}  // namespace
}  // namespace fastconv
