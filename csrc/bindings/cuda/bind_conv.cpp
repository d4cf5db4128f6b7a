// The four passes of a convolution on device arrays. Results are allocated by the caller, in its own library.
#include "bindings/cuda/args.h"
#include "cuda/conv/conv.h"

namespace fastconv {
namespace cuda {
namespace {

PadMode pad_mode(const std::string& name) {
  if (name == "zeros") return PadMode::zeros;
  if (name == "reflect") return PadMode::reflect;
  if (name == "replicate") return PadMode::replicate;
  if (name == "circular") return PadMode::circular;
  fail("padding_mode: unknown mode '" + name + "'");
}

FusedMap fused(const std::optional<std::string>& name, double parameter) {
  if (!name) return {};
  if (*name == "relu") return {Fused::relu, parameter};
  if (*name == "leaky_relu") return {Fused::leaky_relu, parameter};
  if (*name == "elu") return {Fused::elu, parameter};
  if (*name == "sigmoid") return {Fused::sigmoid, parameter};
  if (*name == "tanh") return {Fused::tanh, parameter};
  fail("activation: '" + *name + "' is not one");
}

struct Windows {
  Sizes stride;
  Pads padding;
  Sizes dilation;
  Index groups;
  std::string mode;
};

// x (N, C, ...), weight (K, C / groups, ...) and y (N, K, ...), checked against each other.
ConvProblem problem_of(const ArrayView& x, const ArrayView& weight, const ArrayView& y, const Windows& windows) {
  const std::size_t n = windows.stride.size();
  if (n < 1 || n > kSpatial || windows.padding.size() != n || windows.dilation.size() != n)
    fail("stride, padding and dilation: expected 1 to 3 entries each");
  const Index groups = windows.groups;
  if (groups < 1 || x.shape[0] != y.shape[0] || x.shape[1] != weight.shape[1] * groups ||
      y.shape[1] != weight.shape[0] || weight.shape[0] % groups != 0)
    fail("weight: does not fit x, y and groups");
  require_dtype(weight, x.dtype, "weight");
  require_dtype(y, x.dtype, "y");
  ConvProblem problem{};
  problem.batch = x.shape[0];
  problem.groups = groups;
  problem.group_inputs = weight.shape[1];
  problem.group_outputs = weight.shape[0] / groups;
  const PadMode mode = pad_mode(windows.mode);
  const int unused = kSpatial - static_cast<int>(n);
  for (int axis = 0; axis < kSpatial; ++axis) {
    const bool given = axis >= unused;
    const auto i = static_cast<std::size_t>(axis - unused);
    ConvAxis& a = problem.axis[axis];
    a = {x.extent(axis), y.extent(axis), weight.extent(axis), 1, 1, 0, 0, PadMode::zeros};
    if (!given) continue;
    a.stride = windows.stride[i];
    a.dilation = windows.dilation[i];
    a.pad_before = windows.padding[i][0];
    a.pad_after = windows.padding[i][1];
    a.mode = mode;
    if (a.stride < 1 || a.dilation < 1 || a.kernel < 1) fail("stride, dilation, kernel: must be at least 1");
    const Window window{a.kernel, a.stride, a.dilation, a.pad_before, a.pad_after, mode};
    const bool fits = output_size(a.in, window) >= a.out || a.out == 0;
    if (!fits) fail("y: larger than the windows of x");
  }
  return problem;
}

}  // namespace

void bind_conv(py::module_& module) {
  module.def("conv_forward", [](const py::handle& where, const py::handle& x_, const py::handle& weight_,
                                const py::handle& bias, const py::handle& y_, const Sizes& stride, const Pads& padding,
                                const Sizes& dilation, Index groups, const std::string& mode, bool last,
                                const std::optional<std::string>& activation, double parameter) {
    const ArrayView x = image(x_, "x", last), weight = weight_image(weight_, "weight"), y = image(y_, "y", last);
    const ConvProblem problem = problem_of(x, weight, y, {stride, padding, dilation, groups, mode});
    const ArrayView b = channel_vector(bias, "bias", x.dtype, y.shape[1]);
    const Call call(where);
    conv_forward(call.queue(), problem, x, weight, b, y, fused(activation, parameter));
  });
  module.def("conv_backward_input",
             [](const py::handle& where, const py::handle& grad_output, const py::handle& weight_,
                const py::handle& bias, const py::handle& grad_input, const Sizes& stride, const Pads& padding,
                const Sizes& dilation, Index groups, const std::string& mode, bool last) {
               const ArrayView gy = image(grad_output, "grad_output", last), weight = weight_image(weight_, "weight"),
                               gx = image(grad_input, "grad_input", last);
               const ConvProblem problem = problem_of(gx, weight, gy, {stride, padding, dilation, groups, mode});
               const ArrayView b = channel_vector(bias, "bias", gy.dtype, gx.shape[1]);
               const Call call(where);
               conv_backward_input(call.queue(), problem, gy, weight, b, gx);
             });
  module.def("conv_backward_weight", [](const py::handle& where, const py::handle& grad_output, const py::handle& x_,
                                        const py::handle& grad_weight, const Sizes& stride, const Pads& padding,
                                        const Sizes& dilation, Index groups, const std::string& mode, bool last) {
    const ArrayView gy = image(grad_output, "grad_output", last), x = image(x_, "x", last),
                    gw = weight_image(grad_weight, "grad_weight");
    const ConvProblem problem = problem_of(x, gw, gy, {stride, padding, dilation, groups, mode});
    const Call call(where);
    conv_backward_weight(call.queue(), problem, gy, x, gw);
  });
  module.def("conv_backward_bias",
             [](const py::handle& where, const py::handle& grad_output, const py::handle& grad_bias, bool last) {
               const ArrayView gy = image(grad_output, "grad_output", last),
                               gb = channel_vector(grad_bias, "grad_bias", gy.dtype, gy.shape[1]);
               const Call call(where);
               conv_backward_bias(call.queue(), gy, gb);
             });
}

}  // namespace cuda
}  // namespace fastconv
