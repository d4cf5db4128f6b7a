// The activation that the last step of a convolution may apply.
#pragma once

#include "cuda/conv/conv.h"
#include "cuda/eltwise/functions.h"

namespace fastconv {
namespace cuda {

template <class T>
FASTCONV_DEVICE T fused(const FusedMap& map, T value) {
  const T parameter = static_cast<T>(map.parameter);
  switch (map.map) {
    case Fused::relu:
      return relu(value);
    case Fused::leaky_relu:
      return leaky_relu(value, parameter);
    case Fused::elu:
      return elu(value, parameter);
    case Fused::sigmoid:
      return sigmoid(value);
    case Fused::tanh:
      return std::tanh(value);
    default:
      return value;
  }
}

}  // namespace cuda
}  // namespace fastconv
