// Convolutions that are simpler than they look. Some are a product of matrices: one window as large as the input, whose
// taps join the channels, or windows of one element over positions that lie in one line, as in a fully connected layer.
#pragma once

#include "cpu/workspace.h"
#include "ops/conv.h"
#include "ops/matmul.h"

namespace fastconv {

// The sizes, and the steps of each array along the two that it has.
struct ConvMatrices {
  std::int64_t rows, inputs, outputs;
  std::int64_t input_row, input_step;
  std::int64_t weight_output, weight_input;
  std::int64_t output_row, output_step;

  template <class S>
  MatrixProduct<S> forward(const ArrayView& input, const ArrayView& weight, const ArrayView& output) const {
    return {rows,
            outputs,
            inputs,
            {static_cast<const S*>(input.data), input_row, input_step},
            {static_cast<const S*>(weight.data), weight_input, weight_output},
            {static_cast<S*>(output.data), output_row, output_step},
            nullptr,
            {}};
  }
  template <class S>
  MatrixProduct<S> backward_input(const ArrayView& grad_output, const ArrayView& weight,
                                  const ArrayView& grad_input) const {
    return {rows,
            inputs,
            outputs,
            {static_cast<const S*>(grad_output.data), output_row, output_step},
            {static_cast<const S*>(weight.data), weight_output, weight_input},
            {static_cast<S*>(grad_input.data), input_row, input_step},
            nullptr,
            {}};
  }
  template <class S>
  MatrixProduct<S> backward_weight(const ArrayView& grad_output, const ArrayView& input,
                                   const ArrayView& grad_weight) const {
    return {outputs,
            inputs,
            rows,
            {static_cast<const S*>(grad_output.data), output_step, output_row},
            {static_cast<const S*>(input.data), input_row, input_step},
            {static_cast<S*>(grad_weight.data), weight_output, weight_input},
            nullptr,
            {}};
  }
};

// Rows of numbers as samples of channels, without positions.
template <class T>
ArrayView matrix_view(T* data, std::int64_t rows, std::int64_t columns, std::int64_t row, std::int64_t column) {
  ArrayView view;
  view.dtype = DtypeOf<T>::value;
  view.data = data;
  view.shape[0] = rows;
  view.shape[1] = columns;
  view.stride[0] = row;
  view.stride[1] = column;
  return view;
}

// Sets `step` to the one step between the elements of some of a view's axes, the outermost first, if they lie so.
template <class AnyView, int Axes>
bool one_line(const AnyView& view, const int (&axes)[Axes], std::int64_t& step) {
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

// Whether a weight's taps, of so many along each dimension, follow each other at steps of `element`.
inline bool taps_in_a_row(const std::int64_t (&kernel)[kSpatial], const std::int64_t* step, std::int64_t element) {
  for (int axis = kSpatial - 1; axis >= 0; --axis) {
    if (kernel[axis] > 1 && step[axis] != element) return false;
    element *= kernel[axis];
  }
  return true;
}

constexpr int kPositions[] = {2, 3, 4};
constexpr int kSamplesAndPositions[] = {0, 2, 3, 4};

// Windows of one element see positions in any order: those of an image that lie in one line become one row.
void join_positions(const ConvShape& shape, ArrayView& input, ArrayView& output);

// Whether the convolution is such a product.
bool as_matrices(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& output,
                 ConvMatrices& matrices);

// Whether it would be one if the taps lay together in each of the input's channels, as they do in the weight: with a
// window as large as the input, whose planes are worth a copy. `samples`: how many are copied at a time.
bool as_matrices_of_planes(const ConvShape& shape, const ArrayView& input, const ArrayView& weight,
                           const ArrayView& output, std::int64_t& samples);

// Some samples' planes, dense: those of `image`, or of a result that goes there.
class Planes {
 public:
  Planes(const ArrayView& image, std::int64_t samples);

  ArrayView of(std::int64_t samples) const;
  void read(const ArrayView& image);
  void write(const ArrayView& image) const;

 private:
  Workspace<double> memory_;  // of any dtype
  ArrayView dense_;
};

}  // namespace fastconv
