// The optimizers' update rules.
#include "bindings/array_args.h"
#include "ops/update.h"

namespace fastconv {
namespace {

// A dense array of `like`'s dtype and size.
void* dense(const py::array& array, const char* name, const py::array& like, bool writable) {
  const Strided view = strided(array, name, dtype_of(like, "data"), writable);
  if (!(array.flags() & py::array::c_style)) fail(std::string(name) + ": expected a C-contiguous array");
  if (array.size() != like.size()) fail(std::string(name) + ": expected the size of data");
  return const_cast<void*>(view.data);
}

void* dense_or_null(const py::object& array, const char* name, const py::array& like) {
  return array.is_none() ? nullptr : dense(py::cast<py::array>(array), name, like, true);
}

void sgd(const py::array& data, const py::array& grad, const py::object& velocity, bool first, double rate,
         double momentum, bool nesterov, double weight_decay, double l1) {
  const Dtype dtype = dtype_of(data, "data");
  void* const values = dense(data, "data", data, true);
  const void* const gradient = dense(grad, "grad", data, false);
  void* const memory = dense_or_null(velocity, "velocity", data);
  const py::gil_scoped_release release;
  sgd_update(dtype, data.size(), values, gradient, memory, first, {rate, momentum, weight_decay, l1, nesterov});
}

void adam(const py::array& data, const py::array& grad, const py::array& mean, const py::array& square,
          const py::object& largest, double rate, double beta1, double beta2, double correction, double eps,
          double weight_decay, double shrink) {
  const Dtype dtype = dtype_of(data, "data");
  void* const values = dense(data, "data", data, true);
  const void* const gradient = dense(grad, "grad", data, false);
  void* const first = dense(mean, "mean", data, true);
  void* const second = dense(square, "square", data, true);
  void* const most = dense_or_null(largest, "largest", data);
  const py::gil_scoped_release release;
  adam_update(dtype, data.size(), values, gradient, first, second, most,
              {rate, beta1, beta2, correction, eps, weight_decay, shrink});
}

}  // namespace

void bind_update(py::module_& module) {
  module.def("sgd", &sgd);
  module.def("adam", &adam);
}

}  // namespace fastconv
