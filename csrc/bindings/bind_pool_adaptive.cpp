// Adaptive pooling and unpooling. Results follow the memory order of the argument and are seen in its data format.
#include "bindings/pool_args.h"
#include "ops/pool.h"

namespace fastconv {
namespace {

PoolShape adaptive_shape(const std::int64_t (&input)[kRank], int spatial, const PoolSizes& output_size) {
  if (output_size.size() != static_cast<std::size_t>(spatial))
    fail("output_size: expected " + std::to_string(spatial) + " sizes, got " + std::to_string(output_size.size()));
  PoolShape shape{};
  shape.batch = input[0];
  shape.channels = input[1];
  for (int i = 0; i < kSpatial; ++i) {
    const int given = i - (kSpatial - spatial);
    const std::int64_t in = input[2 + i], out = given < 0 ? 1 : output_size[static_cast<std::size_t>(given)];
    if (in < 1) fail("x: has no spatial positions");
    if (out < 1) fail("output_size: expected at least 1, got " + std::to_string(out));
    // The bounds of bins are products of both sizes.
    if (out > (std::int64_t{1} << 30) || in > (std::int64_t{1} << 62) / (out + 1))
      fail("output_size: got " + std::to_string(out) + ", too large for an input of " + std::to_string(in));
    shape.axis[i] = PoolAxis{in, out, 1, 1, 1, 0, 0};
  }
  return shape;
}

py::object forward(const py::array& x_array, const PoolSizes& output_size, bool maximum, bool channels_last,
                   bool return_indices) {
  const ArrayView x = image_view(x_array, "x", channels_last);
  const int spatial = static_cast<int>(x_array.ndim()) - 2;
  const PoolShape shape = adaptive_shape(x.shape, spatial, output_size);
  const bool lanes = pool_in_lanes(x), indexed = return_indices && maximum;
  PoolResult y = new_pool_output(x.dtype, shape, spatial, lanes, channels_last), indices;
  if (indexed) indices = new_pool_indices(shape, spatial, lanes, channels_last);
  void* const y_data = y.data();
  auto* const places = indexed ? static_cast<std::int64_t*>(indices.data()) : nullptr;
  {
    const py::gil_scoped_release unlocked;
    adaptive_pool_forward(maximum ? PoolOp::max : PoolOp::avg, x, shape, lanes, y_data, places);
  }
  if (indexed) return py::make_tuple(y.seen, indices.seen);
  return y.seen;
}

py::object avg_backward(const py::array& gradient, const PoolSizes& input_shape, bool channels_last) {
  const ArrayView g = image_view(gradient, "grad_output", channels_last);
  std::int64_t input[kRank];
  int spatial = 0;
  parse_pool_shape(input_shape, channels_last, input, spatial);
  if (spatial != static_cast<int>(gradient.ndim()) - 2) fail("input_shape: expected grad_output's number of sizes");
  const PoolSizes out(g.shape + kRank - spatial, g.shape + kRank);
  const PoolShape shape = adaptive_shape(input, spatial, out);
  require_pool_output(g, shape, "grad_output");
  const bool lanes = gradient_in_lanes(g, channels_last) && g.stride[1] == 1;
  PoolResult result = new_pool_result(numpy_dtype(g.dtype), input, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    adaptive_avg_pool_backward(g, shape, lanes, data);
  }
  return result.seen;
}

py::object unpool_forward(const py::array& x_array, const py::array& indices, const PoolSizes& output_shape,
                          bool channels_last) {
  const ArrayView x = image_view(x_array, "x", channels_last);
  const int spatial = static_cast<int>(x_array.ndim()) - 2;
  const View<const std::int64_t> places = pool_index_view(indices, channels_last, &x, spatial);
  std::int64_t output[kRank];
  int output_spatial = 0;
  parse_pool_shape(output_shape, channels_last, output, output_spatial);
  if (output_spatial != spatial || output[0] != x.shape[0] || output[1] != x.shape[1])
    fail("output_shape: expected the batch and channels of x");
  const std::int64_t positions = product_of_spatial(output);
  const bool lanes = gradient_in_lanes(x, channels_last);
  PoolResult result = new_pool_result(numpy_dtype(x.dtype), output, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    max_unpool_forward(x, places, positions, lanes, data);
  }
  return result.seen;
}

py::object unpool_backward(const py::array& gradient, const py::array& indices, bool channels_last) {
  const ArrayView g = image_view(gradient, "grad_output", channels_last);
  const int spatial = static_cast<int>(gradient.ndim()) - 2;
  const View<const std::int64_t> places = pool_index_view(indices, channels_last, nullptr, spatial);
  if (places.shape[0] != g.shape[0] || places.shape[1] != g.shape[1])
    fail("indices: expected the batch and channels of grad_output");
  const bool lanes = gradient_in_lanes(g, channels_last);
  PoolResult result = new_pool_result(numpy_dtype(g.dtype), places.shape, spatial, lanes, channels_last);
  void* const data = result.data();
  {
    const py::gil_scoped_release unlocked;
    max_unpool_backward(g, places, lanes, data);
  }
  return result.seen;
}

}  // namespace

void bind_pool_adaptive(py::module_& module) {
  module.def("adaptive_pool", &forward, py::arg("x"), py::arg("output_size"), py::arg("maximum"),
             py::arg("channels_last"), py::arg("return_indices"));
  module.def("adaptive_avg_pool_backward", &avg_backward, py::arg("grad_output"), py::arg("input_shape"),
             py::arg("channels_last"));
  module.def("max_unpool", &unpool_forward, py::arg("x"), py::arg("indices"), py::arg("output_shape"),
             py::arg("channels_last"));
  module.def("max_unpool_backward", &unpool_backward, py::arg("grad_output"), py::arg("indices"),
             py::arg("channels_last"));
}

}  // namespace fastconv
