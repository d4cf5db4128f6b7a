// The activations, as the CPU's kernels define them: NaN passes, and neither tail of the exponentials overflows.
#pragma once

#include "cuda/dev.h"

namespace fastconv {
namespace cuda {

template <class T>
FASTCONV_DEVICE T relu(T x) {
  return x <= T(0) ? T(0) : x;
}
template <class T>
FASTCONV_DEVICE T leaky_relu(T x, T slope) {
  return x > T(0) ? x : x * slope;
}
template <class T>
FASTCONV_DEVICE T elu(T x, T alpha) {
  return x > T(0) ? x : alpha * std::expm1(x);
}
template <class T>
FASTCONV_DEVICE T sigmoid(T x) {
  const T e = std::exp(-std::fabs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

}  // namespace cuda
}  // namespace fastconv
