// Threads, instruction sets, the kernel list, and what the build knows of itself.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/array_args.h"
#include "core/window.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/registry.h"

namespace fastconv {

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
                           py::arg("dtype") = dtype_name(row.dtype),
                           py::arg("tile") = py::make_tuple(row.tile_rows, row.tile_cols)));
    return rows;
  });
  module.def(
      "force_kernel", [](const std::optional<std::string>& name) { force_kernel(name.value_or("")); }, py::arg("name"));
  module.def("kernel_counts", &kernel_counts);
  module.def("reset_kernel_counts", &reset_kernel_counts);
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
    );
  });
}

}  // namespace fastconv
