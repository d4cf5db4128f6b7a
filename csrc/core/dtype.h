// The element types of the public API, and the one place that turns a run-time dtype into a C++ type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/error.h"
#include "core/half.h"

namespace fastconv {

enum class Dtype : std::uint8_t { f32, f64, f16, bf16 };

inline const char* dtype_name(Dtype dtype) {
  return dtype == Dtype::f32   ? "float32"
         : dtype == Dtype::f64 ? "float64"
         : dtype == Dtype::f16 ? "float16"
                               : "bfloat16";
}
inline std::size_t dtype_size(Dtype dtype) { return dtype == Dtype::f32 ? 4 : dtype == Dtype::f64 ? 8 : 2; }

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::f32;
};
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::f64;
};
template <>
struct DtypeOf<Float16> {
  static constexpr Dtype value = Dtype::f16;
};
template <>
struct DtypeOf<BFloat16> {
  static constexpr Dtype value = Dtype::bf16;
};

// What a stored element is computed in: 16-bit data as float32, others as they are.
template <class S>
using Compute = std::conditional_t<std::is_same_v<S, Float16> || std::is_same_v<S, BFloat16>, float, S>;
template <class S>
constexpr bool is_wide = std::is_same_v<S, Compute<S>>;
inline Dtype compute_dtype(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

template <class S>
inline void widen_run(const S* from, Compute<S>* to, std::int64_t count) {
  if constexpr (is_wide<S>)
    std::memcpy(to, from, sizeof(S) * static_cast<std::size_t>(count));
  else
    for (std::int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}
template <class S>
inline void narrow_run(const Compute<S>* from, S* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = narrow(from[i], S{});
}

// Calls f with a value of the C++ type of `dtype`: dispatch_dtype(d, [&](auto zero) { using T = decltype(zero); ... }).
template <class F>
decltype(auto) dispatch_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32:
      return f(float{});
    case Dtype::f64:
      return f(double{});
    default:
      fail(std::string("dtype ") + dtype_name(dtype) + " is not served here");
  }
}

// The same with the 16-bit types: S = decltype(zero) is what memory holds, Compute<S> what is computed with.
template <class F>
decltype(auto) dispatch_storage(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f16:
      return f(Float16{});
    case Dtype::bf16:
      return f(BFloat16{});
    default:
      return dispatch_dtype(dtype, static_cast<F&&>(f));
  }
}

}  // namespace fastconv
