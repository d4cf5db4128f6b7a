// Pooling over windows and whole planes. Results follow the memory order of the argument and are seen in its data
// format.
#include "bindings/pool_args.h"
#include "ops/pool.h"

namespace fastconv {
namespace {

PoolOp parse_op(const std::string& op) {
  if (op == "max") return PoolOp::max;
  if (op == "min") return PoolOp::min;
  if (op == "avg") return PoolOp::avg;
  fail("op: expected 'max', 'min' or 'avg', got '" + op + "'");
}

PoolResult new_pairs(const py::dtype& dtype, std::int64_t batch, std::int64_t channels) {
  const std::vector<py::ssize_t> sizes{static_cast<py::ssize_t>(batch), static_cast<py::ssize_t>(channels)};
  PoolResult result{new_array(dtype, sizes), py::none()};
  result.seen = result.memory;
  return result;
}

// (N, C) as a batch of images of one position.
ArrayView pair_view(const py::array& array, const char* name) {
  if (array.ndim() != 2) fail(std::string(name) + ": expected 2 dimensions, got " + std::to_string(array.ndim()));
  const int axes[kRank] = {0, 1, -1, -1, -1};
  return view_with_axes(array, name, axes);
}

py::object forward(const std::string& op_name, const py::array& x_array, const PoolWindowArgs& window,
                   bool channels_last, bool return_indices) {
  const PoolOp op = parse_op(op_name);
  const ArrayView x = image_view(x_array, "x", channels_last);
  const int spatial = static_cast<int>(x_array.ndim()) - 2;
  const PoolShape shape = make_pool_shape(x.shape, spatial, window);
  const bool lanes = pool_in_lanes(x), indexed = return_indices && op != PoolOp::avg;
  PoolResult y = new_pool_output(x.dtype, shape, spatial, lanes, channels_last), indices;
  if (indexed) indices = new_pool_indices(shape, spatial, lanes, channels_last);
  void* const y_data = y.data();
  auto* const places = indexed ? static_cast<std::int64_t*>(indices.data()) : nullptr;
  {
    const py::gil_scoped_release unlocked;
    pool_forward(op, x, shape, lanes, y_data, places);
  }
  if (indexed) return py::make_tuple(y.seen, indices.seen);
  return y.seen;
}

py::object avg_backward(const py::array& gradient, const PoolSizes& input_shape, const PoolWindowArgs& window,
                        bool channels_last) {
  const ArrayView g = image_view(gradient, "grad_output", channels_last);
  std::int64_t input[kRank];
  int spatial = 0;
  parse_pool_shape(input_shape, channels_last, input, spatial);
  if (spatial != static_cast<int>(gradient.ndim()) - 2) fail("input_shape: expected grad_output's number of sizes");
  const PoolShape shape = make_pool_shape(input, spatial, window);
  require_pool_output(g, shape, "grad_output");
  const bool lanes = gradient_in_lanes(g, channels_last) && g.stride[1] == 1;
  PoolResult result = new_pool_result(numpy_dtype(g.dtype), input, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    avg_pool_backward(g, shape, lanes, data);
  }
  return result.seen;
}

py::object indices_backward(const ArrayView& g, const View<const std::int64_t>& indices, const PoolSizes& input_shape,
                            bool channels_last) {
  std::int64_t input[kRank];
  int spatial = 0;
  parse_pool_shape(input_shape, channels_last, input, spatial);
  if (input[0] != g.shape[0] || input[1] != g.shape[1])
    fail("input_shape: its batch and channels are not grad_output's");
  const std::int64_t positions = product_of_spatial(input);
  const bool lanes = gradient_in_lanes(g, channels_last);
  PoolResult result = new_pool_result(numpy_dtype(g.dtype), input, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    pool_backward_from_indices(g, indices, positions, lanes, data);
  }
  return result.seen;
}

py::object power_forward(const py::array& x_array, double exponent, bool mean, const PoolWindowArgs& window,
                         bool channels_last) {
  const ArrayView x = image_view(x_array, "x", channels_last);
  const int spatial = static_cast<int>(x_array.ndim()) - 2;
  const PoolShape shape = make_pool_shape(x.shape, spatial, window);
  const bool lanes = pool_in_lanes(x);
  PoolResult y = new_pool_output(x.dtype, shape, spatial, lanes, channels_last);
  void* const y_data = y.data();
  {
    const py::gil_scoped_release unlocked;
    power_pool_forward(exponent, mean, x, shape, lanes, y_data);
  }
  return y.seen;
}

py::object power_backward(const py::array& gradient, const py::array& x_array, const py::array& y_array,
                          double exponent, bool mean, const PoolWindowArgs& window, bool channels_last) {
  const ArrayView g = image_view(gradient, "grad_output", channels_last), x = image_view(x_array, "x", channels_last),
                  y = image_view(y_array, "y", channels_last);
  if (x.dtype != g.dtype || y.dtype != g.dtype) throw py::type_error("grad_output, x, y: expected one dtype");
  if (gradient.ndim() != x_array.ndim() || y_array.ndim() != x_array.ndim())
    fail("grad_output, x, y: expected the same number of dimensions");
  const int spatial = static_cast<int>(x_array.ndim()) - 2;
  const PoolShape shape = make_pool_shape(x.shape, spatial, window);
  require_pool_output(g, shape, "grad_output");
  require_pool_output(y, shape, "y");
  const bool lanes = gradient_in_lanes(g, channels_last) && g.stride[1] == 1 && x.stride[1] == 1 && y.stride[1] == 1;
  PoolResult result = new_pool_result(numpy_dtype(g.dtype), x.shape, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    power_pool_backward(exponent, mean, g, x, y, shape, lanes, data);
  }
  return result.seen;
}

py::object global_forward(const std::string& op_name, const py::array& x_array, bool channels_last,
                          bool return_indices) {
  const PoolOp op = parse_op(op_name);
  if (op == PoolOp::min) fail("op: there is no global minimum");
  const ArrayView x = image_view(x_array, "x", channels_last);
  const bool indexed = return_indices && op == PoolOp::max;
  PoolResult y = new_pairs(numpy_dtype(x.dtype), x.shape[0], x.shape[1]), indices;
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

py::object global_avg_backward(const py::array& gradient, const PoolSizes& input_shape, bool channels_last) {
  const ArrayView g = pair_view(gradient, "grad_output");
  std::int64_t input[kRank];
  int spatial = 0;
  parse_pool_shape(input_shape, channels_last, input, spatial);
  if (input[0] != g.shape[0] || input[1] != g.shape[1])
    fail("input_shape: its batch and channels are not grad_output's");
  const std::int64_t positions = product_of_spatial(input);
  PoolResult result = new_pool_result(numpy_dtype(g.dtype), input, spatial, channels_last, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    if (positions > 0) global_avg_pool_backward(g, positions, channels_last, data);
  }
  return result.seen;
}

}  // namespace

void bind_pool(py::module_& module) {
  py::class_<PoolWindowArgs>(module, "PoolWindow")
      .def(py::init([](PoolSizes kernel, PoolSizes stride, PoolSizes dilation, PoolPairs padding, bool ceil_mode,
                       bool count_include_pad, std::int64_t divisor_override) {
             return PoolWindowArgs{std::move(kernel), std::move(stride), std::move(dilation), std::move(padding),
                                   ceil_mode,         count_include_pad, divisor_override};
           }),
           py::arg("kernel_size"), py::arg("stride"), py::arg("dilation"), py::arg("padding"), py::arg("ceil_mode"),
           py::arg("count_include_pad") = true, py::arg("divisor_override") = 0)
      .def_readonly("kernel_size", &PoolWindowArgs::kernel)
      .def_readonly("stride", &PoolWindowArgs::stride)
      .def_readonly("dilation", &PoolWindowArgs::dilation)
      .def_readonly("padding", &PoolWindowArgs::padding)
      .def_readonly("ceil_mode", &PoolWindowArgs::ceil_mode)
      .def_readonly("count_include_pad", &PoolWindowArgs::count_include_pad)
      .def_readonly("divisor_override", &PoolWindowArgs::divisor_override);
  module.def(
      "pool_output_shape",
      [](const PoolWindowArgs& window, const PoolSizes& sizes) {
        std::int64_t input[kRank] = {1, 1, 1, 1, 1};
        if (sizes.empty() || sizes.size() > kSpatial) fail("sizes: expected 1 to 3");
        const std::size_t unused = kSpatial - sizes.size();
        for (std::size_t i = 0; i < sizes.size(); ++i) input[2 + unused + i] = sizes[i];
        const PoolShape shape = make_pool_shape(input, static_cast<int>(sizes.size()), window);
        PoolSizes out;
        for (std::size_t i = unused; i < kSpatial; ++i) out.push_back(shape.axis[i].out);
        return out;
      },
      py::arg("window"), py::arg("sizes"));
  module.def("pool", &forward, py::arg("op"), py::arg("x"), py::arg("window"), py::arg("channels_last"),
             py::arg("return_indices"));
  module.def("avg_pool_backward", &avg_backward, py::arg("grad_output"), py::arg("input_shape"), py::arg("window"),
             py::arg("channels_last"));
  module.def("power_pool", &power_forward, py::arg("x"), py::arg("exponent"), py::arg("mean"), py::arg("window"),
             py::arg("channels_last"));
  module.def("power_pool_backward", &power_backward, py::arg("grad_output"), py::arg("x"), py::arg("y"),
             py::arg("exponent"), py::arg("mean"), py::arg("window"), py::arg("channels_last"));
  module.def(
      "pool_backward_from_indices",
      [](const py::array& gradient, const py::array& indices, const PoolSizes& input_shape, bool channels_last) {
        const ArrayView g = image_view(gradient, "grad_output", channels_last);
        const auto spatial = static_cast<int>(gradient.ndim()) - 2;
        return indices_backward(g, pool_index_view(indices, channels_last, &g, spatial), input_shape, channels_last);
      },
      py::arg("grad_output"), py::arg("indices"), py::arg("input_shape"), py::arg("channels_last"));
  module.def("global_pool", &global_forward, py::arg("op"), py::arg("x"), py::arg("channels_last"),
             py::arg("return_indices"));
  module.def("global_avg_pool_backward", &global_avg_backward, py::arg("grad_output"), py::arg("input_shape"),
             py::arg("channels_last"));
  module.def(
      "global_max_pool_backward",
      [](const py::array& gradient, const py::array& indices, const PoolSizes& input_shape, bool channels_last) {
        const ArrayView g = pair_view(gradient, "grad_output");
        return indices_backward(g, pool_index_view(indices, false, &g, 0), input_shape, channels_last);
      },
      py::arg("grad_output"), py::arg("indices"), py::arg("input_shape"), py::arg("channels_last"));
}

}  // namespace fastconv
