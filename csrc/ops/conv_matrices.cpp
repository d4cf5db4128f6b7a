#include "ops/conv_matrices.h"

#include <algorithm>

#include "core/arithmetic.h"
#include "cpu/parallel.h"

namespace fastconv {
namespace {

constexpr int kChannelsAndTaps[] = {1, 2, 3, 4};

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
                 ConvMatrices& m) {
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
  if (!window_is_input(shape, input, output)) return false;
  m.rows = input.shape[0];
  m.inputs = input.size() / input.shape[0];
  m.input_row = input.stride[0];
  m.output_row = output.stride[0];
  return one_line(input, kChannelsAndTaps, m.input_step) && one_line(weight, kChannelsAndTaps, m.weight_input);
}

bool as_matrices_of_planes(const ConvShape& shape, const ArrayView& input, const ArrayView& weight,
                           const ArrayView& output, std::int64_t& samples) {
  std::int64_t step = 0;
  if (shape.groups != 1 || input.size() == 0 || weight.size() == 0 || !window_is_input(shape, input, output) ||
      one_line(input, kChannelsAndTaps, step) || !one_line(weight, kChannelsAndTaps, step))
    return false;
  const std::int64_t sample = input.size() / input.shape[0];
  samples = std::min(input.shape[0], kMostElements<float> / sample);
  return samples > 0;
}

namespace {

// body(sample's first element in planes, its view) of every sample, of the type of the elements.
template <class Body>
void for_samples(const ArrayView& planes, const ArrayView& image, Body&& body) {
  const Work work{image.shape[0], static_cast<double>(image.size())};
  dispatch_storage(image.dtype, [&](auto zero) {
    using S = decltype(zero);
    const View<S> from = image.as<S>();
    parallel_for(work, Subnormals::keep, [&](std::int64_t n) {
      S* plane = static_cast<S*>(planes.data) + n * planes.stride[0];
      const std::int64_t positions = planes.stride[1];
      std::int64_t p = 0;
      for (std::int64_t d = 0; d < from.extent(0); ++d)
        for (std::int64_t h = 0; h < from.extent(1); ++h)
          for (std::int64_t w = 0; w < from.extent(2); ++w, ++p) {
            S* const at = from.data + n * from.stride[0] + d * from.step(0) + h * from.step(1) + w * from.step(2);
            for (std::int64_t c = 0; c < from.shape[1]; ++c) body(plane[c * positions + p], at[c * from.stride[1]]);
          }
    });
  });
}

}  // namespace

Planes::Planes(const ArrayView& image, std::int64_t samples)
    : memory_(ceil_div(samples * (image.size() / image.shape[0]) * static_cast<std::int64_t>(dtype_size(image.dtype)),
                       static_cast<std::int64_t>(sizeof(double)))),
      dense_(image) {
  dense_.data = memory_.data();
  dense_.shape[0] = samples;
  dense_.make_dense();
}

ArrayView Planes::of(std::int64_t samples) const { return dense_.samples(0, samples); }

void Planes::read(const ArrayView& image) {
  for_samples(dense_, image, [](auto& plane, const auto& element) { plane = element; });
}

void Planes::write(const ArrayView& image) const {
  for_samples(dense_, image, [](const auto& plane, auto& element) { element = plane; });
}

}  // namespace fastconv
