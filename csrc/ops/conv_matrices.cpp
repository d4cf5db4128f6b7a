#include "ops/conv_matrices.h"

namespace fastconv {
namespace {

// Sets `step` to the one step between the elements of some of a view's axes, the outermost first, if they lie so.
template <int Axes>
bool one_line(const ArrayView& view, const int (&axes)[Axes], std::int64_t& step) {
  std::int64_t inside = 1;
  step = 1;
  for (int i = Axes - 1; i >= 0; --i) {
    const std::int64_t extent = view.shape[axes[i]], stride = view.stride[axes[i]];
    if (extent == 1) continue;
    if (inside == 1) step = stride;
    if (stride != inside * step) return false;
    inside *= extent;
  }
  return step != 0 || inside == 1;
}

constexpr int kPositions[] = {2, 3, 4};
constexpr int kChannelsAndTaps[] = {1, 2, 3, 4};
constexpr int kSamplesAndPositions[] = {0, 2, 3, 4};

bool window_is_input(const ConvShape& shape, const ArrayView& input, const ArrayView& output) {
  for (int axis = 0; axis < kSpatial; ++axis) {
    const Window& window = shape.window[axis];
    const bool whole = window.kernel == input.extent(axis) && (window.kernel == 1 || window.dilation == 1);
    if (!whole || output.extent(axis) != 1 || window.pad_before != 0 || window.pad_after != 0) return false;
  }
  return true;
}

bool window_is_point(const ConvShape& shape) {
  for (const Window& window : shape.window)
    if (window.kernel != 1 || window.stride != 1 || window.pad_before != 0 || window.pad_after != 0) return false;
  return true;
}

}  // namespace

void join_positions(const ConvShape& shape, ArrayView& input, ArrayView& output) {
  std::int64_t input_step = 0, output_step = 0;
  if (!window_is_point(shape) || input.size() == 0) return;
  if (!one_line(input, kPositions, input_step) || !one_line(output, kPositions, output_step)) return;
  for (ArrayView* view : {&input, &output}) {
    view->shape[4] *= view->shape[2] * view->shape[3];
    view->shape[2] = view->shape[3] = 1;
  }
  input.stride[4] = input_step;
  output.stride[4] = output_step;
}

bool as_matrices(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& output,
                 bool biased, ConvMatrices& m) {
  if (shape.groups != 1 || input.size() == 0 || weight.size() == 0) return false;
  m.outputs = weight.shape[0];
  m.weight_output = weight.stride[0];
  m.output_step = output.stride[1];
  if (window_is_point(shape)) {
    m.rows = input.size() / input.shape[1];
    m.inputs = input.shape[1];
    m.input_step = input.stride[1];
    m.weight_input = weight.stride[1];
    // One input channel and few outputs are depthwise work; other steps are packed better block by block.
    const bool dense = (m.inputs > 1 || m.outputs > 4) && (m.input_step == 1 || m.inputs == 1) &&
                       (m.output_step == 1 || m.outputs == 1);
    if (dense && one_line(input, kSamplesAndPositions, m.input_row) &&
        one_line(output, kSamplesAndPositions, m.output_row))
      return true;
  }
  if (biased || !window_is_input(shape, input, output)) return false;
  m.rows = input.shape[0];
  m.inputs = input.size() / input.shape[0];
  m.input_row = input.stride[0];
  m.output_row = output.stride[0];
  return one_line(input, kChannelsAndTaps, m.input_step) && one_line(weight, kChannelsAndTaps, m.weight_input);
}

}  // namespace fastconv
