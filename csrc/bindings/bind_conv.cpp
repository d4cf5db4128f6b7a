// Convolution: forward, input gradient, weight gradient, bias gradient. The transposed convolution is built from the
// same four in Python, with the roles of input and output swapped.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "bindings/array_args.h"
#include "ops/conv.h"
#include "ops/eltwise.h"

namespace fastconv {
namespace {

using namespace py::literals;

using Sizes = std::vector<std::int64_t>;
using Pads = std::vector<std::array<std::int64_t, 2>>;

PadMode pad_mode(const std::string& name) {
  if (name == "zeros") return PadMode::zeros;
  if (name == "reflect") return PadMode::reflect;
  if (name == "replicate") return PadMode::replicate;
  if (name == "circular") return PadMode::circular;
  fail("padding_mode: unknown mode '" + name + "'");
}

// A level of precision; none where the positions of the image are the samples of a linear layer.
using Level = std::optional<std::string>;

Precision precision_of(const Level& name) {
  for (Precision precision : {Precision::highest, Precision::high, Precision::medium})
    if (!name || *name == precision_name(precision)) return precision;
  fail("precision: unknown level '" + *name + "'");
}

// Windows of up to three dimensions, padded in front with unit ones.
ConvShape conv_shape(const ArrayView& weight, const Sizes& stride, const Pads& padding, const Sizes& dilation,
                     std::int64_t groups, const std::string& padding_mode, const Level& precision) {
  const std::size_t n = stride.size();
  if (n < 1 || n > kSpatial || padding.size() != n || dilation.size() != n)
    fail("stride, padding and dilation: expected 1 to 3 entries each");
  ConvShape shape;
  shape.groups = groups;
  shape.precision = precision_of(precision);
  shape.rows_are_samples = !precision;
  const PadMode mode = pad_mode(padding_mode);
  for (std::size_t i = 0; i < n; ++i) {
    const int axis = static_cast<int>(kSpatial - n + i);
    shape.window[axis] = {weight.extent(axis), stride[i], dilation[i], padding[i][0], padding[i][1], mode};
  }
  return shape;
}

ArrayView optional_vector(const std::optional<py::array>& array, const char* name, Dtype dtype, std::int64_t length) {
  if (!array) return {};
  ArrayView view = view_with_axes(*array, name, {-1, 0, -1, -1, -1});
  if (array->ndim() != 1 || view.dtype != dtype || view.shape[1] != length || (view.stride[1] != 1 && length > 1))
    fail(std::string(name) + ": expected a contiguous vector of " + std::to_string(length));
  return view;
}

// The caller's `out`, or a fresh array.
py::array result_array(const std::optional<py::array>& out, Dtype dtype, const std::int64_t (&shape)[kRank],
                       int spatial, bool channels_last, ArrayView* view) {
  py::array result = out ? *out : new_image(dtype, shape, spatial, channels_last);
  *view = image_view(result, "out", channels_last, true);
  if (view->dtype != dtype || !std::equal(shape, shape + kRank, view->shape)) fail("out: wrong shape or dtype");
  return result;
}

std::optional<Activation> activation_of(const std::optional<std::string>& name, double parameter) {
  if (!name) return {};
  const Map map = map_by_name(*name);
  if (map_has_two_inputs(map)) fail("activation: '" + *name + "' is not one");
  return Activation{map, parameter};
}

// Mean, inverse deviation, weight and bias of a norm of `channels` channels that follows the convolution; the last two
// may be None, and the tuple empty.
Epilogue epilogue_of(const py::tuple& norm, std::int64_t channels, const std::optional<std::string>& activation,
                     double parameter) {
  Epilogue epilogue{{}, {}, {}, activation_of(activation, parameter)};
  if (norm.empty()) return epilogue;
  if (norm.size() != 4) fail("norm: expected mean, inverse deviation, weight and bias");
  epilogue.mean = numbers(py::cast<py::array>(norm[0]), "mean", 1, channels);
  epilogue.scale = numbers(py::cast<py::array>(norm[1]), "invstd", 1, channels);
  const std::vector<double> factor = per_channel(norm[2], "weight", channels, 1);
  std::transform(factor.begin(), factor.end(), epilogue.scale.begin(), epilogue.scale.begin(), std::multiplies<>());
  epilogue.shift = per_channel(norm[3], "bias", channels, 0);
  return epilogue;
}

py::array forward(const py::array& input, const py::array& weight, const std::optional<py::array>& bias,
                  const Sizes& stride, const Pads& padding, const Sizes& dilation, std::int64_t groups,
                  const std::string& padding_mode, bool channels_last, const std::optional<py::array>& out_array,
                  const std::optional<std::string>& activation, double parameter, const Level& precision,
                  const py::tuple& norm) {
  const ArrayView x = image_view(input, "input", channels_last), w = weight_view(weight, "weight");
  const ConvShape shape = conv_shape(w, stride, padding, dilation, groups, padding_mode, precision);
  std::int64_t out[kRank] = {x.shape[0], w.shape[0]};
  for (int axis = 0; axis < kSpatial; ++axis) {
    if (shape.window[axis].stride < 1) fail("stride: must be at least 1");
    out[2 + axis] = output_size(x.extent(axis), shape.window[axis]);
    if (out[2 + axis] < 1) fail("weight: kernel larger than the padded input");
  }
  const ArrayView b = optional_vector(bias, "bias", x.dtype, w.shape[0]);
  ArrayView y;
  py::array result = result_array(out_array, x.dtype, out, static_cast<int>(input.ndim()) - 2, channels_last, &y);
  const Epilogue epilogue = epilogue_of(norm, w.shape[0], activation, parameter);
  const py::gil_scoped_release release;
  conv_forward(shape, x, w, b, y, epilogue);
  return result;
}

py::array backward_input(const py::array& grad_output, const py::array& weight, const std::optional<py::array>& bias,
                         const Sizes& input_size, const Sizes& stride, const Pads& padding, const Sizes& dilation,
                         std::int64_t groups, const std::string& padding_mode, bool channels_last,
                         const std::optional<py::array>& out_array, const Level& precision) {
  const ArrayView gy = image_view(grad_output, "grad_output", channels_last), w = weight_view(weight, "weight");
  const ConvShape shape = conv_shape(w, stride, padding, dilation, groups, padding_mode, precision);
  if (groups < 1) fail("groups: must be at least 1");
  std::int64_t in[kRank] = {gy.shape[0], 1, 1, 1, 1};
  if (__builtin_mul_overflow(w.shape[1], groups, &in[1])) fail("groups: too many");
  if (input_size.size() != stride.size()) fail("input_size: expected one entry per spatial dimension");
  for (std::size_t i = 0; i < input_size.size(); ++i) {
    if (input_size[i] < 0) fail("input_size: must not be negative");
    in[kRank - input_size.size() + i] = input_size[i];
  }
  const ArrayView b = optional_vector(bias, "bias", gy.dtype, in[1]);
  ArrayView gx;
  py::array result =
      result_array(out_array, gy.dtype, in, static_cast<int>(grad_output.ndim()) - 2, channels_last, &gx);
  const py::gil_scoped_release release;
  conv_backward_input(shape, gy, w, b, gx);
  return result;
}

py::array backward_weight(const py::array& grad_output, const py::array& input, const Sizes& kernel,
                          const Sizes& stride, const Pads& padding, const Sizes& dilation, std::int64_t groups,
                          const std::string& padding_mode, bool channels_last, const Level& precision) {
  const ArrayView gy = image_view(grad_output, "grad_output", channels_last);
  const ArrayView x = image_view(input, "input", channels_last);
  if (groups < 1) fail("groups: must be at least 1");
  std::int64_t dims[kRank] = {gy.shape[1], x.shape[1] / groups, 1, 1, 1};
  if (kernel.size() < 1 || kernel.size() > kSpatial) fail("kernel: expected 1 to 3 entries");
  for (std::size_t i = 0; i < kernel.size(); ++i) {
    if (kernel[i] < 1) fail("kernel: must be at least 1");
    dims[kRank - kernel.size() + i] = kernel[i];
  }
  py::array result = new_image(x.dtype, dims, static_cast<int>(kernel.size()), false);
  const ArrayView gw = image_view(result, "grad_weight", false, true);
  const ConvShape shape = conv_shape(gw, stride, padding, dilation, groups, padding_mode, precision);
  const py::gil_scoped_release release;
  conv_backward_weight(shape, gy, x, gw);
  return result;
}

py::array backward_bias(const py::array& grad_output, bool channels_last) {
  const ArrayView gy = image_view(grad_output, "grad_output", channels_last);
  py::array result = new_array(gy.dtype, {static_cast<py::ssize_t>(gy.shape[1])});
  const ArrayView gb = view_with_axes(result, "grad_bias", {-1, 0, -1, -1, -1}, true);
  const py::gil_scoped_release release;
  conv_backward_bias(gy, gb);
  return result;
}

}  // namespace

void bind_conv(py::module_& module) {
  module.def("most_padding",
             [](std::int64_t in, const std::string& padding_mode) { return most_padding(in, pad_mode(padding_mode)); });
  module.def("conv_forward", &forward, "input"_a, "weight"_a, "bias"_a, "stride"_a, "padding"_a, "dilation"_a,
             "groups"_a, "padding_mode"_a, "channels_last"_a, "out"_a, "activation"_a, "parameter"_a, "precision"_a,
             "norm"_a = py::tuple());
  module.def("conv_backward_input", &backward_input);
  module.def("conv_backward_weight", &backward_weight);
  module.def("conv_backward_bias", &backward_bias);
}

}  // namespace fastconv
