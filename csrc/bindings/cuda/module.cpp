// The table of contents of the private module that serves device arrays: _cuda, or the emulated module of the tests.
#include "bindings/cuda/args.h"
#include "cuda/primitives/primitives.h"

#if defined(FASTCONV_EMULATED)
#include <fastconv_emu.h>
#endif

PYBIND11_MODULE(FASTCONV_CUDA_MODULE, module) {
  using namespace fastconv;
  using namespace fastconv::cuda;
  module.def("devices", [] {
    const Devices found = devices();
    return py::make_tuple(found.count, found.reason);
  });
  module.def("device_name", &device_name);
  module.def("architectures", &architectures);
  module.def("runtime_version", &runtime_version);
  bind_conv(module);
  bind_eltwise(module);
  bind_loss(module);
  bind_norm(module);
  bind_pool(module);
  module.def("primitive",
             [](const py::handle& where, const std::string& name, const py::handle& x, const py::handle& y) {
               const Operand from = operand(x, "x"), to = operand(y, "y");
               require_contiguous(from, "x");
               require_contiguous(to, "y");
               const Call call(where);
               primitive(call.queue(), name, from, to);
             });
#if defined(FASTCONV_EMULATED)
  module.def("set_schedule", [](const std::string& order, std::uint64_t seed, bool early_copies) {
    emu::schedule.order = order == "reverse"  ? emu::Order::reverse
                          : order == "random" ? emu::Order::random
                                              : emu::Order::forward;
    emu::schedule.seed = seed;
    emu::schedule.early_copies = early_copies;
  });
#endif
}
