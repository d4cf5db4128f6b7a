// The two steps of norms on device arrays. Statistics are contiguous float64 arrays, one number a set.
#include <algorithm>

#include "bindings/cuda/args.h"
#include "cuda/norm/norm.h"

namespace fastconv {
namespace cuda {
namespace {

// x (N, C) or an image batch, and others of its shape and dtype.
struct Images {
  bool last;
  ArrayView x;

  Images(const py::handle& described, bool channels_last) : last(channels_last), x(image(described, "x", last, true)) {}
  ArrayView like(const py::handle& described, const char* name) const {
    const ArrayView view = image(described, name, last, true);
    require_dtype(view, x.dtype, name);
    if (!std::equal(view.shape, view.shape + kRank, x.shape)) fail(std::string(name) + ": expected x's shape");
    return view;
  }
  ArrayView channels(const py::handle& described, const char* name) const {
    return channel_vector(described, name, x.dtype, x.shape[1]);
  }
  Sets sets(Index groups, bool per_sample) const {
    if (groups < 0 || (groups == 0 && x.shape[1] != 0) || (groups > 0 && x.shape[1] % groups != 0))
      fail("num_groups: " + std::to_string(groups) + " does not divide " + std::to_string(x.shape[1]) + " channels");
    return {groups, per_sample};
  }
};

}  // namespace

void bind_norm(py::module_& module) {
  module.def("moments", [](const py::handle& where, const py::handle& x_, bool last, Index groups, bool per_sample,
                           const py::handle& mean, const py::handle& variance) {
    const Images images(x_, last);
    const Sets sets = images.sets(groups, per_sample);
    const Index count = sets.count(images.x);
    const Call call(where);
    moments(call.queue(), images.x, sets, numbers(mean, "mean", count), numbers(variance, "variance", count));
  });
  module.def("products", [](const py::handle& where, const py::handle& grad_output, const py::handle& x_, bool last,
                            Index groups, bool per_sample, Index statistic_groups, bool statistic_per_sample,
                            const py::handle& mean, const py::handle& scale, const py::handle& weight,
                            const py::handle& sum, const py::handle& dot) {
    const Images images(x_, last);
    const Sets sets = images.sets(groups, per_sample), statistics = images.sets(statistic_groups, statistic_per_sample);
    const Index count = sets.count(images.x), known = statistics.count(images.x);
    const Call call(where);
    products(call.queue(), images.like(grad_output, "grad_output"), images.x, sets, statistics,
             numbers(mean, "mean", known), numbers(scale, "scale", known), images.channels(weight, "weight"),
             numbers(sum, "sum", count), numbers(dot, "dot", count));
  });
  module.def("normalise", [](const py::handle& where, const py::handle& x_, const py::handle& y, bool last,
                             Index groups, bool per_sample, const py::handle& mean, const py::handle& scale,
                             const py::handle& weight, const py::handle& bias) {
    const Images images(x_, last);
    const Sets sets = images.sets(groups, per_sample);
    const Index count = sets.count(images.x);
    const Call call(where);
    normalise(call.queue(), images.x, images.like(y, "y"), sets, numbers(mean, "mean", count),
              numbers(scale, "scale", count), images.channels(weight, "weight"), images.channels(bias, "bias"));
  });
  module.def("coefficients",
             [](const py::handle& where, double count, const py::handle& sum, const py::handle& dot,
                const py::handle& inverse, const py::handle& weight, const py::handle& slope, const py::handle& shift) {
               const Index sets = operand(sum, "sum").size();
               ArrayView factor;
               if (!weight.is_none())
                 factor = channel_vector(weight, "weight", number_operand(weight, "weight").dtype(), sets);
               const Call call(where);
               coefficients(call.queue(), sets, count, numbers(sum, "sum", sets), numbers(dot, "dot", sets),
                            numbers(inverse, "inverse", sets), factor, numbers(slope, "slope", sets),
                            numbers(shift, "shift", sets));
             });
  module.def("normalise_backward",
             [](const py::handle& where, const py::handle& grad_output, const py::handle& x_,
                const py::handle& grad_input, bool last, Index groups, bool per_sample, const py::handle& mean,
                const py::handle& scale, const py::handle& slope, const py::handle& shift, const py::handle& weight) {
               const Images images(x_, last);
               const Sets sets = images.sets(groups, per_sample);
               const Index count = sets.count(images.x);
               const Call call(where);
               normalise_backward(call.queue(), images.like(grad_output, "grad_output"), images.x,
                                  images.like(grad_input, "grad_input"), sets, numbers(mean, "mean", count),
                                  numbers(scale, "scale", count), numbers(slope, "slope", count),
                                  numbers(shift, "shift", count), images.channels(weight, "weight"));
             });
}

}  // namespace cuda
}  // namespace fastconv
