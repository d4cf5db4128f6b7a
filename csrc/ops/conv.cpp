#include "ops/conv.h"

#include <string>

#include "ops/conv_gather.h"

namespace fastconv {

void check_conv(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& output) {
  require(shape.groups >= 1, "groups: must be at least 1");
  require(input.dtype == weight.dtype && input.dtype == output.dtype, "arrays of one call must share a dtype");
  require(input.shape[0] == output.shape[0], "input and output differ in N");
  require(output.shape[1] == weight.shape[0], "weight: output channels do not match");
  require(input.shape[1] == weight.shape[1] * shape.groups, "weight: input channels do not match");
  require(output.shape[1] % shape.groups == 0, "groups: do not divide the output channels");
  for (int axis = 0; axis < kSpatial; ++axis) {
    const Window& window = shape.window[axis];
    require(window.stride >= 1 && window.dilation >= 1 && window.kernel >= 1,
            "stride, dilation and kernel must be positive");
    require(window.kernel == weight.extent(axis), "weight: kernel size does not match");
    require(output.extent(axis) == output_size(input.extent(axis), window), "output: wrong spatial size");
  }
}

namespace {

template <class T>
GatherProblem<T> gather_problem(const ArrayView& x, const ArrayView& weight, const ArrayView& bias, const ArrayView& y,
                                std::int64_t groups) {
  GatherProblem<T> problem;
  problem.x = x.as<const T>();
  problem.y_shape = y.as<const T>();
  problem.y = static_cast<T*>(y.data);
  problem.weight = static_cast<const T*>(weight.data);
  problem.bias = static_cast<const T*>(bias.data);
  problem.groups = groups;
  problem.x_channels = x.shape[1] / groups;
  problem.y_channels = y.shape[1] / groups;
  for (int axis = 0; axis < kSpatial; ++axis) problem.weight_tap[axis] = weight.step(axis);
  return problem;
}

template <class T>
void run(const GatherProblem<T>& problem) {
  if (problem.y_shape.size() == 0) return;
  if (problem.x_channels == 1 && problem.y_channels <= 4 && problem.groups > 1)
    gather_depthwise(problem);
  else
    gather_dense(problem);
}

}  // namespace

void conv_forward(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                  const ArrayView& output) {
  check_conv(shape, input, weight, output);
  dispatch_dtype(input.dtype, [&](auto zero) {
    using T = decltype(zero);
    GatherProblem<T> problem = gather_problem<T>(input, weight, bias, output, shape.groups);
    problem.weight_y = weight.stride[0];
    problem.weight_x = weight.stride[1];
    problem.weight_group = weight.stride[0] * problem.y_channels;
    for (int axis = 0; axis < kSpatial; ++axis)
      problem.phases[axis] = forward_phases(shape.window[axis], output.extent(axis));
    run(problem);
  });
}

void conv_backward_input(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                         const ArrayView& bias, const ArrayView& grad_input) {
  check_conv(shape, grad_input, weight, grad_output);
  dispatch_dtype(grad_input.dtype, [&](auto zero) {
    using T = decltype(zero);
    GatherProblem<T> problem = gather_problem<T>(grad_output, weight, bias, grad_input, shape.groups);
    problem.weight_y = weight.stride[1];
    problem.weight_x = weight.stride[0];
    problem.weight_group = weight.stride[0] * problem.x_channels;
    for (int axis = 0; axis < kSpatial; ++axis)
      problem.phases[axis] = backward_phases(shape.window[axis], grad_input.extent(axis));
    run(problem);
  });
}

}  // namespace fastconv
