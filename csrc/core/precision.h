// How exact a convolution of float32 arrays must be at least; PyTorch's words.
#pragma once

#include <cstdint>

namespace fastconv {

enum class Precision : std::uint8_t {
  highest,  // an error no larger than that of a float32 loop
  high,     // about 1e-5 relative
  medium,   // operands rounded to bfloat16
};

inline const char* precision_name(Precision precision) {
  return precision == Precision::highest ? "highest" : precision == Precision::high ? "high" : "medium";
}

}  // namespace fastconv
