// Softmax and the losses on device arrays.
#include "bindings/cuda/args.h"
#include "cuda/loss/loss.h"
#include "cuda/softmax/softmax.h"

namespace fastconv {
namespace cuda {
namespace {

void one_dtype(const Operand& first, std::initializer_list<const Operand*> others) {
  for (const Operand* each : others)
    if (each->data && each->element != first.element) throw py::type_error("x: expected arrays of one dtype");
}

void require_dense(const Operand& array, const Sizes& shape, const char* name) {
  if (array.shape != shape) fail(std::string(name) + ": wrong shape");
  require_contiguous(array, name);
}

CrossEntropy cross_entropy_of(const py::handle& logits, const py::handle& target, const py::handle& weight,
                              Index ignore_index, double label_smoothing) {
  CrossEntropy problem{number_operand(logits, "logits"),
                       operand(target, "target"),
                       number_operand(weight, "weight"),
                       0,
                       0,
                       0,
                       ignore_index,
                       label_smoothing};
  const Sizes shape = problem.logits.shape;
  if (shape.size() != 3 || shape[1] < 1) fail("logits: expected (N, C, S)");
  problem.samples = shape[0];
  problem.classes = shape[1];
  problem.positions = shape[2];
  require_dense(problem.logits, shape, "logits");
  require_dense(problem.target, problem.by_class() ? Sizes{shape[0], shape[2]} : shape, "target");
  if (!problem.by_class()) one_dtype(problem.logits, {&problem.target});
  one_dtype(problem.logits, {&problem.weight});
  if (problem.weight.data) require_dense(problem.weight, {shape[1]}, "weight");
  return problem;
}

}  // namespace

void bind_loss(py::module_& module) {
  module.def("softmax",
             [](const py::handle& where, const py::handle& x, const py::handle& y, int axis, bool logarithm) {
               const Operand in = number_operand(x, "x"), out = number_operand(y, "y");
               one_dtype(in, {&out});
               const Call call(where);
               softmax(call.queue(), in, out, axis, logarithm);
             });
  module.def("softmax_backward", [](const py::handle& where, const py::handle& grad_output, const py::handle& y,
                                    const py::handle& grad_input, int axis, bool logarithm) {
    const Operand g = number_operand(grad_output, "grad_output"), value = number_operand(y, "y"),
                  result = number_operand(grad_input, "grad_input");
    one_dtype(g, {&value, &result});
    const Call call(where);
    softmax_backward(call.queue(), g, value, result, axis, logarithm);
  });
  module.def("squared_error",
             [](const py::handle& where, const py::handle& a, const py::handle& b, const py::handle& sum) {
               const Operand first = number_operand(a, "a"), second = number_operand(b, "b");
               one_dtype(first, {&second});
               const Call call(where);
               squared_error(call.queue(), first, second, numbers(sum, "sum", 1));
             });
  module.def("binary_cross_entropy", [](const py::handle& where, const py::handle& x, const py::handle& target,
                                        const py::handle& weight, const py::handle& pos_weight, const py::handle& y,
                                        const py::handle& sum, bool derivative, double factor) {
    const BinaryCrossEntropy problem{number_operand(x, "x"), number_operand(target, "target"),
                                     number_operand(weight, "weight"), number_operand(pos_weight, "pos_weight")};
    const Operand result = number_operand(y, "y");
    one_dtype(problem.x, {&problem.target, &problem.weight, &problem.pos_weight, &result});
    const Call call(where);
    if (sum.is_none())
      binary_cross_entropy(call.queue(), problem, result, derivative, factor);
    else
      binary_cross_entropy_sum(call.queue(), problem, numbers(sum, "sum", 1));
  });
  module.def("cross_entropy",
             [](const py::handle& where, const py::handle& logits, const py::handle& target, const py::handle& weight,
                Index ignore_index, double label_smoothing, const std::string& reduction, const py::handle& result) {
               const CrossEntropy problem = cross_entropy_of(logits, target, weight, ignore_index, label_smoothing);
               const Operand to = number_operand(result, "result");
               one_dtype(problem.logits, {&to});
               const bool none = reduction == "none";
               require_dense(to, none ? Sizes{problem.samples, problem.positions} : Sizes{}, "result");
               const Call call(where);
               cross_entropy(call.queue(), problem,
                             none                  ? Reduction::none
                             : reduction == "mean" ? Reduction::mean
                                                   : Reduction::sum,
                             to);
             });
  module.def("cross_entropy_backward",
             [](const py::handle& where, const py::handle& grad_output, const py::handle& logits,
                const py::handle& target, const py::handle& weight, Index ignore_index, double label_smoothing,
                bool mean, const py::handle& grad_input) {
               const CrossEntropy problem = cross_entropy_of(logits, target, weight, ignore_index, label_smoothing);
               const Operand g = operand(grad_output, "grad_output"), result = number_operand(grad_input, "grad_input");
               one_dtype(problem.logits, {&result, &g});
               if (g.data && !g.shape.empty()) require_dense(g, {problem.samples, problem.positions}, "grad_output");
               require_dense(result, problem.logits.shape, "grad_input");
               const Call call(where);
               cross_entropy_backward(call.queue(), problem, g, mean, result);
             });
}

}  // namespace cuda
}  // namespace fastconv
