#include "bindings/cuda/args.h"

#include <algorithm>

namespace fastconv {
namespace cuda {

Operand operand(const py::handle& described, const char* name) {
  Operand result;
  if (described.is_none()) return result;
  if (py::isinstance<py::float_>(described) || py::isinstance<py::int_>(described)) {
    result.number = py::cast<double>(described);
    result.is_single = true;
    return result;
  }
  const auto parts = py::cast<py::tuple>(described);
  if (parts.size() != 4) fail(std::string(name) + ": expected a described array");
  const int element = py::cast<int>(parts[1]);
  if (element < 0 || element > static_cast<int>(Element::int64)) fail(std::string(name) + ": unknown dtype");
  result.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(parts[0]));
  result.element = static_cast<Element>(element);
  result.shape = py::cast<Sizes>(parts[2]);
  result.stride = py::cast<Sizes>(parts[3]);
  if (result.shape.size() != result.stride.size()) fail(std::string(name) + ": expected a stride for each axis");
  return result;
}

Operand number_operand(const py::handle& described, const char* name) {
  Operand result = operand(described, name);
  if (!is_number(result.element))
    throw py::type_error(std::string(name) + ": expected float32, float64, float16 or bfloat16");
  return result;
}

namespace {

// The array's axis that holds each canonical axis, or -1.
std::array<int, kRank> canonical_axes(std::size_t rank, const char* name, bool channels_last, bool matrix) {
  if (matrix && rank == 2) return {0, 1, -1, -1, -1};
  const int spatial = static_cast<int>(rank) - 2;
  if (spatial < 1 || spatial > kSpatial)
    fail(std::string(name) + ": expected 3 to 5 dimensions, got " + std::to_string(rank));
  std::array<int, kRank> axes{0, channels_last ? spatial + 1 : 1, -1, -1, -1};
  for (int i = 0; i < spatial; ++i) axes[static_cast<std::size_t>(kRank - spatial + i)] = (channels_last ? 1 : 2) + i;
  return axes;
}

template <class V>
void place(const Operand& array, const std::array<int, kRank>& axes, V& view) {
  for (std::size_t i = 0; i < kRank; ++i) {
    if (axes[i] < 0) continue;
    view.shape[i] = array.shape[static_cast<std::size_t>(axes[i])];
    view.stride[i] = array.stride[static_cast<std::size_t>(axes[i])];
  }
}

}  // namespace

ArrayView image(const py::handle& described, const char* name, bool channels_last, bool matrix) {
  const Operand array = number_operand(described, name);
  ArrayView view;
  view.data = array.data;
  view.dtype = array.dtype();
  place(array, canonical_axes(array.shape.size(), name, channels_last, matrix), view);
  return view;
}

ArrayView channel_vector(const py::handle& described, const char* name, Dtype dtype, Index length) {
  if (described.is_none()) return {};
  const Operand array = number_operand(described, name);
  if (array.dtype() != dtype || array.shape != Sizes{length} || (length > 1 && array.stride[0] != 1))
    fail(std::string(name) + ": expected a contiguous vector of " + std::to_string(length));
  ArrayView view;
  view.data = array.data;
  view.dtype = dtype;
  view.shape[1] = length;
  view.stride[1] = 1;
  return view;
}

View<std::int64_t> indices_image(const py::handle& described, const char* name, bool channels_last) {
  const Operand array = operand(described, name);
  if (array.element != Element::int64) throw py::type_error(std::string(name) + ": expected int64");
  View<std::int64_t> view;
  view.data = static_cast<std::int64_t*>(array.data);
  place(array, canonical_axes(array.shape.size(), name, channels_last, true), view);
  return view;
}

void require_contiguous(const Operand& array, const char* name) {
  if (array.size() == 0) return;
  Index dense = 1;
  for (std::size_t i = array.shape.size(); i-- > 0;) {
    if (array.shape[i] > 1 && array.stride[i] != dense) fail(std::string(name) + ": expected a contiguous array");
    dense *= array.shape[i];
  }
}

double* numbers(const py::handle& described, const char* name, Index length) {
  if (described.is_none()) return nullptr;
  const Operand array = operand(described, name);
  require_contiguous(array, name);
  if (array.element != Element::f64 || array.size() != length)
    fail(std::string(name) + ": expected " + std::to_string(length) + " float64 numbers");
  return static_cast<double*>(array.data);
}

void require_dtype(const ArrayView& view, Dtype dtype, const char* name) {
  if (view.data && view.dtype != dtype) throw py::type_error(std::string(name) + ": expected the first array's dtype");
}

Call::Call(const py::handle& where)
    : allocate_(py::cast<py::tuple>(where)[2]), device_(py::cast<int>(py::cast<py::tuple>(where)[0])) {
  queue_.stream = reinterpret_cast<void*>(py::cast<std::uintptr_t>(py::cast<py::tuple>(where)[1]));
  queue_.scratch = [this](std::size_t bytes) {
    return reinterpret_cast<void*>(py::cast<std::uintptr_t>(allocate_(std::max<std::size_t>(bytes, 1))));
  };
}

}  // namespace cuda
}  // namespace fastconv
