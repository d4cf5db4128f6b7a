// exp, expm1 and log on registers. Argument reduction by Cody and Waite, then a short Taylor or atanh series: within
// about one unit in the last place at both precisions, monotone where it matters, NaN and infinity as IEEE has them.
#pragma once

#include "cpu/simd/vec.h"

namespace fastconv {
namespace {

template <class T>
struct Exponent;
template <>
struct Exponent<float> {
  using bits = uint32_t;
  static constexpr int mantissa = 23, bias = 127, terms = 7;
  static constexpr float magic = 0x1.8p23f;                  // x + magic has round(x) in its low mantissa bits
  static constexpr float lowest = -105.0f, highest = 89.0f;  // exp is 0 below and infinite above
  // The high part of ln 2 has so few bits that its product with an exponent is exact.
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440054690583e-4f;
  static constexpr float saturated = 20.0f;  // expm1(-x) is -1 and tanh(x) is 1
};
template <>
struct Exponent<double> {
  using bits = uint64_t;
  static constexpr int mantissa = 52, bias = 1023, terms = 13;
  static constexpr double magic = 0x1.8p52;
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double saturated = 40.0;
};

template <class V>
struct Reduced {
  typedef typename Exponent<typename V::element>::bits integer __attribute__((vector_size(sizeof(typename V::raw))));
  V expm1;        // exp(r) - 1 of the rest r, |r| <= ln(2) / 2
  integer power;  // x = power * ln 2 + r, in two's complement
};

// 2^power for a normal result.
template <class V>
FASTCONV_INLINE V two_to(typename Reduced<V>::integer power) {
  using E = Exponent<typename V::element>;
  return V{(typename V::raw)((power + E::bias) << E::mantissa)};
}

template <class V>
FASTCONV_INLINE Reduced<V> reduce_exp(V x) {
  using T = typename V::element;
  using E = Exponent<T>;
  // 1/k! for k = 2 ... 13.
  constexpr double inverse_factorial[] = {1.0 / 2,         1.0 / 6,          1.0 / 24,          1.0 / 120,
                                          1.0 / 720,       1.0 / 5040,       1.0 / 40320,       1.0 / 362880,
                                          1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0};
  const V magic = V::broadcast(E::magic);
  const V shifted = V::fma(x, V::broadcast(T(1.44269504088896340736)), magic);
  const V n = shifted - magic;
  V r = V::fma(n, V::broadcast(-E::ln2_high), x);
  r = V::fma(n, V::broadcast(-E::ln2_low), r);
  V p = V::broadcast(T(inverse_factorial[E::terms - 2]));
#pragma GCC unroll 16
  for (int k = E::terms - 3; k >= 0; --k) p = V::fma(p, r, V::broadcast(T(inverse_factorial[k])));
  using I = typename Reduced<V>::integer;
  return {V::fma(r * r, p, r), (I)shifted.v - (I)magic.v};
}

template <class V>
FASTCONV_INLINE V clamp(V x, typename V::element low, typename V::element high) {
  const V bottom = V::broadcast(low), top = V::broadcast(high);
  x = V::select(x < bottom, bottom, x);  // a NaN compares false and stays
  return V::select(x > top, top, x);
}

template <class V>
FASTCONV_INLINE V exp(V x) {
  using E = Exponent<typename V::element>;
  const auto reduced = reduce_exp(clamp(x, E::lowest, E::highest));
  // The power in two factors: their product reaches subnormal numbers and infinity.
  constexpr int offset = 4 * (E::bias + 1);
  const auto half = ((reduced.power + offset) >> 1) - offset / 2;
  return (reduced.expm1 + V::broadcast(1)) * two_to<V>(half) * two_to<V>(reduced.power - half);
}

// exp(x) - 1 for x <= the `saturated` bound times two, without cancellation near 0.
template <class V>
FASTCONV_INLINE V expm1(V x) {
  using T = typename V::element;
  using E = Exponent<T>;
  const auto reduced = reduce_exp(clamp(x, T(-2) * E::saturated, T(2) * E::saturated));
  const V power = two_to<V>(reduced.power);
  // A power of 2 times the fraction is exact, so that one rounding remains.
  return V::select(x == V::zero(), x, reduced.expm1 * power + (power - V::broadcast(1)));
}

template <class V>
FASTCONV_INLINE V copy_sign(V value, V sign) {
  using I = typename Reduced<V>::integer;
  const I bit = (I)V::broadcast(typename V::element(-0.0)).v;
  return V{(typename V::raw)(((I)value.v & ~bit) | ((I)sign.v & bit))};
}

template <class V>
FASTCONV_INLINE V tanh(V x) {
  using E = Exponent<typename V::element>;
  const V a = clamp(V::magnitude(x), 0, E::saturated);
  const V e = expm1(a + a);
  const V y = e / (e + V::broadcast(2));
  return copy_sign(y, x);
}

template <class V>
FASTCONV_INLINE V sigmoid(V x) {
  const V one = V::broadcast(1);
  const V e = exp(V::zero() - V::magnitude(x));  // at most 1: neither tail overflows
  return V::select(x < V::zero(), e, one) / (one + e);
}

// log(x) of a normal x >= 1, as a sum of exponentials is; a NaN stays.
template <class V>
FASTCONV_INLINE V log(V x) {
  using T = typename V::element;
  using E = Exponent<T>;
  using I = typename Reduced<V>::integer;
  const V one = V::broadcast(1);
  const I fraction_bits = (I)x.v & ((typename E::bits(1) << E::mantissa) - 1);
  V m{(typename V::raw)(fraction_bits | (I)one.v)};  // x = 2^n * m
  const V magic = V::broadcast(E::magic);
  V n = V{(typename V::raw)(((I)x.v >> E::mantissa) - E::bias + (I)magic.v)} - magic;
  const auto above = m > V::broadcast(T(1.41421356237309504880));
  m = V::select(above, m * V::broadcast(T(0.5)), m);
  n = V::select(above, n + one, n);
  // log(1 + f) = f - (f^2/2 - s (f^2/2 + R)) with s = f / (2 + f), R from atanh's series (fdlibm's e_log.c).
  const V f = m - one, s = f / (f + V::broadcast(2)), z = s * s, h = V::broadcast(T(0.5)) * f * f;
  constexpr int terms = sizeof(T) == 4 ? 5 : 11;
  V series = V::broadcast(T(2.0 / (2 * terms + 1)));
#pragma GCC unroll 16
  for (int k = terms - 1; k >= 1; --k) series = V::fma(series, z, V::broadcast(T(2.0 / (2 * k + 1))));
  const V rest = V::fma(s, h + series * z, n * V::broadcast(E::ln2_low));
  const V y = V::fma(n, V::broadcast(E::ln2_high), f - (h - rest));
  return V::select(x != x, x, y);
}

// log(1 + x) for 0 <= x <= 1: what 1 + x loses by rounding is put back by the factor (W. Kahan; D. Goldberg, "What
// every computer scientist should know about floating-point arithmetic", 1991, theorem 4).
template <class V>
FASTCONV_INLINE V log1p_of_small(V x) {
  const V one = V::broadcast(1), sum = one + x, kept = sum - one;
  return V::select(kept == V::zero(), x, log(sum) * (x / V::select(kept == V::zero(), one, kept)));
}

}  // namespace
}  // namespace fastconv
