// Pooling. Results follow the memory order of the argument and are seen in its data format.
#include <pybind11/stl.h>

#include <string>

#include "bindings/array_args.h"
#include "ops/pool.h"

namespace fastconv {
namespace {

using Sizes = std::vector<std::int64_t>;
using Pairs = std::vector<std::pair<std::int64_t, std::int64_t>>;

PoolOp parse_op(const std::string& op) {
  if (op == "max") return PoolOp::max;
  if (op == "min") return PoolOp::min;
  if (op == "avg") return PoolOp::avg;
  fail("op: expected 'max', 'min' or 'avg', got '" + op + "'");
}

// The window as one value, so that forward and backward check it alike.
struct WindowArgs {
  Sizes kernel, stride, dilation;
  Pairs padding;
  bool ceil_mode, count_include_pad;
  std::int64_t divisor_override;
};

PoolShape make_shape(const std::int64_t (&input)[kRank], int spatial, const WindowArgs& window) {
  const std::size_t n = static_cast<std::size_t>(spatial);
  if (window.kernel.size() != n || window.stride.size() != n || window.dilation.size() != n ||
      window.padding.size() != n)
    fail("kernel_size, stride, dilation, padding: expected " + std::to_string(n) + " entries each");
  PoolShape shape{};
  shape.batch = input[0];
  shape.channels = input[1];
  shape.count_include_pad = window.count_include_pad;
  shape.divisor_override = window.divisor_override;
  for (int i = 0; i < kSpatial; ++i) shape.axis[i] = PoolAxis{input[2 + i], 1, 1, 1, 1, 0, 0};
  for (std::size_t i = 0; i < n; ++i) {
    PoolAxis& axis = shape.axis[static_cast<std::size_t>(kSpatial) - n + i];
    axis.kernel = window.kernel[i];
    axis.stride = window.stride[i];
    axis.dilation = window.dilation[i];
    axis.pad_before = window.padding[i].first;
    axis.pad_after = window.padding[i].second;
  }
  complete_pool_shape(shape, window.ceil_mode);
  return shape;
}

// The canonical shape of a shape in a data format.
void parse_shape(const Sizes& shape, bool channels_last, std::int64_t (&canonical)[kRank], int& spatial) {
  spatial = static_cast<int>(shape.size()) - 2;
  if (spatial < 1 || spatial > kSpatial) fail("input_shape: expected 3 to 5 sizes, got " + std::to_string(spatial + 2));
  for (std::int64_t& extent : canonical) extent = 1;
  for (std::int64_t extent : shape)
    if (extent < 0) fail("input_shape: must not be negative, got " + std::to_string(extent));
  canonical[0] = shape.front();
  canonical[1] = channels_last ? shape.back() : shape[1];
  for (int i = 0; i < spatial; ++i)
    canonical[kRank - spatial + i] = shape[static_cast<std::size_t>((channels_last ? 1 : 2) + i)];
}

// A fresh array whose memory has the channels last (`lanes`) or first, seen in the data format.
struct Result {
  py::array memory;
  py::object seen;
  void* data() { return memory.mutable_data(); }
};

Result new_result(const py::dtype& dtype, const std::int64_t (&shape)[kRank], int spatial, bool lanes,
                  bool channels_last) {
  std::vector<py::ssize_t> sizes{static_cast<py::ssize_t>(shape[0])};
  if (!lanes) sizes.push_back(static_cast<py::ssize_t>(shape[1]));
  for (int i = kRank - spatial; i < kRank; ++i) sizes.push_back(static_cast<py::ssize_t>(shape[i]));
  if (lanes) sizes.push_back(static_cast<py::ssize_t>(shape[1]));
  Result result{py::array(dtype, sizes), py::none()};
  if (lanes == channels_last) {
    result.seen = result.memory;
    return result;
  }
  py::list axes;
  axes.append(0);
  if (lanes) axes.append(spatial + 1);
  for (int i = 0; i < spatial; ++i) axes.append((channels_last ? 2 : 1) + i);
  if (channels_last) axes.append(1);
  result.seen = result.memory.attr("transpose")(axes);
  return result;
}

Result new_pairs(const py::dtype& dtype, std::int64_t batch, std::int64_t channels) {
  const std::vector<py::ssize_t> sizes{static_cast<py::ssize_t>(batch), static_cast<py::ssize_t>(channels)};
  Result result{py::array(dtype, sizes), py::none()};
  result.seen = result.memory;
  return result;
}

// (N, C) as a batch of images of one position.
ArrayView pair_view(const py::array& array, const char* name) {
  if (array.ndim() != 2) fail(std::string(name) + ": expected 2 dimensions, got " + std::to_string(array.ndim()));
  const int axes[kRank] = {0, 1, -1, -1, -1};
  return view_with_axes(array, name, axes);
}

View<const std::int64_t> index_view(const py::array& array, bool channels_last, const ArrayView& like, int spatial) {
  if (!py::isinstance<py::array_t<std::int64_t>>(array)) throw py::type_error("indices: expected int64");
  View<const std::int64_t> view;
  view.data = static_cast<const std::int64_t*>(array.data());
  bool fits = array.ndim() == spatial + 2 && reinterpret_cast<std::uintptr_t>(view.data) % sizeof(std::int64_t) == 0;
  for (int i = 0; fits && i < spatial + 2; ++i) {
    // The canonical axis of the array's axis i.
    const int last = spatial + 1;
    const int axis = i == 0          ? 0
                     : channels_last ? (i == last ? 1 : kRank - spatial + i - 1)
                                     : (i == 1 ? 1 : kRank - spatial + i - 2);
    view.shape[axis] = array.shape(i);
    view.stride[axis] = array.strides(i) / static_cast<py::ssize_t>(sizeof(std::int64_t));
    fits = array.strides(i) % static_cast<py::ssize_t>(sizeof(std::int64_t)) == 0;
  }
  for (int i = 0; i < kRank; ++i) fits = fits && view.shape[i] == like.shape[i];
  if (!fits) fail("indices: expected an aligned array of grad_output's shape");
  return view;
}

std::int64_t product_of_spatial(const std::int64_t (&shape)[kRank]) {
  std::int64_t product = 1;
  for (int i = 2; i < kRank; ++i)
    if (__builtin_mul_overflow(product, shape[i], &product)) fail("input_shape: too large");
  return product;
}

// The memory order of an input's gradient: that of the output's, or of the data format where a single output
// position leaves it open.
bool gradient_in_lanes(const ArrayView& grad_output, bool channels_last) {
  return product_of_spatial(grad_output.shape) == 1 ? channels_last : pool_in_lanes(grad_output);
}

py::object forward(const std::string& op_name, const py::array& x_array, const WindowArgs& window, bool channels_last,
                   bool return_indices) {
  const PoolOp op = parse_op(op_name);
  const ArrayView x = image_view(x_array, "x", channels_last);
  const int spatial = static_cast<int>(x_array.ndim()) - 2;
  const PoolShape shape = make_shape(x.shape, spatial, window);
  const std::int64_t out[kRank] = {shape.batch, shape.channels, shape.axis[0].out, shape.axis[1].out,
                                   shape.axis[2].out};
  const bool lanes = pool_in_lanes(x), indexed = return_indices && op != PoolOp::avg;
  Result y = new_result(numpy_dtype(x.dtype), out, spatial, lanes, channels_last), indices;
  if (indexed) indices = new_result(py::dtype::of<std::int64_t>(), out, spatial, lanes, channels_last);
  void* const y_data = y.data();
  auto* const places = indexed ? static_cast<std::int64_t*>(indices.data()) : nullptr;
  {
    const py::gil_scoped_release unlocked;
    pool_forward(op, x, shape, lanes, y_data, places);
  }
  if (indexed) return py::make_tuple(y.seen, indices.seen);
  return y.seen;
}

py::object avg_backward(const py::array& gradient, const Sizes& input_shape, const WindowArgs& window,
                        bool channels_last) {
  const ArrayView g = image_view(gradient, "grad_output", channels_last);
  std::int64_t input[kRank];
  int spatial = 0;
  parse_shape(input_shape, channels_last, input, spatial);
  if (spatial != static_cast<int>(gradient.ndim()) - 2) fail("input_shape: expected grad_output's number of sizes");
  const PoolShape shape = make_shape(input, spatial, window);
  const std::int64_t out[kRank] = {shape.batch, shape.channels, shape.axis[0].out, shape.axis[1].out,
                                   shape.axis[2].out};
  for (int i = 0; i < kRank; ++i)
    if (g.shape[i] != out[i]) fail("grad_output: its shape is not that of the pool's output");
  const bool lanes = gradient_in_lanes(g, channels_last) && g.stride[1] == 1;
  Result result = new_result(numpy_dtype(g.dtype), input, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    avg_pool_backward(g, shape, lanes, data);
  }
  return result.seen;
}

py::object indices_backward(const ArrayView& g, const View<const std::int64_t>& indices, const Sizes& input_shape,
                            bool channels_last) {
  std::int64_t input[kRank];
  int spatial = 0;
  parse_shape(input_shape, channels_last, input, spatial);
  if (input[0] != g.shape[0] || input[1] != g.shape[1])
    fail("input_shape: its batch and channels are not grad_output's");
  const std::int64_t positions = product_of_spatial(input);
  const bool lanes = gradient_in_lanes(g, channels_last);
  Result result = new_result(numpy_dtype(g.dtype), input, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    pool_backward_from_indices(g, indices, positions, lanes, data);
  }
  return result.seen;
}

py::object global_forward(const std::string& op_name, const py::array& x_array, bool channels_last,
                          bool return_indices) {
  const PoolOp op = parse_op(op_name);
  if (op == PoolOp::min) fail("op: there is no global minimum");
  const ArrayView x = image_view(x_array, "x", channels_last);
  const bool indexed = return_indices && op == PoolOp::max;
  Result y = new_pairs(numpy_dtype(x.dtype), x.shape[0], x.shape[1]), indices;
  if (indexed) indices = new_pairs(py::dtype::of<std::int64_t>(), x.shape[0], x.shape[1]);
  void* const y_data = y.data();
  auto* const places = indexed ? static_cast<std::int64_t*>(indices.data()) : nullptr;
  {
    const py::gil_scoped_release unlocked;
    global_pool_forward(op, x, pool_in_lanes(x), y_data, places);
  }
  if (indexed) return py::make_tuple(y.seen, indices.seen);
  return y.seen;
}

py::object global_avg_backward(const py::array& gradient, const Sizes& input_shape, bool channels_last) {
  const ArrayView g = pair_view(gradient, "grad_output");
  std::int64_t input[kRank];
  int spatial = 0;
  parse_shape(input_shape, channels_last, input, spatial);
  if (input[0] != g.shape[0] || input[1] != g.shape[1])
    fail("input_shape: its batch and channels are not grad_output's");
  const std::int64_t positions = product_of_spatial(input);
  Result result = new_result(numpy_dtype(g.dtype), input, spatial, channels_last, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    if (positions > 0) global_avg_pool_backward(g, positions, channels_last, data);
  }
  return result.seen;
}

}  // namespace

void bind_pool(py::module_& module) {
  py::class_<WindowArgs>(module, "PoolWindow")
      .def(py::init([](Sizes kernel, Sizes stride, Sizes dilation, Pairs padding, bool ceil_mode,
                       bool count_include_pad, std::int64_t divisor_override) {
             return WindowArgs{std::move(kernel), std::move(stride), std::move(dilation), std::move(padding),
                               ceil_mode,         count_include_pad, divisor_override};
           }),
           py::arg("kernel_size"), py::arg("stride"), py::arg("dilation"), py::arg("padding"), py::arg("ceil_mode"),
           py::arg("count_include_pad") = true, py::arg("divisor_override") = 0);
  module.def(
      "pool_output_shape",
      [](const WindowArgs& window, const Sizes& sizes) {
        std::int64_t input[kRank] = {1, 1, 1, 1, 1};
        if (sizes.empty() || sizes.size() > kSpatial) fail("sizes: expected 1 to 3");
        const std::size_t unused = kSpatial - sizes.size();
        for (std::size_t i = 0; i < sizes.size(); ++i) input[2 + unused + i] = sizes[i];
        const PoolShape shape = make_shape(input, static_cast<int>(sizes.size()), window);
        Sizes out;
        for (std::size_t i = unused; i < kSpatial; ++i) out.push_back(shape.axis[i].out);
        return out;
      },
      py::arg("window"), py::arg("sizes"));
  module.def("pool", &forward, py::arg("op"), py::arg("x"), py::arg("window"), py::arg("channels_last"),
             py::arg("return_indices"));
  module.def("avg_pool_backward", &avg_backward, py::arg("grad_output"), py::arg("input_shape"), py::arg("window"),
             py::arg("channels_last"));
  module.def(
      "pool_backward_from_indices",
      [](const py::array& gradient, const py::array& indices, const Sizes& input_shape, bool channels_last) {
        const ArrayView g = image_view(gradient, "grad_output", channels_last);
        const auto spatial = static_cast<int>(gradient.ndim()) - 2;
        return indices_backward(g, index_view(indices, channels_last, g, spatial), input_shape, channels_last);
      },
      py::arg("grad_output"), py::arg("indices"), py::arg("input_shape"), py::arg("channels_last"));
  module.def("global_pool", &global_forward, py::arg("op"), py::arg("x"), py::arg("channels_last"),
             py::arg("return_indices"));
  module.def("global_avg_pool_backward", &global_avg_backward, py::arg("grad_output"), py::arg("input_shape"),
             py::arg("channels_last"));
  module.def(
      "global_max_pool_backward",
      [](const py::array& gradient, const py::array& indices, const Sizes& input_shape, bool channels_last) {
        const ArrayView g = pair_view(gradient, "grad_output");
        return indices_backward(g, index_view(indices, false, g, 0), input_shape, channels_last);
      },
      py::arg("grad_output"), py::arg("indices"), py::arg("input_shape"), py::arg("channels_last"));
}

}  // namespace fastconv
