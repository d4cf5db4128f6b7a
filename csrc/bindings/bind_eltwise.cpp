// Activations, softmax, dropout and the squared error: arrays of any rank.
#include <pybind11/stl.h>

#include "bindings/array_args.h"
#include "ops/eltwise.h"
#include "ops/softmax.h"

namespace fastconv {
namespace {

// Any aligned array as pointer, shape and strides in elements of `item` bytes.
Strided strided(const py::array& array, const char* name, py::ssize_t item, bool writable = false) {
  Strided result;
  result.data = const_cast<void*>(array.data());
  if (writable && !array.writeable()) fail(std::string(name) + ": is read-only");
  if (reinterpret_cast<std::uintptr_t>(result.data) % static_cast<std::size_t>(item) != 0)
    fail(std::string(name) + ": data is not aligned");
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    if (array.strides(i) % item != 0) fail(std::string(name) + ": strides are not a multiple of the item size");
    if (writable && array.shape(i) > 1 && array.strides(i) == 0) fail(std::string(name) + ": is a broadcast view");
    result.shape.push_back(array.shape(i));
    result.stride.push_back(array.strides(i) / item);
  }
  return result;
}

Strided real(const py::array& array, const char* name, Dtype dtype, bool writable = false) {
  if (dtype_of(array, name) != dtype) throw py::type_error(std::string(name) + ": expected the first array's dtype");
  return strided(array, name, static_cast<py::ssize_t>(dtype_size(dtype)), writable);
}

Strided flags(const py::array& array, const char* name, bool writable = false) {
  if (!py::isinstance<py::array_t<bool>>(array)) throw py::type_error(std::string(name) + ": expected bool");
  return strided(array, name, 1, writable);
}

void same_shape(const Strided& a, const Strided& b, const char* name) {
  if (a.shape != b.shape) fail(std::string(name) + ": expected the shape of the first array");
}

int checked_axis(const Strided& x, int axis) {
  if (axis < 0 || axis >= static_cast<int>(x.shape.size())) fail("axis: " + std::to_string(axis) + " is out of range");
  return axis;
}

void eltwise(const std::string& name, const py::array& a, const py::object& b, const py::array& y, double parameter) {
  const Map map = map_by_name(name);
  const Dtype dtype = dtype_of(a, "a");
  const Strided first = real(a, "a", dtype), result = real(y, "y", dtype, true);
  same_shape(first, result, "y");
  if (map_has_two_inputs(map) == b.is_none()) fail("b: expected one exactly where the map has two inputs");
  Strided second;
  if (!b.is_none()) {
    second = real(py::cast<py::array>(b), "b", dtype);
    same_shape(first, second, "b");
  }
  const bool two = !b.is_none();
  const py::gil_scoped_release release;
  run_eltwise(dtype, map, first, two ? &second : nullptr, result, parameter);
}

}  // namespace

void bind_eltwise(py::module_& module) {
  module.def("eltwise", &eltwise, py::arg("name"), py::arg("a"), py::arg("b").none(true), py::arg("y"),
             py::arg("parameter") = 0.0);
  module.def(
      "squared_error",
      [](const py::array& a, const py::array& b) {
        const Dtype dtype = dtype_of(a, "a");
        const Strided first = real(a, "a", dtype), second = real(b, "b", dtype);
        same_shape(first, second, "b");
        const py::gil_scoped_release release;
        return squared_error(dtype, first, second);
      },
      py::arg("a"), py::arg("b"));
  module.def(
      "softmax",
      [](const py::array& x, const py::array& y, int axis, bool logarithm) {
        const Dtype dtype = dtype_of(x, "x");
        const Strided in = real(x, "x", dtype), out = real(y, "y", dtype, true);
        same_shape(in, out, "y");
        checked_axis(in, axis);
        const py::gil_scoped_release release;
        softmax(dtype, in, out, axis, logarithm);
      },
      py::arg("x"), py::arg("y"), py::arg("axis"), py::arg("logarithm"));
  module.def(
      "softmax_backward",
      [](const py::array& grad_output, const py::array& y, const py::array& grad_input, int axis, bool logarithm) {
        const Dtype dtype = dtype_of(grad_output, "grad_output");
        const Strided g = real(grad_output, "grad_output", dtype), value = real(y, "y", dtype),
                      gx = real(grad_input, "grad_input", dtype, true);
        same_shape(g, value, "y");
        same_shape(g, gx, "grad_input");
        checked_axis(g, axis);
        const py::gil_scoped_release release;
        softmax_backward(dtype, g, value, gx, axis, logarithm);
      },
      py::arg("grad_output"), py::arg("y"), py::arg("grad_input"), py::arg("axis"), py::arg("logarithm"));
  module.def(
      "dropout_mask",
      [](const std::vector<py::ssize_t>& shape, double p, std::uint64_t seed) {
        py::array_t<bool> keep(shape);
        auto* data = reinterpret_cast<std::uint8_t*>(keep.mutable_data());
        const std::int64_t count = keep.size();
        const py::gil_scoped_release release;
        draw_dropout_mask(seed, p, count, data);
        return keep;
      },
      py::arg("shape"), py::arg("p"), py::arg("seed"));
  module.def(
      "dropout_apply",
      [](const py::array& x, const py::array& keep, const py::array& y, double scale) {
        const Dtype dtype = dtype_of(x, "x");
        const Strided in = real(x, "x", dtype), mask = flags(keep, "mask"), out = real(y, "y", dtype, true);
        same_shape(in, mask, "mask");
        same_shape(in, out, "y");
        const py::gil_scoped_release release;
        apply_dropout(dtype, in, mask, out, scale);
      },
      py::arg("x"), py::arg("mask"), py::arg("y"), py::arg("scale"));
}

}  // namespace fastconv
