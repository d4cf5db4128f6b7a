#include "bindings/pool_args.h"

#include "ops/pool.h"

namespace fastconv {

PoolShape make_pool_shape(const std::int64_t (&input)[kRank], int spatial, const PoolWindowArgs& window) {
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

void parse_pool_shape(const PoolSizes& shape, bool channels_last, std::int64_t (&canonical)[kRank], int& spatial) {
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

PoolResult new_pool_result(const py::dtype& dtype, const std::int64_t (&shape)[kRank], int spatial, bool lanes,
                           bool channels_last) {
  std::vector<py::ssize_t> sizes{static_cast<py::ssize_t>(shape[0])};
  if (!lanes) sizes.push_back(static_cast<py::ssize_t>(shape[1]));
  for (int i = kRank - spatial; i < kRank; ++i) sizes.push_back(static_cast<py::ssize_t>(shape[i]));
  if (lanes) sizes.push_back(static_cast<py::ssize_t>(shape[1]));
  PoolResult result{new_array(dtype, sizes), py::none()};
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

namespace {

PoolResult new_window_results(const py::dtype& dtype, const PoolShape& shape, int spatial, bool lanes,
                              bool channels_last) {
  const std::int64_t out[kRank] = {shape.batch, shape.channels, shape.axis[0].out, shape.axis[1].out,
                                   shape.axis[2].out};
  return new_pool_result(dtype, out, spatial, lanes, channels_last);
}

}  // namespace

PoolResult new_pool_output(Dtype dtype, const PoolShape& shape, int spatial, bool lanes, bool channels_last) {
  return new_window_results(numpy_dtype(dtype), shape, spatial, lanes, channels_last);
}

PoolResult new_pool_indices(const PoolShape& shape, int spatial, bool lanes, bool channels_last) {
  return new_window_results(py::dtype::of<std::int64_t>(), shape, spatial, lanes, channels_last);
}

void require_pool_output(const ArrayView& array, const PoolShape& shape, const char* name) {
  bool fits = array.shape[0] == shape.batch && array.shape[1] == shape.channels;
  for (int i = 0; i < kSpatial; ++i) fits = fits && array.shape[2 + i] == shape.axis[i].out;
  if (!fits) fail(std::string(name) + ": its shape is not that of the pool's output");
}

View<const std::int64_t> pool_index_view(const py::array& array, bool channels_last, const ArrayView* like,
                                         int spatial) {
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
  for (int i = 0; i < kRank && like; ++i) fits = fits && view.shape[i] == like->shape[i];
  if (!fits) fail("indices: expected an aligned array that has the shape of the values");
  return view;
}

std::int64_t product_of_spatial(const std::int64_t (&shape)[kRank]) {
  std::int64_t product = 1;
  for (int i = 2; i < kRank; ++i)
    if (__builtin_mul_overflow(product, shape[i], &product)) fail("input_shape: too large");
  return product;
}

bool gradient_in_lanes(const ArrayView& grad_output, bool channels_last) {
  return product_of_spatial(grad_output.shape) == 1 ? channels_last : pool_in_lanes(grad_output);
}

}  // namespace fastconv
