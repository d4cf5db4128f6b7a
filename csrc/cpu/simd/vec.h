// A register of W elements of type T, on the compiler's vector extension: the same kernel source serves every width,
// and a width that the target lacks is lowered to narrower registers (so avx512 kernels can be run on AVX2 machines).
// Included by ISA files only, through vec_<isa>.h; everything is in an anonymous namespace, because each ISA file is
// compiled with other flags and must not share code with its neighbours.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FASTCONV_INLINE inline __attribute__((always_inline))

namespace {

template <class T>
struct IntOf;
template <>
struct IntOf<float> {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};

template <class T, int W>
struct Vec {
  static constexpr int width = W;
  using element = T;
  typedef T raw __attribute__((vector_size(sizeof(T) * W)));
  // Lane masks: all bits set where true.
  typedef typename IntOf<T>::type mask __attribute__((vector_size(sizeof(T) * W)));
  raw v;

  static FASTCONV_INLINE Vec load(const T* p) {
    Vec r;
    memcpy(&r.v, p, sizeof(raw));
    return r;
  }
  FASTCONV_INLINE void store(T* p) const { memcpy(p, &v, sizeof(raw)); }
  static FASTCONV_INLINE Vec broadcast(T x) { return Vec{x - raw{}}; }
  static FASTCONV_INLINE Vec zero() { return Vec{raw{}}; }
  // The first `count` elements; the other lanes are `fill`.
  static FASTCONV_INLINE Vec load_partial(const T* p, int count, T fill = T(0)) {
    T buffer[W];
    for (int i = 0; i < W; ++i) buffer[i] = i < count ? p[i] : fill;
    return load(buffer);
  }
  FASTCONV_INLINE void store_partial(T* p, int count) const {
    for (int i = 0; i < count; ++i) p[i] = v[i];
  }

  friend FASTCONV_INLINE Vec operator+(Vec a, Vec b) { return Vec{a.v + b.v}; }
  friend FASTCONV_INLINE Vec operator-(Vec a, Vec b) { return Vec{a.v - b.v}; }
  friend FASTCONV_INLINE Vec operator*(Vec a, Vec b) { return Vec{a.v * b.v}; }
  friend FASTCONV_INLINE Vec operator/(Vec a, Vec b) { return Vec{a.v / b.v}; }
  friend FASTCONV_INLINE mask operator<(Vec a, Vec b) { return a.v < b.v; }
  friend FASTCONV_INLINE mask operator>(Vec a, Vec b) { return a.v > b.v; }
  friend FASTCONV_INLINE mask operator==(Vec a, Vec b) { return a.v == b.v; }
  friend FASTCONV_INLINE mask operator!=(Vec a, Vec b) { return a.v != b.v; }
  static FASTCONV_INLINE Vec select(mask m, Vec a, Vec b) { return Vec{m ? a.v : b.v}; }

  // a * b + c: one rounding where the instruction set has FMA, two on baseline; the same in every kernel of an ISA,
  // so that tails and full tiles give the same bits.
  static FASTCONV_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(raw) == 64 && sizeof(T) == 4)
      return Vec{(raw)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v)};
    if constexpr (sizeof(raw) == 64 && sizeof(T) == 8)
      return Vec{(raw)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v)};
#endif
#if defined(__FMA__)
    if constexpr (sizeof(raw) == 32 && sizeof(T) == 4)
      return Vec{(raw)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v)};
    if constexpr (sizeof(raw) == 32 && sizeof(T) == 8)
      return Vec{(raw)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v)};
    Vec r;
    for (int i = 0; i < W; ++i)
      r.v[i] = sizeof(T) == 4 ? T(__builtin_fmaf(a.v[i], b.v[i], c.v[i])) : T(__builtin_fma(a.v[i], b.v[i], c.v[i]));
    return r;
#else
    return Vec{a.v * b.v + c.v};
#endif
  }
  static FASTCONV_INLINE Vec magnitude(Vec a) { return Vec{(raw)((mask)a.v & ~(mask)broadcast(T(-0.0)).v)}; }
  static FASTCONV_INLINE Vec sqrt(Vec a) {
    Vec r;
    for (int i = 0; i < W; ++i) r.v[i] = sizeof(T) == 4 ? T(__builtin_sqrtf(a.v[i])) : T(__builtin_sqrt(a.v[i]));
    return r;
  }
  // The larger (smaller) one, NaN if either is NaN, as IEEE 754-2019 maximum.
  static FASTCONV_INLINE Vec max_nan(Vec a, Vec b) { return Vec{((a.v > b.v) | (a.v != a.v)) ? a.v : b.v}; }
  static FASTCONV_INLINE Vec min_nan(Vec a, Vec b) { return Vec{((a.v < b.v) | (a.v != a.v)) ? a.v : b.v}; }
  // `a`, but zero where x is not above it; where x is NaN, `a`.
  static FASTCONV_INLINE Vec where_positive(Vec x, Vec a) { return Vec{x.v <= raw{} ? raw{} : a.v}; }
  // Lane i gets the element of lane i ^ h, for h a power of two.
  template <int h>
  FASTCONV_INLINE Vec exchange() const {
    if constexpr (W == 2) return Vec{__builtin_shufflevector(v, v, 0 ^ h, 1 ^ h)};
    if constexpr (W == 4) return Vec{__builtin_shufflevector(v, v, 0 ^ h, 1 ^ h, 2 ^ h, 3 ^ h)};
    if constexpr (W == 8)
      return Vec{__builtin_shufflevector(v, v, 0 ^ h, 1 ^ h, 2 ^ h, 3 ^ h, 4 ^ h, 5 ^ h, 6 ^ h, 7 ^ h)};
    if constexpr (W == 16)
      return Vec{__builtin_shufflevector(v, v, 0 ^ h, 1 ^ h, 2 ^ h, 3 ^ h, 4 ^ h, 5 ^ h, 6 ^ h, 7 ^ h, 8 ^ h, 9 ^ h,
                                         10 ^ h, 11 ^ h, 12 ^ h, 13 ^ h, 14 ^ h, 15 ^ h)};
  }
  // Lanes added in a fixed pairwise order.
  FASTCONV_INLINE T sum() const {
    Vec all = *this;
    if constexpr (W > 8) all = all + all.template exchange<8 % W>();
    if constexpr (W > 4) all = all + all.template exchange<4 % W>();
    if constexpr (W > 2) all = all + all.template exchange<2 % W>();
    return (all + all.template exchange<1>()).v[0];
  }
};

template <class T>
FASTCONV_INLINE T scalar_fma(T a, T b, T c) {
#if defined(__FMA__)
  return sizeof(T) == 4 ? T(__builtin_fmaf(a, b, c)) : T(__builtin_fma(a, b, c));
#else
  return a * b + c;
#endif
}

}  // namespace
