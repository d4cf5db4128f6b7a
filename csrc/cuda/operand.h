// Arrays of any rank and element type on a device.
#pragma once

#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/error.h"
#include "cuda/queue.h"

namespace fastconv {
namespace cuda {

// The element types of arrays beside the numbers that ops compute with; the first four are Dtype's.
enum class Element : std::uint8_t { f32, f64, f16, bf16, boolean, int64 };

inline bool is_number(Element element) { return element <= Element::bf16; }

// Strides count elements. An absent operand has no data; a single number stands for an array of any shape.
struct Operand {
  void* data = nullptr;
  Element element = Element::f32;
  std::vector<Index> shape, stride;
  double number = 0;
  bool is_single = false;

  Index size() const {
    Index count = 1;
    for (const Index extent : shape) count *= extent;
    return count;
  }
  Dtype dtype() const { return static_cast<Dtype>(element); }
};

inline void require_shape(const Operand& array, const std::vector<Index>& shape, const char* name) {
  if (array.data && array.shape != shape) fail(std::string(name) + ": expected the shape of the first array");
}

}  // namespace cuda
}  // namespace fastconv
