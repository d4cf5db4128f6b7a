// Norms: of the channels of arrays (N, C) or image batches of 1 to 3 spatial dimensions, in either data format; layer
// norm of arrays of any rank.
#include <cmath>

#include "bindings/array_args.h"
#include "ops/group_norm.h"
#include "ops/layer_norm.h"

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

// Statistics of the shape (C,) belong to the batch, (N, C) to a sample.
Scope scope_of(const py::array& statistics) { return statistics.ndim() == 2 ? Scope::sample : Scope::batch; }

std::vector<double> statistics_of(const py::array& array, const char* name, const ArrayView& x, Scope scope) {
  if (scope_of(array) != scope) fail(std::string(name) + ": expected the mean's shape");
  return numbers(array, name, x.shape[0], x.shape[1]);
}

py::array filled(Dtype dtype, const std::vector<py::ssize_t>& shape, const std::vector<double>& values) {
  py::array result = new_array(dtype, shape);
  dispatch_storage(dtype, [&](auto zero) {
    using T = decltype(zero);
    auto* data = static_cast<T*>(result.mutable_data());
    for (std::size_t c = 0; c < values.size(); ++c) data[c] = narrow(static_cast<Compute<T>>(values[c]), T{});
  });
  return result;
}

py::array channel_array(Dtype dtype, const std::vector<double>& values) {
  return filled(dtype, {static_cast<py::ssize_t>(values.size())}, values);
}

// old = (1 - momentum) * old + momentum * batch, one number a channel.
void update_running(const py::array& old, const py::array_t<double>& batch, double momentum) {
  const int axes[kRank] = {-1, 0, -1, -1, -1};
  const ArrayView running = view_with_axes(old, "running statistics", axes, true);
  if (old.ndim() != 1 || batch.ndim() != 1 || batch.shape(0) != old.shape(0)) fail("batch: wrong shape");
  dispatch_storage(running.dtype, [&](auto zero) {
    using T = decltype(zero);
    const View<T> values = running.as<T>();
    for (py::ssize_t c = 0; c < batch.shape(0); ++c) {
      T& value = values.data[c * values.stride[1]];
      const double next = (1 - momentum) * static_cast<double>(widen(value)) + momentum * batch.at(c);
      value = narrow(static_cast<Compute<T>>(next), T{});
    }
  });
}

// 1 / sqrt(variance + eps), infinite or NaN where that is.
py::array_t<double> inverse_deviation(const py::array_t<double, py::array::c_style>& variance, double eps) {
  py::array_t<double> result(std::vector<py::ssize_t>(variance.shape(), variance.shape() + variance.ndim()));
  double* const values = result.mutable_data();
  for (py::ssize_t i = 0; i < variance.size(); ++i) values[i] = 1 / std::sqrt(variance.data()[i] + eps);
  return result;
}

ChannelLayout layout_of(bool rows) { return rows ? ChannelLayout::rows : ChannelLayout::planes; }

// The arrays of a backward pass, checked; `grad_input` may be None.
struct BackwardArrays {
  ArrayView x, grad_output, grad_input, rectified;

  BackwardArrays(const py::array& g, const py::array& array, const py::object& result, bool channels_last,
                 ChannelLayout layout)
      : x(batch_view(array, "x", channels_last)), grad_output(batch_view(g, "grad_output", channels_last)) {
    require_same_shape(grad_output, x, "grad_output");
    if (result.is_none()) return;
    grad_input = batch_view(py::cast<py::array>(result), "grad_input", channels_last, true);
    require_same_shape(grad_input, x, "grad_input");
    require_dense(grad_input, layout, "grad_input");
  }

  // The result of the ReLU behind the norm.
  void rectify(const py::array& result, bool channels_last, ChannelLayout layout) {
    rectified = batch_view(result, "rectified", channels_last);
    require_same_shape(rectified, x, "rectified");
    require_dense(rectified, layout, "rectified");
    if (compute_dtype(x.dtype) != x.dtype) throw py::type_error("rectified: expected float32 or float64");
  }
  NormGradient gradient() const { return {grad_output, rectified}; }
};

// Mean and biased variance of each channel, (C,), or of each channel of a sample, (N, C).
py::tuple batch_statistics(const py::array& x, bool channels_last, bool rows, bool per_sample) {
  const ArrayView view = batch_view(x, "x", channels_last);
  const std::int64_t sets = per_sample ? view.shape[0] : 1, entries = sets * view.shape[1];
  std::vector<double> mean(static_cast<std::size_t>(entries)), variance(mean.size());
  {
    const py::gil_scoped_release release;
    channel_moments(view, layout_of(rows), per_sample ? Scope::sample : Scope::batch, mean.data(), variance.data());
  }
  const std::int64_t count = entries ? view.size() / entries : 0;
  for (double& v : variance) v = count ? v / static_cast<double>(count) : 0;
  std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(view.shape[1])};
  if (per_sample) shape.insert(shape.begin(), static_cast<py::ssize_t>(view.shape[0]));
  return py::make_tuple(filled(Dtype::f64, shape, mean), filled(Dtype::f64, shape, variance));
}

void batch_norm_forward(const py::array& x, const py::array& y, bool channels_last, bool rows, const py::array& mean,
                        const py::array& invstd, const py::object& weight, const py::object& bias, bool rectify) {
  const ArrayView view = batch_view(x, "x", channels_last), result = batch_view(y, "y", channels_last, true);
  require_same_shape(result, view, "y");
  require_dense(result, layout_of(rows), "y");
  const Scope scope = scope_of(mean);
  const std::vector<double> center = statistics_of(mean, "mean", view, scope);
  const std::vector<double> factor = per_channel(weight, "weight", view.shape[1], 1),
                            offset = per_channel(bias, "bias", view.shape[1], 0);
  std::vector<double> scale = statistics_of(invstd, "invstd", view, scope), shift(scale.size());
  for (std::size_t i = 0; i < scale.size(); ++i) {
    scale[i] *= factor[i % factor.size()];
    shift[i] = offset[i % factor.size()];
  }
  const py::gil_scoped_release release;
  normalise(view, result, layout_of(rows), scope, center, scale, shift, rectify);
}

// (grad_weight, grad_bias); writes grad_input unless it is None.
py::tuple batch_norm_backward(const py::array& grad_output, const py::array& x, const py::object& grad_input,
                              bool channels_last, bool rows, const py::array& mean, const py::array& invstd,
                              const py::object& weight, bool training, bool sums, const py::object& rectified) {
  const ChannelLayout layout = layout_of(rows);
  BackwardArrays arrays(grad_output, x, grad_input, channels_last, layout);
  if (!rectified.is_none()) arrays.rectify(py::cast<py::array>(rectified), channels_last, layout);
  const ArrayView& view = arrays.x;
  const std::vector<double> center = statistics_of(mean, "mean", view, Scope::batch),
                            inverse = statistics_of(invstd, "invstd", view, Scope::batch);
  std::vector<double> scale = per_channel(weight, "weight", view.shape[1], 1);
  const std::size_t channels = center.size();
  std::vector<double> sum(channels), dot(channels), slope(channels), shift(channels);
  const double count = channels ? static_cast<double>(view.size() / view.shape[1]) : 0;
  {
    const py::gil_scoped_release release;
    if (sums || training)
      channel_products(arrays.gradient(), view, layout, Scope::batch, center.data(), sum.data(), dot.data());
    for (std::size_t c = 0; c < channels; ++c) {
      scale[c] *= inverse[c];
      slope[c] = -scale[c] * dot[c] * inverse[c] * inverse[c] / count;
      shift[c] = -scale[c] * sum[c] / count;
      dot[c] *= inverse[c];
    }
    if (arrays.grad_input)
      normalise_backward(arrays.gradient(), view, arrays.grad_input, layout, Scope::batch, center.data(), scale.data(),
                         training ? slope.data() : nullptr, shift.data());
  }
  return py::make_tuple(channel_array(view.dtype, dot), channel_array(view.dtype, sum));
}

// Of each channel of each sample: the sums of grad_output and of grad_output * (x - mean), float64 (N, C).
py::tuple sample_products(const py::array& grad_output, const py::array& x, bool channels_last, bool rows,
                          const py::array& mean) {
  const BackwardArrays arrays(grad_output, x, py::none(), channels_last, layout_of(rows));
  const std::vector<double> center = statistics_of(mean, "mean", arrays.x, Scope::sample);
  std::vector<double> sum(center.size()), dot(center.size());
  {
    const py::gil_scoped_release release;
    channel_products(arrays.gradient(), arrays.x, layout_of(rows), Scope::sample, center.data(), sum.data(),
                     dot.data());
  }
  const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(arrays.x.shape[0]),
                                       static_cast<py::ssize_t>(arrays.x.shape[1])};
  return py::make_tuple(filled(Dtype::f64, shape, sum), filled(Dtype::f64, shape, dot));
}

// grad_input = grad_output * scale + (x - mean) * slope + shift, with (N, C) coefficients.
void sample_backward(const py::array& grad_output, const py::array& x, const py::array& grad_input, bool channels_last,
                     bool rows, const py::array& mean, const py::array& scale, const py::array& slope,
                     const py::array& shift) {
  const ChannelLayout layout = layout_of(rows);
  const BackwardArrays arrays(grad_output, x, grad_input, channels_last, layout);
  const auto coefficients = [&](const py::array& array, const char* name) {
    return statistics_of(array, name, arrays.x, Scope::sample);
  };
  const std::vector<double> center = coefficients(mean, "mean"), factor = coefficients(scale, "scale"),
                            slopes = coefficients(slope, "slope"), shifts = coefficients(shift, "shift");
  const py::gil_scoped_release release;
  normalise_backward(arrays.gradient(), arrays.x, arrays.grad_input, layout, Scope::sample, center.data(),
                     factor.data(), slopes.data(), shifts.data());
}

void require_groups(const ArrayView& x, std::int64_t groups) {
  if (groups < 1 || x.shape[1] % groups != 0)
    fail("num_groups: " + std::to_string(groups) + " does not divide " + std::to_string(x.shape[1]) + " channels");
}

// Mean and variance of each group, float64 (N, groups); writes y.
py::tuple group_norm_forward(const py::array& x, const py::array& y, bool channels_last, bool rows, std::int64_t groups,
                             double eps, const py::object& weight, const py::object& bias) {
  const ArrayView view = batch_view(x, "x", channels_last), result = batch_view(y, "y", channels_last, true);
  require_same_shape(result, view, "y");
  require_dense(result, layout_of(rows), "y");
  require_groups(view, groups);
  const std::vector<double> factor = per_channel(weight, "weight", view.shape[1], 1),
                            offset = per_channel(bias, "bias", view.shape[1], 0);
  std::vector<double> mean(static_cast<std::size_t>(view.shape[0] * groups)), variance(mean.size());
  {
    const py::gil_scoped_release release;
    group_norm(view, result, layout_of(rows), groups, eps, factor.data(), offset.data(), mean.data(), variance.data());
  }
  const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(view.shape[0]), static_cast<py::ssize_t>(groups)};
  return py::make_tuple(filled(Dtype::f64, shape, mean), filled(Dtype::f64, shape, variance));
}

// (grad_weight, grad_bias); writes grad_input unless it is None.
py::tuple group_norm_gradients(const py::array& grad_output, const py::array& x, const py::object& grad_input,
                               bool channels_last, bool rows, std::int64_t groups, const py::array& mean,
                               const py::array& invstd, const py::object& weight) {
  const ChannelLayout layout = layout_of(rows);
  const BackwardArrays arrays(grad_output, x, grad_input, channels_last, layout);
  const ArrayView& view = arrays.x;
  require_groups(view, groups);
  if (mean.ndim() != 2 || invstd.ndim() != 2) fail("mean: expected one number a group of a sample");
  const std::vector<double> center = numbers(mean, "mean", view.shape[0], groups),
                            inverse = numbers(invstd, "invstd", view.shape[0], groups);
  const std::vector<double> factor = per_channel(weight, "weight", view.shape[1], 1);
  std::vector<double> grad_weight(factor.size()), grad_bias(factor.size());
  {
    const py::gil_scoped_release release;
    group_norm_backward(arrays.grad_output, view, arrays.grad_input, layout, groups, center.data(), inverse.data(),
                        factor.data(), grad_weight.data(), grad_bias.data());
  }
  return py::make_tuple(channel_array(view.dtype, grad_weight), channel_array(view.dtype, grad_bias));
}

// The arrays of a layer norm: x in any strides, seen as rows of groups * length elements in C order.
struct LayerArrays {
  LayerNorm problem{};
  Strided x;

  LayerArrays(const py::array& array, const py::object& weight, std::int64_t groups, std::int64_t length)
      : x(strided(array, "x", dtype_of(array, "x"))) {
    constexpr std::int64_t most = std::int64_t{1} << 31;  // their product stays in 64 bits
    if (groups < 1 || length < 0 || groups > most || length > most)
      fail("x: wrong shape for rows of " + std::to_string(groups) + " x " + std::to_string(length));
    const std::int64_t row = groups * length, rows = row > 0 ? array.size() / row : 0;
    if (rows * row != array.size()) fail("x: wrong shape");
    problem = {dtype_of(array, "x"), rows, groups, length, nullptr};
    problem.weight = row_of(weight, "weight");
  }

  const void* row_of(const py::object& object, const char* name) const {
    if (object.is_none()) return nullptr;
    const auto array = py::cast<py::array>(object);
    if (dtype_of(array, name) != problem.dtype) throw py::type_error(std::string(name) + ": expected x's dtype");
    if (!(array.flags() & py::array::c_style) || array.size() != problem.groups * problem.length)
      fail(std::string(name) + ": expected a contiguous array of a row's size");
    strided(array, name, problem.dtype);  // aligned
    return array.data();
  }

  Strided like_x(const py::array& array, const char* name, bool result) const {
    const Strided other = strided(array, name, problem.dtype, result);
    if (other.shape != x.shape) fail(std::string(name) + ": expected x's shape");
    if (result && !(array.flags() & py::array::c_style)) fail(std::string(name) + ": expected a contiguous array");
    return other;
  }

  std::vector<double> of_rows(const py::array& array, const char* name) const {
    if (array.ndim() != 1) fail(std::string(name) + ": expected one number a row");
    return numbers(array, name, 1, problem.rows * problem.groups);
  }
};

// Mean and variance of each of the `count` rows, float64; writes y. `count` matters where rows have no elements.
py::tuple layer_norm_forward(const py::array& x, const py::array& y, std::int64_t groups, std::int64_t length,
                             std::int64_t count, double eps, const py::object& weight, const py::object& bias) {
  LayerArrays arrays(x, weight, groups, length);
  if (length == 0 && count >= 0 && count % groups == 0) arrays.problem.rows = count / groups;
  if (arrays.problem.rows * groups != count) fail("count: " + std::to_string(count) + " is not the number of rows");
  const Strided result = arrays.like_x(y, "y", true);
  const void* offset = arrays.row_of(bias, "bias");
  std::vector<double> mean(static_cast<std::size_t>(count)), variance(mean.size());
  {
    const py::gil_scoped_release release;
    layer_norm(arrays.problem, arrays.x, result, offset, eps, mean.data(), variance.data());
  }
  return py::make_tuple(channel_array(Dtype::f64, mean), channel_array(Dtype::f64, variance));
}

// (grad_weight, grad_bias) if `sums`; writes grad_input unless it is None.
py::tuple layer_norm_gradients(const py::array& grad_output, const py::array& x, const py::object& grad_input,
                               std::int64_t groups, std::int64_t length, const py::array& mean, const py::array& invstd,
                               const py::object& weight, bool sums) {
  LayerArrays arrays(x, weight, groups, length);
  const Strided g = arrays.like_x(grad_output, "grad_output", false);
  if (length == 0) arrays.problem.rows = 0;
  const std::vector<double> center = length ? arrays.of_rows(mean, "mean") : std::vector<double>(),
                            inverse = length ? arrays.of_rows(invstd, "invstd") : std::vector<double>();
  Strided result;
  if (!grad_input.is_none()) result = arrays.like_x(py::cast<py::array>(grad_input), "grad_input", true);
  std::vector<double> grad_weight(static_cast<std::size_t>(sums ? groups * length : 0)), grad_bias(grad_weight.size());
  {
    const py::gil_scoped_release release;
    layer_norm_backward(arrays.problem, g, arrays.x, result, center.data(), inverse.data(),
                        sums ? grad_weight.data() : nullptr, sums ? grad_bias.data() : nullptr);
  }
  return py::make_tuple(channel_array(arrays.problem.dtype, grad_weight),
                        channel_array(arrays.problem.dtype, grad_bias));
}

}  // namespace

void bind_norm(py::module_& module) {
  module.def("batch_statistics", &batch_statistics, py::arg("x"), py::arg("channels_last"), py::arg("rows"),
             py::arg("per_sample"));
  module.def("update_running", &update_running, py::arg("old"), py::arg("batch"), py::arg("momentum"));
  module.def("inverse_deviation", &inverse_deviation, py::arg("variance"), py::arg("eps"));
  module.def("batch_norm", &batch_norm_forward, py::arg("x"), py::arg("y"), py::arg("channels_last"), py::arg("rows"),
             py::arg("mean"), py::arg("invstd"), py::arg("weight").none(true), py::arg("bias").none(true),
             py::arg("rectify") = false);
  module.def("batch_norm_backward", &batch_norm_backward, py::arg("grad_output"), py::arg("x"),
             py::arg("grad_input").none(true), py::arg("channels_last"), py::arg("rows"), py::arg("mean"),
             py::arg("invstd"), py::arg("weight").none(true), py::arg("training"), py::arg("sums"),
             py::arg("rectified") = py::none());
  module.def("sample_products", &sample_products, py::arg("grad_output"), py::arg("x"), py::arg("channels_last"),
             py::arg("rows"), py::arg("mean"));
  module.def("sample_backward", &sample_backward, py::arg("grad_output"), py::arg("x"), py::arg("grad_input"),
             py::arg("channels_last"), py::arg("rows"), py::arg("mean"), py::arg("scale"), py::arg("slope"),
             py::arg("shift"));
  module.def("group_norm", &group_norm_forward, py::arg("x"), py::arg("y"), py::arg("channels_last"), py::arg("rows"),
             py::arg("num_groups"), py::arg("eps"), py::arg("weight").none(true), py::arg("bias").none(true));
  module.def("group_norm_backward", &group_norm_gradients, py::arg("grad_output"), py::arg("x"),
             py::arg("grad_input").none(true), py::arg("channels_last"), py::arg("rows"), py::arg("num_groups"),
             py::arg("mean"), py::arg("invstd"), py::arg("weight").none(true));
  module.def("layer_norm", &layer_norm_forward, py::arg("x"), py::arg("y"), py::arg("groups"), py::arg("length"),
             py::arg("count"), py::arg("eps"), py::arg("weight").none(true), py::arg("bias").none(true));
  module.def("layer_norm_backward", &layer_norm_gradients, py::arg("grad_output"), py::arg("x"),
             py::arg("grad_input").none(true), py::arg("groups"), py::arg("length"), py::arg("mean"), py::arg("invstd"),
             py::arg("weight").none(true), py::arg("sums"));
}

}  // namespace fastconv
