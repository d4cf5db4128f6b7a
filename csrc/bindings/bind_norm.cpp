// Batch norm: arrays (N, C) or image batches of 1 to 3 spatial dimensions, in either data format.
#include <cmath>

#include "bindings/array_args.h"
#include "ops/norm.h"

namespace fastconv {
namespace {

ArrayView batch_view(const py::array& array, const char* name, bool channels_last, bool writable = false) {
  const int matrix[kRank] = {0, 1, -1, -1, -1};
  writable = writable && array.size() > 0;  // the strides of an empty array mean nothing
  return array.ndim() == 2 ? view_with_axes(array, name, matrix, writable)
                           : image_view(array, name, channels_last, writable);
}

void require_same_shape(const ArrayView& view, const ArrayView& x, const char* name) {
  if (view.dtype != x.dtype) throw py::type_error(std::string(name) + ": expected x's dtype");
  if (!std::equal(view.shape, view.shape + kRank, x.shape)) fail(std::string(name) + ": expected x's shape");
}

// The result's rows or planes must be dense: kernels write it as one block.
void require_dense(const ArrayView& y, ChannelLayout layout, const char* name) {
  const int order[kRank] = {0, layout == ChannelLayout::planes ? 1 : 2, layout == ChannelLayout::planes ? 2 : 3,
                            layout == ChannelLayout::planes ? 3 : 4, layout == ChannelLayout::planes ? 4 : 1};
  std::int64_t expected = 1;
  for (int i = kRank - 1; i >= 0; --i) {
    const int axis = order[i];
    if (y.size() > 0 && y.shape[axis] > 1 && y.stride[axis] != expected)
      fail(std::string(name) + ": expected a dense array");
    expected *= y.shape[axis];
  }
}

// One number a channel, as float64; `fallback` for an absent array.
std::vector<double> per_channel(const py::object& object, const char* name, const ArrayView& x, double fallback) {
  const std::int64_t channels = x.shape[1];
  std::vector<double> values(static_cast<std::size_t>(channels), fallback);
  if (object.is_none()) return values;
  const auto array = py::cast<py::array>(object);
  const int axes[kRank] = {-1, 0, -1, -1, -1};
  const ArrayView view = view_with_axes(array, name, axes);
  if (array.ndim() != 1 || view.shape[1] != channels) fail(std::string(name) + ": expected one number a channel");
  dispatch_dtype(view.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t c = 0; c < channels; ++c)
      values[static_cast<std::size_t>(c)] = static_cast<double>(static_cast<const T*>(view.data)[c * view.stride[1]]);
  });
  return values;
}

py::array channel_array(Dtype dtype, const std::vector<double>& values) {
  py::array result = new_array(dtype, {static_cast<py::ssize_t>(values.size())});
  dispatch_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    auto* data = static_cast<T*>(result.mutable_data());
    for (std::size_t c = 0; c < values.size(); ++c) data[c] = static_cast<T>(values[c]);
  });
  return result;
}

double rounded(Dtype dtype, double value) {
  return dtype == Dtype::f32 ? static_cast<double>(static_cast<float>(value)) : value;
}

ChannelLayout layout_of(bool rows) { return rows ? ChannelLayout::rows : ChannelLayout::planes; }

// Mean and biased variance of each channel.
py::tuple batch_statistics(const py::array& x, bool channels_last, bool rows) {
  const ArrayView view = batch_view(x, "x", channels_last);
  const auto channels = static_cast<std::size_t>(view.shape[1]);
  std::vector<double> mean(channels), variance(channels);
  const std::int64_t count = channels ? view.size() / view.shape[1] : 0;
  {
    const py::gil_scoped_release release;
    channel_moments(view, layout_of(rows), mean.data(), variance.data());
  }
  for (double& v : variance) v = count ? v / static_cast<double>(count) : 0;
  return py::make_tuple(channel_array(Dtype::f64, mean), channel_array(Dtype::f64, variance));
}

void batch_norm_forward(const py::array& x, const py::array& y, bool channels_last, bool rows, const py::array& mean,
                        const py::array& invstd, const py::object& weight, const py::object& bias) {
  const ArrayView view = batch_view(x, "x", channels_last), result = batch_view(y, "y", channels_last, true);
  require_same_shape(result, view, "y");
  require_dense(result, layout_of(rows), "y");
  std::vector<double> center = per_channel(mean, "mean", view, 0), scale = per_channel(weight, "weight", view, 1),
                      shift = per_channel(bias, "bias", view, 0);
  const std::vector<double> inverse = per_channel(invstd, "invstd", view, 1);
  for (std::size_t c = 0; c < center.size(); ++c) {
    scale[c] *= inverse[c];
    // What the mean loses by rounding to the data's dtype goes into the shift.
    const double lost = center[c] - rounded(view.dtype, center[c]);
    if (std::isfinite(lost) && lost != 0) shift[c] -= lost * scale[c];
  }
  const py::gil_scoped_release release;
  normalise(view, result, layout_of(rows), center.data(), scale.data(), shift.data());
}

// (grad_weight, grad_bias); writes grad_input unless it is None.
py::tuple batch_norm_backward(const py::array& grad_output, const py::array& x, const py::object& grad_input,
                              bool channels_last, bool rows, const py::array& mean, const py::array& invstd,
                              const py::object& weight, bool training, bool sums) {
  const ArrayView view = batch_view(x, "x", channels_last), g = batch_view(grad_output, "grad_output", channels_last);
  require_same_shape(g, view, "grad_output");
  const ChannelLayout layout = layout_of(rows);
  ArrayView result;
  if (!grad_input.is_none()) {
    result = batch_view(py::cast<py::array>(grad_input), "grad_input", channels_last, true);
    require_same_shape(result, view, "grad_input");
    require_dense(result, layout, "grad_input");
  }
  const std::vector<double> center = per_channel(mean, "mean", view, 0),
                            inverse = per_channel(invstd, "invstd", view, 1);
  std::vector<double> scale = per_channel(weight, "weight", view, 1);
  const std::size_t channels = center.size();
  std::vector<double> sum(channels), dot(channels), slope(channels), shift(channels);
  const double count = channels ? static_cast<double>(view.size() / view.shape[1]) : 0;
  {
    const py::gil_scoped_release release;
    if (sums || training) channel_products(g, view, layout, center.data(), sum.data(), dot.data());
    for (std::size_t c = 0; c < channels; ++c) {
      scale[c] *= inverse[c];
      slope[c] = -scale[c] * dot[c] * inverse[c] * inverse[c] / count;
      shift[c] = -scale[c] * sum[c] / count;
      dot[c] *= inverse[c];
    }
    if (!grad_input.is_none())
      normalise_backward(g, view, result, layout, center.data(), scale.data(), training ? slope.data() : nullptr,
                         shift.data());
  }
  return py::make_tuple(channel_array(view.dtype, dot), channel_array(view.dtype, sum));
}

}  // namespace

void bind_norm(py::module_& module) {
  module.def("batch_statistics", &batch_statistics, py::arg("x"), py::arg("channels_last"), py::arg("rows"));
  module.def("batch_norm", &batch_norm_forward, py::arg("x"), py::arg("y"), py::arg("channels_last"), py::arg("rows"),
             py::arg("mean"), py::arg("invstd"), py::arg("weight").none(true), py::arg("bias").none(true));
  module.def("batch_norm_backward", &batch_norm_backward, py::arg("grad_output"), py::arg("x"),
             py::arg("grad_input").none(true), py::arg("channels_last"), py::arg("rows"), py::arg("mean"),
             py::arg("invstd"), py::arg("weight").none(true), py::arg("training"), py::arg("sums"));
}

}  // namespace fastconv
