// Threads, instruction sets, the kernel list, and what the build knows of itself.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/array_args.h"
#include "bindings/result_memory.h"
#include "core/window.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/registry.h"
#include "cpu/workspace.h"
#include "ops/peak.h"

namespace fastconv {

namespace {

// Whether the arguments of a call are NumPy's own arrays of one dtype, float32 or float64 in the machine's byte order,
// whose elements the engine can step through; None where the name is optional. Python's checks of the same take several
// times a small kernel's time, and name what is wrong where this says no.
bool are_plain(const py::dict& named, const py::set& optional) {
  static const py::handle kDtypes[] = {py::dtype::of<float>().release(), py::dtype::of<double>().release()};
  const py::detail::npy_api& numpy = py::detail::npy_api::get();
  const PyObject* dtype = nullptr;
  for (const auto& [name, value] : named) {
    if (value.is_none()) {
      if (!optional.contains(name)) return false;
      continue;
    }
    if (reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())) != reinterpret_cast<PyObject*>(numpy.PyArray_Type_))
      return false;
    const auto* array = py::detail::array_proxy(value.ptr());
    if (dtype == nullptr) dtype = array->descr;
    if (array->descr != dtype || (dtype != kDtypes[0].ptr() && dtype != kDtypes[1].ptr())) return false;
    if (!(array->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
    const py::ssize_t item = dtype == kDtypes[0].ptr() ? sizeof(float) : sizeof(double);
    for (int i = 0; i < array->nd; ++i)
      if (array->strides[i] % item != 0) return false;
  }
  return dtype != nullptr;
}

}  // namespace

void bind_runtime(py::module_& module) {
  module.def("get_num_threads", &get_num_threads);
  module.def("set_num_threads", &set_num_threads, py::arg("count"));
  module.def("get_isa", [] { return isa_name(active_isa()); });
  module.def("set_isa", &set_active_isa, py::arg("name"));
  module.def("available_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
    return names;
  });
  module.def("set_thread_grain", &set_thread_grain, py::arg("nanoseconds"));
  module.def("kernel_table", [] {
    py::list rows;
    for (const KernelInfo& row : kernel_table())
      rows.append(py::dict(py::arg("op") = row.op, py::arg("name") = row.name, py::arg("isa") = isa_name(row.isa),
                           py::arg("dtype") = dtype_name(row.dtype), py::arg("level") = precision_name(row.level),
                           py::arg("tile") = py::make_tuple(row.tile_rows, row.tile_cols)));
    return rows;
  });
  module.def(
      "force_kernel", [](const std::optional<std::string>& name) { force_kernel(name.value_or("")); }, py::arg("name"));
  module.def("kernel_counts", &kernel_counts);
  module.def("reset_kernel_counts", &reset_kernel_counts);
  module.def(
      "multiply_adds",
      [](bool is_double, std::int64_t steps) {
        const py::gil_scoped_release release;
        return multiply_adds(is_double ? Dtype::f64 : Dtype::f32, steps);
      },
      py::arg("is_double"), py::arg("steps"));
  module.attr("ALIGNED_RESULT") = kAlignedResult;
  module.attr("KEPT_RESULT") = kKeptResult;
  module.def("release_memory", [] { return release_memory() + release_scratch(); });
  module.def("empty",
             [](const std::vector<py::ssize_t>& shape, const py::dtype& dtype) { return new_array(dtype, shape); });
  module.def("are_plain", &are_plain);
  module.def("output_size", [](std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t dilation,
                               std::int64_t before, std::int64_t after, bool ceil_mode) {
    if (stride < 1) fail("stride: must be at least 1");
    const Window window{kernel, stride, dilation, before, after};
    return ceil_mode ? output_size_ceil(in, window) : output_size(in, window);
  });
  module.def("transposed_output_size",
             [](std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t dilation, std::int64_t before,
                std::int64_t after, std::int64_t output_padding) {
               return transposed_output_size(in, Window{kernel, stride, dilation, before, after}, output_padding);
             });
  module.def("build_config", [] {
    return py::dict(py::arg("version") = FASTCONV_VERSION, py::arg("compiler") = FASTCONV_COMPILER,
                    py::arg("build_type") = FASTCONV_BUILD_TYPE, py::arg("openmp") = openmp_version()
#if defined(FASTCONV_EMULATE_AVX512)
                                                                     ,
                    py::arg("avx512_emulated") = true
#endif
#if defined(FASTCONV_EMULATE_AMX)
                    ,
                    py::arg("amx_emulated") = true
#endif
    );
  });
}

}  // namespace fastconv
