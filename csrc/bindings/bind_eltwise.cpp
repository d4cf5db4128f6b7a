// Activations, softmax, dropout and the squared error: arrays of any rank.
#include <pybind11/stl.h>

#include "bindings/array_args.h"
#include "ops/eltwise.h"
#include "ops/loss.h"
#include "ops/softmax.h"

namespace fastconv {
namespace {

Strided flags(const py::array& array, const char* name, bool writable = false) {
  if (!py::isinstance<py::array_t<bool>>(array)) throw py::type_error(std::string(name) + ": expected bool");
  return strided(array, name, py::ssize_t{1}, writable);
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
  const Strided first = strided(a, "a", dtype), result = strided(y, "y", dtype, true);
  same_shape(first, result, "y");
  if (map_has_two_inputs(map) == b.is_none()) fail("b: expected one exactly where the map has two inputs");
  Strided second;
  if (!b.is_none()) {
    second = strided(py::cast<py::array>(b), "b", dtype);
    same_shape(first, second, "b");
  }
  const bool two = !b.is_none();
  const py::gil_scoped_release release;
  run_eltwise(dtype, map, first, two ? &second : nullptr, result, parameter);
}

// The arrays of a cross entropy: logits (N, C, S), target int64 (N, S) or probabilities (N, C, S), all C-contiguous.
struct LossArguments {
  CrossEntropy problem{};
  std::vector<double> weight;

  LossArguments(const py::array& logits, const py::array& target, const py::object& weights, std::int64_t ignore_index,
                double label_smoothing) {
    const Dtype dtype = dtype_of(logits, "logits");
    const Strided x = strided(logits, "logits", dtype);
    if (x.shape.size() != 3 || x.shape[1] < 1) fail("logits: expected (N, C, S)");
    if (!(logits.flags() & py::array::c_style) || !(target.flags() & py::array::c_style))
      fail("logits: not contiguous");
    const bool classes = py::isinstance<py::array_t<std::int64_t>>(target);
    const Strided t = classes ? strided(target, "target", py::ssize_t{8}) : strided(target, "target", dtype);
    if (t.shape != (classes ? std::vector<std::int64_t>{x.shape[0], x.shape[2]} : x.shape)) fail("target: wrong shape");
    weight.assign(static_cast<std::size_t>(x.shape[1]), 1.0);
    if (!weights.is_none()) {
      const auto given = py::cast<py::array_t<double, py::array::c_style>>(weights);
      if (given.ndim() != 1 || given.shape(0) != x.shape[1]) fail("weight: expected one number a class");
      std::copy_n(given.data(), x.shape[1], weight.begin());
    }
    problem = {dtype,
               x.data,
               x.shape[0],
               x.shape[1],
               x.shape[2],
               classes ? static_cast<const std::int64_t*>(t.data) : nullptr,
               classes ? nullptr : t.data,
               weight.data(),
               ignore_index,
               label_smoothing};
  }
};

// The losses (N, S) for "none"; else their sum or mean, rounded once, as an array without axes.
py::array cross_entropy_forward(const py::array& logits, const py::array& target, const py::object& weights,
                                std::int64_t ignore_index, double label_smoothing, const std::string& reduction) {
  const LossArguments arguments(logits, target, weights, ignore_index, label_smoothing);
  const CrossEntropy& p = arguments.problem;
  const bool each = reduction == "none";
  py::array result = each ? new_array(p.dtype, {logits.shape(0), logits.shape(2)}) : new_array(p.dtype, {});
  void* data = result.mutable_data();
  const py::gil_scoped_release release;
  const double divisor = cross_entropy_divisor(p), sum = cross_entropy(p, each ? data : nullptr);
  const double value = reduction == "mean" ? sum / divisor : sum;  // nothing counted: NaN, as in PyTorch
  if (!each)
    dispatch_storage(p.dtype, [&](auto zero) {
      using S = decltype(zero);
      *static_cast<S*>(data) = narrow(static_cast<Compute<S>>(value), S{});
    });
  return result;
}

// The gradient of the logits; grad_output is (N, S), or one number for all, over the mean's divisor if `mean`.
py::array cross_entropy_gradient(const py::array& grad_output, const py::array& logits, const py::array& target,
                                 const py::object& weights, std::int64_t ignore_index, double label_smoothing,
                                 bool mean) {
  const LossArguments arguments(logits, target, weights, ignore_index, label_smoothing);
  const CrossEntropy& p = arguments.problem;
  const Strided g = strided(grad_output, "grad_output", p.dtype);
  const bool each = grad_output.ndim() == 2;
  if (each ? g.shape != std::vector<std::int64_t>{p.samples, p.positions} : grad_output.ndim() != 0)
    fail("grad_output: expected (N, S) or one number");
  if (!(grad_output.flags() & py::array::c_style)) fail("grad_output: not contiguous");
  py::array result = new_array(p.dtype, {logits.shape(0), logits.shape(1), logits.shape(2)});
  void* data = result.mutable_data();
  double factor = 0;
  if (!each)
    dispatch_storage(p.dtype,
                     [&](auto zero) { factor = static_cast<double>(widen(*static_cast<decltype(zero)*>(g.data))); });
  const py::gil_scoped_release release;
  const double divisor = cross_entropy_divisor(p);
  if (mean) factor = divisor == 0 ? 0 : factor / divisor;
  cross_entropy_backward(p, each ? g.data : nullptr, factor, data);
  return result;
}

// The sum of the losses where y is None; else writes each loss, or its derivative, times `factor`.
double binary_cross_entropy_pass(const py::array& x, const py::array& target, const py::object& weight,
                                 const py::object& pos_weight, const py::object& y, bool derivative, double factor) {
  BinaryCrossEntropy p;
  p.dtype = dtype_of(x, "x");
  p.x = strided(x, "x", p.dtype);
  p.target = strided(target, "target", p.dtype);
  same_shape(p.x, p.target, "target");
  const auto optional = [&](const py::object& object, const char* name) {
    if (object.is_none()) return Strided{};
    Strided result = strided(py::cast<py::array>(object), name, p.dtype);
    same_shape(p.x, result, name);
    return result;
  };
  p.weight = optional(weight, "weight");
  p.pos_weight = optional(pos_weight, "pos_weight");
  if (y.is_none()) {
    const py::gil_scoped_release release;
    return binary_cross_entropy_sum(p);
  }
  const Strided result = strided(py::cast<py::array>(y), "y", p.dtype, true);
  same_shape(p.x, result, "y");
  const py::gil_scoped_release release;
  binary_cross_entropy(p, result, derivative, factor);
  return 0;
}

}  // namespace

void bind_eltwise(py::module_& module) {
  module.def("eltwise", &eltwise, py::arg("name"), py::arg("a"), py::arg("b").none(true), py::arg("y"),
             py::arg("parameter") = 0.0);
  module.def(
      "squared_error",
      [](const py::array& a, const py::array& b) {
        const Dtype dtype = dtype_of(a, "a");
        const Strided first = strided(a, "a", dtype), second = strided(b, "b", dtype);
        same_shape(first, second, "b");
        const py::gil_scoped_release release;
        return squared_error(dtype, first, second);
      },
      py::arg("a"), py::arg("b"));
  module.def(
      "softmax",
      [](const py::array& x, const py::array& y, int axis, bool logarithm) {
        const Dtype dtype = dtype_of(x, "x");
        const Strided in = strided(x, "x", dtype), out = strided(y, "y", dtype, true);
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
        const Strided g = strided(grad_output, "grad_output", dtype), value = strided(y, "y", dtype),
                      gx = strided(grad_input, "grad_input", dtype, true);
        same_shape(g, value, "y");
        same_shape(g, gx, "grad_input");
        checked_axis(g, axis);
        const py::gil_scoped_release release;
        softmax_backward(dtype, g, value, gx, axis, logarithm);
      },
      py::arg("grad_output"), py::arg("y"), py::arg("grad_input"), py::arg("axis"), py::arg("logarithm"));
  module.def("binary_cross_entropy", &binary_cross_entropy_pass, py::arg("x"), py::arg("target"),
             py::arg("weight").none(true), py::arg("pos_weight").none(true), py::arg("y").none(true),
             py::arg("derivative"), py::arg("factor"));
  module.def("cross_entropy", &cross_entropy_forward, py::arg("logits"), py::arg("target"),
             py::arg("weight").none(true), py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("reduction"));
  module.def("cross_entropy_backward", &cross_entropy_gradient, py::arg("grad_output"), py::arg("logits"),
             py::arg("target"), py::arg("weight").none(true), py::arg("ignore_index"), py::arg("label_smoothing"),
             py::arg("mean"));
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
        const Strided in = strided(x, "x", dtype), mask = flags(keep, "mask"), out = strided(y, "y", dtype, true);
        same_shape(in, mask, "mask");
        same_shape(in, out, "y");
        const py::gil_scoped_release release;
        apply_dropout(dtype, in, mask, out, scale);
      },
      py::arg("x"), py::arg("mask"), py::arg("y"), py::arg("scale"));
}

}  // namespace fastconv
