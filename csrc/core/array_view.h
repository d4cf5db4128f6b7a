// A strided array in the canonical order (N, C, D, H, W). Data formats and lower dimensions differ in strides only:
// channels-last is the same view with another stride of C, and 1-D and 2-D arrays have unit D (and H).
// Strides count elements, may be negative or zero, and offsets are 64-bit throughout.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fastconv {

constexpr int kSpatial = 3;          // D, H, W
constexpr int kRank = 2 + kSpatial;  // N, C, D, H, W

template <class T>
struct View {
  T* data = nullptr;
  std::int64_t shape[kRank] = {1, 1, 1, 1, 1};
  std::int64_t stride[kRank] = {0, 0, 0, 0, 0};

  std::int64_t size() const {
    std::int64_t count = 1;
    for (std::int64_t extent : shape) count *= extent;
    return count;
  }
  std::int64_t extent(int spatial_axis) const { return shape[2 + spatial_axis]; }
  std::int64_t step(int spatial_axis) const { return stride[2 + spatial_axis]; }

  // The strides of an array without gaps, in the canonical order.
  void make_dense() {
    std::int64_t step = 1;
    for (int axis = kRank - 1; axis >= 0; --axis) {
      stride[axis] = step;
      step *= shape[axis];
    }
  }
};

// The same, with the element type known only at run time; `data` of an absent optional array is null.
struct ArrayView : View<void> {
  Dtype dtype = Dtype::f32;

  explicit operator bool() const { return data != nullptr; }

  // The same array from sample `first` on, `count` samples long.
  ArrayView samples(std::int64_t first, std::int64_t count) const {
    ArrayView part = *this;
    part.data = static_cast<char*>(data) + first * stride[0] * static_cast<std::int64_t>(dtype_size(dtype));
    part.shape[0] = count;
    return part;
  }

  template <class T>
  View<T> as() const {
    View<T> view;
    view.data = static_cast<T*>(data);
    for (int i = 0; i < kRank; ++i) {
      view.shape[i] = shape[i];
      view.stride[i] = stride[i];
    }
    return view;
  }
};

}  // namespace fastconv
