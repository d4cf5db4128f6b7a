// Pooling on device arrays. Results are allocated by the caller; the number of spatial axes is theirs.
#include <algorithm>

#include "bindings/cuda/args.h"
#include "cuda/pool/pool.h"

namespace fastconv {
namespace cuda {
namespace {

// (kernel, stride, dilation, padding, ceil_mode, count_include_pad, divisor_override).
using Window = std::tuple<Sizes, Sizes, Sizes, Pads, bool, bool, Index>;

PoolOp parse_op(const std::string& op) {
  if (op == "max") return PoolOp::max;
  if (op == "min") return PoolOp::min;
  if (op == "avg") return PoolOp::avg;
  fail("op: expected 'max', 'min' or 'avg', got '" + op + "'");
}

PoolShape pool_shape(const ArrayView& x, const ArrayView& y, const Window& window) {
  const auto& [kernel, stride, dilation, padding, ceil_mode, count_include_pad, divisor] = window;
  const std::size_t n = kernel.size();
  if (n < 1 || n > kSpatial || stride.size() != n || dilation.size() != n || padding.size() != n)
    fail("kernel_size, stride, dilation, padding: expected 1 to 3 entries each");
  PoolShape shape{};
  shape.batch = x.shape[0];
  shape.channels = x.shape[1];
  shape.count_include_pad = count_include_pad;
  shape.divisor_override = divisor;
  for (std::size_t i = 0; i < kSpatial; ++i) {
    const std::size_t unused = kSpatial - n;
    const bool given = i >= unused;
    const std::size_t k = given ? i - unused : 0;
    shape.axis[i] = PoolAxis{x.shape[2 + i], 0, 1, 1, 1, 0, 0};
    if (given)
      shape.axis[i] = PoolAxis{x.shape[2 + i], 0, kernel[k], stride[k], dilation[k], padding[k][0], padding[k][1]};
  }
  complete_pool_shape(shape, ceil_mode);
  bool fits = y.shape[0] == x.shape[0] && y.shape[1] == x.shape[1];
  for (int axis = 0; axis < kSpatial; ++axis) fits = fits && shape.axis[axis].out == y.extent(axis);
  if (!fits) fail("y: its shape is not that of the pool's output");
  return shape;
}

void require_planes(const ArrayView& a, const ArrayView& b, const char* name) {
  require_dtype(b, a.dtype, name);
  if (a.shape[0] != b.shape[0] || a.shape[1] != b.shape[1])
    fail(std::string(name) + ": expected the batch and channels of the other array");
}

// Indices in the shape of `like`, or none.
Indices indices_like(const py::handle& described, const ArrayView& like, bool last) {
  if (described.is_none()) return {};
  const Indices indices = indices_image(described, "indices", last);
  if (!std::equal(indices.shape, indices.shape + kRank, like.shape)) fail("indices: expected the values' shape");
  return indices;
}

}  // namespace

void bind_pool(py::module_& module) {
  module.def("pool", [](const py::handle& where, const std::string& op, const py::handle& x_, const Window& window,
                        bool last, const py::handle& y_, const py::handle& indices) {
    const ArrayView x = image(x_, "x", last), y = image(y_, "y", last);
    const PoolShape shape = pool_shape(x, y, window);
    require_planes(x, y, "y");
    const Call call(where);
    pool_forward(call.queue(), parse_op(op), x, shape, y, indices_like(indices, y, last));
  });
  module.def("avg_pool_backward", [](const py::handle& where, const py::handle& grad_output, const Window& window,
                                     bool last, const py::handle& grad_input) {
    const ArrayView gy = image(grad_output, "grad_output", last), gx = image(grad_input, "grad_input", last);
    const PoolShape shape = pool_shape(gx, gy, window);
    require_planes(gx, gy, "grad_output");
    const Call call(where);
    avg_pool_backward(call.queue(), gy, shape, gx);
  });
  module.def("power_pool", [](const py::handle& where, const py::handle& x_, double exponent, bool mean,
                              const Window& window, bool last, const py::handle& y_) {
    const ArrayView x = image(x_, "x", last), y = image(y_, "y", last);
    const PoolShape shape = pool_shape(x, y, window);
    require_planes(x, y, "y");
    const Call call(where);
    power_pool_forward(call.queue(), exponent, mean, x, shape, y);
  });
  module.def("power_pool_backward",
             [](const py::handle& where, const py::handle& grad_output, const py::handle& x_, const py::handle& y_,
                double exponent, bool mean, const Window& window, bool last, const py::handle& grad_input) {
               const ArrayView gy = image(grad_output, "grad_output", last), x = image(x_, "x", last),
                               y = image(y_, "y", last), gx = image(grad_input, "grad_input", last);
               const PoolShape shape = pool_shape(x, y, window);
               require_planes(x, y, "y");
               require_planes(x, gy, "grad_output");
               pool_shape(gx, gy, window);
               require_planes(x, gx, "grad_input");
               const Call call(where);
               power_pool_backward(call.queue(), exponent, mean, gy, x, y, shape, gx);
             });
  module.def("adaptive_pool", [](const py::handle& where, const std::string& op, const py::handle& x_, bool last,
                                 const py::handle& y_, const py::handle& indices) {
    const ArrayView x = image(x_, "x", last), y = image(y_, "y", last);
    require_planes(x, y, "y");
    const Call call(where);
    adaptive_pool_forward(call.queue(), parse_op(op), x, y, indices_like(indices, y, last));
  });
  module.def("adaptive_avg_pool_backward",
             [](const py::handle& where, const py::handle& grad_output, bool last, const py::handle& grad_input) {
               const ArrayView gy = image(grad_output, "grad_output", last), gx = image(grad_input, "grad_input", last);
               require_planes(gx, gy, "grad_output");
               const Call call(where);
               adaptive_avg_pool_backward(call.queue(), gy, gx);
             });
  module.def("scatter", [](const py::handle& where, bool sum, const py::handle& values_, const py::handle& indices,
                           bool last, const py::handle& image_) {
    const ArrayView values = image(values_, "values", last), result = image(image_, "image", last);
    require_planes(values, result, "image");
    const Call call(where);
    scatter(call.queue(), sum, values, indices_like(indices, values, last), result);
  });
  module.def("gather", [](const py::handle& where, const py::handle& image_, const py::handle& indices, bool last,
                          const py::handle& values_) {
    const ArrayView values = image(values_, "values", last), from = image(image_, "image", last);
    require_planes(values, from, "image");
    const Call call(where);
    gather(call.queue(), from, indices_like(indices, values, last), values);
  });
}

}  // namespace cuda
}  // namespace fastconv
