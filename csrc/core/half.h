// The 16-bit floating-point types as memory holds them, and their conversions to and from float32: exact one way,
// rounded to nearest, ties to even, the other. The formulas have no branches, so loops over them become vector code,
// and no intermediate value is a subnormal float32, so they hold in kernels that flush those to zero.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastconv {

struct Float16 {  // IEEE 754 binary16: 5 bits of exponent, 10 of fraction
  std::uint16_t bits;
};
struct BFloat16 {  // the upper half of a float32: 8 bits of exponent, 7 of fraction
  std::uint16_t bits;
};

namespace half_detail {
inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// One of two values, without a branch where a float operation may lie behind one of them.
inline std::uint32_t select(bool condition, std::uint32_t yes, std::uint32_t no) {
  const std::uint32_t mask = 0U - static_cast<std::uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}
}  // namespace half_detail

template <class T>
inline T widen(T value) {
  return value;
}
inline float widen(BFloat16 value) { return half_detail::float_of(static_cast<std::uint32_t>(value.bits) << 16); }
inline float widen(Float16 value) {
  using half_detail::bits_of;
  using half_detail::float_of;
  using half_detail::select;
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(value.bits & 0x7fffU) << 13;
  // Exponents of 15 and -14 differ by 112 from float32's bias; infinity and NaN keep the largest exponent.
  const std::uint32_t normal = magnitude + select(magnitude >= 0x0f800000U, 224U << 23, 112U << 23);
  const std::uint32_t subnormal = bits_of(float_of(magnitude + (113U << 23)) - float_of(113U << 23));
  return float_of(sign | select(magnitude < 0x00800000U, subnormal, normal));
}

// narrow(value, like): the value in the type of `like`, rounded once.
template <class T>
inline T narrow(T value, T) {
  return value;
}
inline BFloat16 narrow(float value, BFloat16) {
  const std::uint32_t bits = half_detail::bits_of(value);
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
  return {static_cast<std::uint16_t>((nan ? bits | 0x00400000U : rounded) >> 16)};
}
inline Float16 narrow(float value, Float16) {
  using half_detail::bits_of;
  using half_detail::float_of;
  using half_detail::select;
  const std::uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000U, magnitude = bits & 0x7fffffffU;
  const std::uint32_t normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - (112U << 23)) >> 13;
  // Below 2^-14 the sum with 0.5 leaves the value, rounded to a multiple of 2^-24, in the fraction's low bits.
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F);
  const std::uint32_t large = select(magnitude > 0x7f800000U, 0x7e00U, 0x7c00U);  // NaN, or infinity from 65520 on
  const std::uint32_t finite = select(magnitude < (113U << 23), subnormal, normal);
  return {static_cast<std::uint16_t>(sign | select(magnitude >= 0x477ff000U, large, finite))};
}

}  // namespace fastconv
