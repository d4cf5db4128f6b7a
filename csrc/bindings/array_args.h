// From Python arrays to the engine's views. Python normalises and names the user's arguments; here the checks that
// memory safety needs are made again, so that no call of the private module can crash the process.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/array_view.h"
#include "ops/loop_nest.h"

namespace fastconv {

namespace py = pybind11;

Dtype dtype_of(const py::array& array, const char* name);

// Any strided array as one run of the canonical order. `axes[i]` is the array's axis that holds canonical axis i
// (N, C, D, H, W), or -1 where the array has none.
ArrayView view_with_axes(const py::array& array, const char* name, const int (&axes)[kRank], bool writable = false);

// An image batch of 1 to 3 spatial dimensions in either data format: (N, C, *spatial) or (N, *spatial, C).
ArrayView image_view(const py::array& array, const char* name, bool channels_last, bool writable = false);

// A weight (K, C, *kernel): shape[0] = K, shape[1] = C.
inline ArrayView weight_view(const py::array& array, const char* name) { return image_view(array, name, false); }

// An aligned array of any rank, its strides in elements of `item` bytes; of `dtype` (TypeError otherwise).
Strided strided(const py::array& array, const char* name, py::ssize_t item, bool writable = false);
Strided strided(const py::array& array, const char* name, Dtype dtype, bool writable = false);

// The numbers (columns,) of all samples, or (rows, columns) of each, as float64.
std::vector<double> numbers(const py::array& array, const char* name, std::int64_t rows, std::int64_t columns);
// One number for each of `channels`; `fallback` for None.
std::vector<double> per_channel(const py::object& object, const char* name, std::int64_t channels, double fallback);

// A fresh C-contiguous array of the given canonical shape in the given data format.
py::array new_image(Dtype dtype, const std::int64_t (&shape)[kRank], int spatial_dims, bool channels_last);

py::dtype numpy_dtype(Dtype dtype);
// A fresh C-contiguous array.
py::array new_array(Dtype dtype, const std::vector<py::ssize_t>& shape);
py::array new_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape);

// Registration functions, one per topic.
void bind_runtime(py::module_& module);
void bind_conv(py::module_& module);
void bind_pool(py::module_& module);
void bind_pool_adaptive(py::module_& module);
void bind_norm(py::module_& module);
void bind_eltwise(py::module_& module);
void bind_update(py::module_& module);

}  // namespace fastconv
