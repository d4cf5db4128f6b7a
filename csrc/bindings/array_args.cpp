#include "bindings/array_args.h"

#include <algorithm>

#include "bindings/result_memory.h"

namespace fastconv {

Dtype dtype_of(const py::array& array, const char* name) {
  if (py::isinstance<py::array_t<float>>(array)) return Dtype::f32;
  if (py::isinstance<py::array_t<double>>(array)) return Dtype::f64;
  const py::dtype dtype = array.dtype();
  if (dtype.itemsize() == 2 && py::cast<bool>(dtype.attr("isnative"))) {
    if (dtype.kind() == 'f') return Dtype::f16;
    // ml_dtypes' type: NumPy has none of its own.
    if (py::cast<std::string>(dtype.attr("name")) == dtype_name(Dtype::bf16)) return Dtype::bf16;
  }
  throw py::type_error(std::string(name) + ": expected float32, float64, float16 or bfloat16, got " +
                       py::cast<std::string>(py::str(py::object(dtype))));
}

ArrayView view_with_axes(const py::array& array, const char* name, const int (&axes)[kRank], bool writable) {
  ArrayView view;
  view.dtype = dtype_of(array, name);
  const auto item = static_cast<py::ssize_t>(dtype_size(view.dtype));
  if (writable && !array.writeable()) fail(std::string(name) + ": is read-only");
  view.data = const_cast<void*>(array.data());
  if (reinterpret_cast<std::uintptr_t>(view.data) % item != 0) fail(std::string(name) + ": data is not aligned");
  for (int i = 0; i < kRank; ++i) {
    if (axes[i] < 0) continue;
    if (axes[i] >= array.ndim()) fail(std::string(name) + ": has " + std::to_string(array.ndim()) + " dimensions");
    view.shape[i] = array.shape(axes[i]);
    const py::ssize_t bytes = array.strides(axes[i]);
    if (bytes % item != 0) fail(std::string(name) + ": strides are not a multiple of the item size");
    view.stride[i] = bytes / item;
    if (writable && array.size() > 0 && view.stride[i] == 0 && view.shape[i] > 1)
      fail(std::string(name) + ": is a broadcast view");
  }
  return view;
}

ArrayView image_view(const py::array& array, const char* name, bool channels_last, bool writable) {
  const int rank = static_cast<int>(array.ndim()), spatial = rank - 2;
  if (spatial < 1 || spatial > kSpatial)
    fail(std::string(name) + ": expected 3 to 5 dimensions, got " + std::to_string(rank));
  int axes[kRank] = {0, channels_last ? rank - 1 : 1, -1, -1, -1};
  for (int i = 0; i < spatial; ++i) axes[kRank - spatial + i] = (channels_last ? 1 : 2) + i;
  return view_with_axes(array, name, axes, writable);
}

Strided strided(const py::array& array, const char* name, py::ssize_t item, bool writable) {
  Strided result;
  result.data = const_cast<void*>(array.data());
  if (writable && !array.writeable()) fail(std::string(name) + ": is read-only");
  if (reinterpret_cast<std::uintptr_t>(result.data) % static_cast<std::size_t>(item) != 0)
    fail(std::string(name) + ": data is not aligned");
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    if (array.strides(i) % item != 0) fail(std::string(name) + ": strides are not a multiple of the item size");
    if (writable && array.size() > 0 && array.shape(i) > 1 && array.strides(i) == 0)
      fail(std::string(name) + ": is a broadcast view");
    result.shape.push_back(array.shape(i));
    result.stride.push_back(array.strides(i) / item);
  }
  return result;
}

Strided strided(const py::array& array, const char* name, Dtype dtype, bool writable) {
  if (dtype_of(array, name) != dtype) throw py::type_error(std::string(name) + ": expected the first array's dtype");
  return strided(array, name, static_cast<py::ssize_t>(dtype_size(dtype)), writable);
}

py::dtype numpy_dtype(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return py::dtype::of<float>();
    case Dtype::f64:
      return py::dtype::of<double>();
    case Dtype::f16:
      return py::dtype("e");
    case Dtype::bf16:  // only a caller that has the package has such an array
      return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
  }
  fail("unknown dtype");
}

py::array new_array(const py::dtype& dtype, const std::vector<py::ssize_t>& shape) {
  // pybind11 computes the strides of any shape, without a look at what 64 bits hold.
  py::ssize_t bytes = dtype.itemsize();
  for (const py::ssize_t extent : shape)
    if (extent > 0 && __builtin_mul_overflow(bytes, extent, &bytes)) fail("result: larger than 2**63 bytes");
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  return empty ? py::array(dtype, shape) : result_array(dtype, shape, bytes);
}

py::array new_array(Dtype dtype, const std::vector<py::ssize_t>& shape) { return new_array(numpy_dtype(dtype), shape); }

std::vector<double> numbers(const py::array& array, const char* name, std::int64_t rows, std::int64_t columns) {
  const bool both = array.ndim() == 2;
  const int axes[kRank] = {both ? 0 : -1, both ? 1 : 0, -1, -1, -1};
  if (array.ndim() != 1 && !both) fail(std::string(name) + ": expected one or two dimensions");
  const ArrayView view = view_with_axes(array, name, axes);
  if (view.shape[1] != columns || (both && view.shape[0] != rows)) fail(std::string(name) + ": wrong shape");
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(view.size()));
  dispatch_storage(view.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t n = 0; n < view.shape[0]; ++n)
      for (std::int64_t c = 0; c < columns; ++c)
        values.push_back(
            static_cast<double>(widen(static_cast<const T*>(view.data)[n * view.stride[0] + c * view.stride[1]])));
  });
  return values;
}

std::vector<double> per_channel(const py::object& object, const char* name, std::int64_t channels, double fallback) {
  if (object.is_none()) return std::vector<double>(static_cast<std::size_t>(channels), fallback);
  const auto array = py::cast<py::array>(object);
  if (array.ndim() != 1) fail(std::string(name) + ": expected one number a channel");
  return numbers(array, name, 1, channels);
}

py::array new_image(Dtype dtype, const std::int64_t (&shape)[kRank], int spatial_dims, bool channels_last) {
  std::vector<py::ssize_t> dims{static_cast<py::ssize_t>(shape[0])};
  if (!channels_last) dims.push_back(static_cast<py::ssize_t>(shape[1]));
  for (int i = kRank - spatial_dims; i < kRank; ++i) dims.push_back(static_cast<py::ssize_t>(shape[i]));
  if (channels_last) dims.push_back(static_cast<py::ssize_t>(shape[1]));
  return new_array(dtype, dims);
}

}  // namespace fastconv
