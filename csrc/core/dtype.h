// The element types of the public API, and the one place that turns a run-time dtype into a C++ type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/error.h"

namespace fastconv {

enum class Dtype : std::uint8_t { f32, f64 };

inline const char* dtype_name(Dtype dtype) { return dtype == Dtype::f32 ? "float32" : "float64"; }
inline std::size_t dtype_size(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 8; }

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

// Calls f with a value of the C++ type of `dtype`: dispatch_dtype(d, [&](auto zero) { using T = decltype(zero); ... }).
template <class F>
decltype(auto) dispatch_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f32:
      return f(float{});
    case Dtype::f64:
      return f(double{});
  }
  fail("unsupported dtype");
}

}  // namespace fastconv
