// Dropout's random numbers and their use. Philox 4x32-10 (J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011) turns a counter into four words with no state, so word i of a seed's stream
// is the same on every instruction set, with any number of threads, and in any order of evaluation.
#pragma once

#include "cpu/simd/vec.h"

namespace fastconv {
namespace {

constexpr int kCounters = static_cast<int>(sizeof(Reg<double>::raw) / sizeof(uint64_t));  // counters in a register
typedef uint64_t Words __attribute__((vector_size(sizeof(uint64_t) * kCounters)));        // one 32-bit word a lane

// The full product of each lane's low 32 bits with a 32-bit constant.
FASTCONV_INLINE Words wide_product(Words a, uint32_t factor) {
  const Words b = Words{} + factor;
#if defined(__AVX512F__)
  return (Words)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__x86_64__)
  constexpr int part = sizeof(Words) >= 32 ? 32 : 16;
  Words product;
  for (size_t at = 0; at < sizeof(Words); at += part) {
#if defined(__AVX2__)
    __m256i left, right;
    memcpy(&left, (const char*)&a + at, 32);
    memcpy(&right, (const char*)&b + at, 32);
    left = _mm256_mul_epu32(left, right);
#else
    __m128i left, right;
    memcpy(&left, (const char*)&a + at, 16);
    memcpy(&right, (const char*)&b + at, 16);
    left = _mm_mul_epu32(left, right);
#endif
    memcpy((char*)&product + at, &left, part);
  }
  return product;
#else
  return (a & 0xffffffffu) * b;
#endif
}

// The four words of kCounters consecutive counters, the first of which is `counter`.
FASTCONV_INLINE void philox(uint64_t seed, uint64_t counter, Words (&word)[4]) {
  constexpr uint64_t low = 0xffffffffu;
  Words index;
  for (int i = 0; i < kCounters; ++i) index[i] = counter + static_cast<uint64_t>(i);
  Words c0 = index & low, c1 = index >> 32, c2 = {}, c3 = {};
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Words p0 = wide_product(c0, 0xD2511F53u), p1 = wide_product(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ (Words{} + key0);
    c1 = p1 & low;
    c2 = (p0 >> 32) ^ c3 ^ (Words{} + key1);
    c3 = p0 & low;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  word[0] = c0;
  word[1] = c1;
  word[2] = c2;
  word[3] = c3;
}

// The dtype of the data does not matter here, but a row serves one dtype, so each has its own copy.
template <class T>
void draw_mask(uint64_t seed, int64_t first, int64_t count, uint64_t threshold, uint8_t* keep) {
  constexpr int drawn = 4 * kCounters;
  for (int64_t i = 0; i < count; i += drawn) {
    Words word[4];
    philox(seed, static_cast<uint64_t>(first + i) / 4, word);
    // Both sides are below 2^33: the sign of the difference is the comparison.
    uint32_t four[kCounters];
    Words bytes = {};
    for (int k = 0; k < 4; ++k) bytes |= ((~(word[k] - threshold) >> 63) & 1) << (8 * k);
    for (int lane = 0; lane < kCounters; ++lane) four[lane] = static_cast<uint32_t>(bytes[lane]);
    const int64_t left = count - i < drawn ? count - i : drawn;
    memcpy(keep + i, four, static_cast<size_t>(left));
  }
}

template <class T>
void apply_mask(const void* x_, const uint8_t* keep, void* y_, int64_t count, double scale_) {
  const T* x = static_cast<const T*>(x_);
  T* y = static_cast<T*>(y_);
  const T scale = static_cast<T>(scale_);
  for (int64_t i = 0; i < count; ++i) {
    const T scaled = x[i] * scale;
    y[i] = keep[i] ? scaled : T(0);
  }
}

template <class T>
constexpr DropoutKernel dropout_row(const char* name, Isa isa) {
  return {{"dropout", name, isa, DtypeOf<T>::value, 1, Reg<T>::width}, draw_mask<T>, apply_mask<T>};
}

}  // namespace
}  // namespace fastconv
