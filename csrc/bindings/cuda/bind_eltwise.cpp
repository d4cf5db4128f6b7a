// Elementwise ops on device arrays.
#include "bindings/cuda/args.h"
#include "cuda/eltwise/eltwise.h"

namespace fastconv {
namespace cuda {

void bind_eltwise(py::module_& module) {
  module.def("eltwise", [](const py::handle& where, const std::string& name, const py::handle& a, const py::handle& b,
                           const py::handle& y, double parameter) {
    const Operand first = number_operand(a, "a"), second = number_operand(b, "b"), result = number_operand(y, "y");
    if ((second.data && second.dtype() != first.dtype()) || result.dtype() != first.dtype())
      throw py::type_error("y: expected the first array's dtype");
    const Call call(where);
    eltwise(call.queue(), name, first, second, result, parameter);
  });
  module.def("arithmetic", [](const py::handle& where, const std::string& name, const py::handle& a,
                              const py::handle& b, const py::handle& y) {
    const Call call(where);
    arithmetic(call.queue(), name, operand(a, "a"), operand(b, "b"), number_operand(y, "y"));
  });
  module.def("reduce",
             [](const py::handle& where, const std::string& name, const py::handle& x, int axis, const py::handle& y) {
               const Call call(where);
               reduce(call.queue(), name, operand(x, "x"), axis, number_operand(y, "y"));
             });
  module.def("dropout_mask", [](const py::handle& where, const py::handle& keep, double p, std::uint64_t seed) {
    const Operand mask = operand(keep, "keep");
    if (mask.element != Element::boolean) throw py::type_error("keep: expected bool");
    if (!(p >= 0 && p <= 1)) fail("p: expected a probability between 0 and 1");
    const Call call(where);
    dropout_mask(call.queue(), seed, p, mask);
  });
  module.def("dropout_apply", [](const py::handle& where, const py::handle& x, const py::handle& keep,
                                 const py::handle& y, double scale) {
    const Operand in = number_operand(x, "x"), out = number_operand(y, "y");
    if (out.dtype() != in.dtype()) throw py::type_error("y: expected x's dtype");
    const Call call(where);
    dropout_apply(call.queue(), in, operand(keep, "mask"), out, scale);
  });
}

}  // namespace cuda
}  // namespace fastconv
