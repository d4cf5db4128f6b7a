// The first lanes of a register from and to memory, with masked instructions where the target has them: nothing behind
// the last lane is touched.
#pragma once

#include "cpu/simd/vec.h"

namespace {

#if defined(__AVX2__)
// All bits set in the first `count` lanes.
template <class V>
FASTCONV_INLINE typename V::mask first_lanes(int count) {
  typedef typename IntOf<typename V::element>::type integer;
  typename V::mask index;
  for (int i = 0; i < V::width; ++i) index[i] = static_cast<integer>(i);
  return index < static_cast<integer>(count);
}
#endif

template <class V>
FASTCONV_INLINE V load_lanes(const typename V::element* p, int count, typename V::element fill = 0) {
  if (count == V::width) return V::load(p);
#if defined(__AVX2__)
  if constexpr (sizeof(typename V::raw) == 32) {
    const typename V::mask mask = first_lanes<V>(count);
    V loaded;
    if constexpr (sizeof(typename V::element) == 4) {
      loaded.v = (typename V::raw)_mm256_maskload_ps(p, (__m256i)mask);
    } else {
      loaded.v = (typename V::raw)_mm256_maskload_pd(p, (__m256i)mask);
    }
    return V::select(mask, loaded, V::broadcast(fill));
  }
#endif
#if defined(__AVX512F__)
  if constexpr (sizeof(typename V::raw) == 64) {
    const unsigned mask = (1U << count) - 1;
    if constexpr (sizeof(typename V::element) == 4) {
      return V{(typename V::raw)_mm512_mask_loadu_ps((__m512)V::broadcast(fill).v, static_cast<__mmask16>(mask), p)};
    } else {
      return V{(typename V::raw)_mm512_mask_loadu_pd((__m512d)V::broadcast(fill).v, static_cast<__mmask8>(mask), p)};
    }
  }
#endif
  return V::load_partial(p, count, fill);
}

template <class V>
FASTCONV_INLINE void store_lanes(V v, typename V::element* p, int count) {
  if (count == V::width) {
    v.store(p);
    return;
  }
#if defined(__AVX2__)
  if constexpr (sizeof(typename V::raw) == 32) {
    const typename V::mask mask = first_lanes<V>(count);
    if constexpr (sizeof(typename V::element) == 4) {
      _mm256_maskstore_ps(p, (__m256i)mask, (__m256)v.v);
    } else {
      _mm256_maskstore_pd(p, (__m256i)mask, (__m256d)v.v);
    }
    return;
  }
#endif
#if defined(__AVX512F__)
  if constexpr (sizeof(typename V::raw) == 64) {
    const unsigned mask = (1U << count) - 1;
    if constexpr (sizeof(typename V::element) == 4) {
      _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask), (__m512)v.v);
    } else {
      _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), (__m512d)v.v);
    }
    return;
  }
#endif
  v.store_partial(p, count);
}

}  // namespace
