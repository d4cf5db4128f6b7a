// Counting through a shape by steps, which costs no division: three digits that carry, and above them one without an
// end.
#pragma once

#include "core/array_view.h"
#include "cuda/dev.h"

namespace fastconv {
namespace cuda {

struct Odometer {
  Index high;
  int digit[kSpatial];  // the last one runs fastest

  // The place of item `number`, where digit i counts to extent[i].
  FASTCONV_DEVICE static Odometer at(Index number, const int (&extent)[kSpatial]) {
    Odometer result{};
    if (number >> 31 == 0) {  // divisions of 32 bits are much faster
      unsigned rest = static_cast<unsigned>(number);
      FASTCONV_UNROLL
      for (int i = kSpatial - 1; i >= 0; --i) {
        result.digit[i] = static_cast<int>(rest % static_cast<unsigned>(extent[i]));
        rest /= static_cast<unsigned>(extent[i]);
      }
      result.high = rest;
      return result;
    }
    FASTCONV_UNROLL
    for (int i = kSpatial - 1; i >= 0; --i) {
      result.digit[i] = static_cast<int>(number % extent[i]);
      number /= extent[i];
    }
    result.high = number;
    return result;
  }

  FASTCONV_DEVICE void advance(int by, const int (&extent)[kSpatial]) {
    FASTCONV_UNROLL
    for (int i = kSpatial - 1; i >= 0; --i) {
      const int value = digit[i] + by;
      by = value < extent[i] ? 0 : value / extent[i];
      digit[i] = value - by * extent[i];
    }
    high += by;
  }
};

}  // namespace cuda
}  // namespace fastconv
