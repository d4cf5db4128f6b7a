// Pools of powers: what they make of a value, of a mean and of a gradient. The windows are those of average pooling.
// A square costs a multiplication a tap and a root an output; a whole power up to kMostFactors as many multiplications;
// any other power is the C library's in double precision, tens of cycles a value.
#pragma once

#include "cpu/pool/backward.h"

namespace fastconv {
namespace {

constexpr int kMostFactors = 8;

// x^p.
class Exponent {
 public:
  explicit Exponent(double p) : value_(p), factors_(-1) {
    for (int i = 0; i <= kMostFactors; ++i)
      if (p == i) factors_ = i;
  }
  template <class T>
  FASTCONV_INLINE Reg<T> of(Reg<T> x) const {
    Reg<T> power;
    if (factors_ >= 0) {
      power = Reg<T>::broadcast(1);
      for (int i = 0; i < factors_; ++i) power = power * x;
    } else {
      for (int i = 0; i < Reg<T>::width; ++i)
        power.v[i] = static_cast<T>(__builtin_pow(static_cast<double>(x.v[i]), value_));
    }
    return power;
  }

 private:
  double value_;
  int factors_;
};

template <class T>
struct RootMeanSquare : Sum<T> {
  static constexpr bool as_read = false;
  Reg<T> scale;
  explicit RootMeanSquare(const PoolTask& t) : Sum<T>(t), scale(Reg<T>::broadcast(static_cast<T>(t.power.scale))) {}
  FASTCONV_INLINE Reg<T> take(Reg<T> x) const { return x * x; }
  FASTCONV_INLINE Reg<T> finish(Reg<T> mean) const { return Reg<T>::sqrt(mean * scale); }
};

template <class T>
struct RootMeanPower : Sum<T> {
  static constexpr bool as_read = false;
  Reg<T> scale;
  Exponent power, root;
  explicit RootMeanPower(const PoolTask& t)
      : Sum<T>(t),
        scale(Reg<T>::broadcast(static_cast<T>(t.power.scale))),
        power(t.power.exponent),
        root(1 / t.power.exponent) {}
  FASTCONV_INLINE Reg<T> take(Reg<T> x) const { return power.of(x); }
  FASTCONV_INLINE Reg<T> finish(Reg<T> mean) const { return root.of(mean * scale); }
};

// gy * y^(1-p) on the way down, scale * x^(p-1) * sum at the input.
template <class T>
struct SquareSlope {
  Reg<T> scale;
  explicit SquareSlope(const PoolPower& power) : scale(Reg<T>::broadcast(static_cast<T>(power.scale))) {}
  FASTCONV_INLINE Reg<T> down(Reg<T> g, Reg<T> y) const {
    return Reg<T>::select(y == Reg<T>::zero(), Reg<T>::zero(), g / y);
  }
  FASTCONV_INLINE Reg<T> at_input(Reg<T> sum, Reg<T> x) const { return sum * scale * x; }
};

template <class T>
struct PowerSlope {
  Reg<T> scale;
  Exponent less_one;
  Reg<T> dead;  // the root of no sum at all
  explicit PowerSlope(const PoolPower& power)
      : scale(Reg<T>::broadcast(static_cast<T>(power.scale))),
        less_one(power.exponent - 1),
        dead(Reg<T>::broadcast(power.exponent > 0 ? T(0) : static_cast<T>(__builtin_inf()))) {}
  FASTCONV_INLINE Reg<T> down(Reg<T> g, Reg<T> y) const {
    const Reg<T> passed = g / less_one.of(y);
    return Reg<T>::select((y == dead) | (y == Reg<T>::zero() - dead), Reg<T>::zero(), passed);
  }
  FASTCONV_INLINE Reg<T> at_input(Reg<T> sum, Reg<T> x) const { return sum * scale * less_one.of(x); }
};

// The source of gradients (backward.h) that multiplies them by slopes on their way.
template <class T, class Slope>
class PowerGradient {
 public:
  static constexpr bool as_read = false;
  explicit PowerGradient(const PoolTask& t) : task_(t), slope_(t.power), y_row_(nullptr), x_(nullptr), y_(nullptr) {}

  FASTCONV_INLINE void take(Arena& arena, Index windows) { y_row_ = arena.take<T>(windows + kPoolSlack); }

  // The input that is summed up next, its column or the first of its row, and the first window of a row of windows.
  FASTCONV_INLINE void start(Index n, Index c, Index d, Index h, Index w, Index window) {
    const Index* xs = task_.forward_x.stride;
    const Index* ys = task_.forward_y.stride;
    x_ = static_cast<const T*>(task_.forward_x.data) + n * xs[0] + c * xs[1] + d * xs[2] + h * xs[3] + w * xs[4];
    y_ = static_cast<const T*>(task_.forward_y.data) + n * ys[0] + c * ys[1] + window * ys[4];
  }

  // The gradients g of a row of windows, times their slopes.
  void windows(const T* g, Index d, Index h, Index count, T* result) {
    const Index* ys = task_.forward_y.stride;
    const T* y = y_ + d * ys[2] + h * ys[3];
    const T *g_end = static_cast<const T*>(task_.x_end), *y_end = static_cast<const T*>(task_.forward_y.end);
    const Index g_step = task_.x_stride[4];
    if (g_step != 1) {
      for (Index j = 0; j < count; ++j) result[j] = g[j * g_step];
      g = result;
      g_end = result + count;
    }
    if (ys[4] != 1) {
      for (Index j = 0; j < count; ++j) y_row_[j] = y[j * ys[4]];
      y = y_row_;
      y_end = y_row_ + count;
    }
    for (Index j = 0; j < count; j += Reg<T>::width)
      slope_.down(load_before(g + j, g_end), load_before(y + j, y_end)).store(result + j);
  }

  FASTCONV_INLINE Reg<T> window(Reg<T> g, Index d, Index h, Index w, Index c, bool whole) const {
    const Index* ys = task_.forward_y.stride;
    const T* const y = y_ + d * ys[2] + h * ys[3] + w * ys[4] + c;
    return slope_.down(g, whole ? Reg<T>::load(y) : load_before(y, static_cast<const T*>(task_.forward_y.end)));
  }

  FASTCONV_INLINE Reg<T> along_row(Reg<T> sum, Index w, Index columns) const {
    const Index step = task_.forward_x.stride[4];
    if (step == 1) return slope_.at_input(sum, load_before(x_ + w, static_cast<const T*>(task_.forward_x.end)));
    Reg<T> x = Reg<T>::zero();
    for (int i = 0; i < smaller(Reg<T>::width, columns - w); ++i) x.v[i] = x_[(w + i) * step];
    return slope_.at_input(sum, x);
  }

  FASTCONV_INLINE Reg<T> along_channels(Reg<T> sum, Index c, bool whole) const {
    const T* const x = x_ + c;
    return slope_.at_input(sum, whole ? Reg<T>::load(x) : load_before(x, static_cast<const T*>(task_.forward_x.end)));
  }

 private:
  const PoolTask& task_;
  Slope slope_;
  T* y_row_;
  const T *x_, *y_;
};

}  // namespace
}  // namespace fastconv
