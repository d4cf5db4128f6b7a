// Sums that are exact enough at any length: a few additions in the data's own type, then float64.
#pragma once

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

// Additions in the data's own type before a sum is widened: short enough to lose no accuracy that shows, long enough
// that the conversions to float64 do not count.
constexpr int kChain = 16;

// As many float64 values as a register holds, rounded.
template <class V>
FASTCONV_INLINE V narrow(const double* p) {
  typedef double wide __attribute__((vector_size(8 * V::width)));
  wide values;
  memcpy(&values, p, sizeof values);
  return V{__builtin_convertvector(values, typename V::raw)};
}

// Adds a register to an array of float64.
template <class V>
FASTCONV_INLINE void add_wide(V value, double* to) {
  typename V::element lanes[V::width];
  value.store(lanes);
  for (int i = 0; i < V::width; i += Wide::width) (Wide::load(to + i) + load_wide(lanes + i)).store(to + i);
}

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

// Two sums over runs of values.
template <class V>
class TwoSums {
 public:
  FASTCONV_INLINE TwoSums() { clear(); }

  // add(at, lanes, first, second) adds the terms of the run's registers from `at` on to two partial sums; of the last
  // one only `lanes` exist.
  template <class F>
  FASTCONV_INLINE void add_run(int64_t count, F add) {
    constexpr int width = V::width, step = kUnroll * width;
    int64_t i = 0;
    for (int64_t steps = count / step; steps > 0;) {
      if (depth_ == kChain) widen();
      const int64_t some = steps < kChain - depth_ ? steps : kChain - depth_;
      for (int64_t j = 0; j < some; ++j, i += step)
#pragma GCC unroll 4
        for (int k = 0; k < kUnroll; ++k) add(i + k * width, width, first_[k], second_[k]);
      depth_ += static_cast<int>(some);
      steps -= some;
    }
    if (i == count) return;
    if (depth_ == kChain) widen();
    ++depth_;
#pragma GCC unroll 3
    for (int k = 0; k + 1 < kUnroll; ++k)
      if (i + width <= count) {
        add(i, width, first_[k], second_[k]);
        i += width;
      }
    if (i < count) add(i, static_cast<int>(count - i), first_[kUnroll - 1], second_[kUnroll - 1]);
  }

  FASTCONV_INLINE void finish(double* first, double* second) {
    widen();
    *first = wide_first_.sum();
    *second = wide_second_.sum();
  }

 private:
  FASTCONV_INLINE void clear() {
#pragma GCC unroll 4
    for (int k = 0; k < kUnroll; ++k) first_[k] = second_[k] = V::zero();
    depth_ = 0;
  }
  FASTCONV_INLINE void widen() {
    wide_first_.add((first_[0] + first_[1]) + (first_[2] + first_[3]));
    wide_second_.add((second_[0] + second_[1]) + (second_[2] + second_[3]));
    clear();
  }

  V first_[kUnroll], second_[kUnroll];
  WideSum<V> wide_first_, wide_second_;
  int depth_;
};

}  // namespace
}  // namespace fastconv
