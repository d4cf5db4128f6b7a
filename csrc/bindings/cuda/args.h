// From the tuples that describe device arrays in Python to the kernels' arguments. Nothing here reads an array: its
// memory is the device's.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "core/array_view.h"
#include "cuda/operand.h"
#include "cuda/runtime.h"

namespace fastconv {
namespace cuda {

namespace py = pybind11;

using Sizes = std::vector<std::int64_t>;
using Pads = std::vector<std::array<std::int64_t, 2>>;

// An array as Python describes it: (address, element type's number, shape, strides in elements); a number; or None.
Operand operand(const py::handle& described, const char* name);
Operand number_operand(const py::handle& described, const char* name);  // of a dtype that ops compute with

// The same in canonical order, of an image batch of 1 to 3 spatial dimensions, and (N, C) as well if `matrix`.
ArrayView image(const py::handle& described, const char* name, bool channels_last, bool matrix = false);
inline ArrayView weight_image(const py::handle& described, const char* name) { return image(described, name, false); }
// A contiguous vector (C,) on the channels' axis; absent for None.
ArrayView channel_vector(const py::handle& described, const char* name, Dtype dtype, Index length);
// int64, in canonical order.
View<std::int64_t> indices_image(const py::handle& described, const char* name, bool channels_last);

void require_contiguous(const Operand& array, const char* name);

// float64 numbers, contiguous; null for None.
double* numbers(const py::handle& described, const char* name, Index length);

void require_dtype(const ArrayView& view, Dtype dtype, const char* name);

// Where a call runs: (device, stream, what gives scratch memory of so many bytes).
class Call {
 public:
  explicit Call(const py::handle& where);
  const Queue& queue() const { return queue_; }

 private:
  py::object allocate_;
  OnDevice device_;
  Queue queue_;
};

void bind_conv(py::module_& module);
void bind_eltwise(py::module_& module);
void bind_loss(py::module_& module);
void bind_norm(py::module_& module);
void bind_pool(py::module_& module);

}  // namespace cuda
}  // namespace fastconv
