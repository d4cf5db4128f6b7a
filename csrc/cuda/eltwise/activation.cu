// Activations, their gradients, and the differences that the squared error is made of.
#include "core/map.h"
#include "cuda/eltwise/eltwise.h"
#include "cuda/eltwise/functions.h"
#include "cuda/nest.h"

namespace fastconv {
namespace cuda {
namespace {

// Of a gradient a is the output's gradient, and b what was saved.
template <class T>
FASTCONV_DEVICE T mapped(Map map, T a, T b, T parameter) {
  switch (map) {
    case Map::relu:
      return relu(a);
    case Map::leaky_relu:
      return leaky_relu(a, parameter);
    case Map::elu:
      return elu(a, parameter);
    case Map::sigmoid:
      return sigmoid(a);
    case Map::tanh:
      return std::tanh(a);
    case Map::step:
      return a > T(0) ? T(1) : relu(a);
    case Map::relu_backward:
      return b <= T(0) ? T(0) : a;
    case Map::leaky_relu_backward:
      return b > T(0) ? a : a * parameter;
    case Map::elu_backward:
      return b > T(0) ? a : a * (parameter * std::exp(b));
    case Map::sigmoid_backward:
      return a * (b * (T(1) - b));
    case Map::tanh_backward:
      return a * ((T(1) - b) * (T(1) + b));
    case Map::squared_difference:
      return (a - b) * (a - b);
    case Map::sum:
      return a + b;
    case Map::relu_of_sum:
      return relu(a + b);
    default:
      return parameter * (a - b);
  }
}

template <class S>
__global__ void map_kernel(Map map, Nest<3> nest, const S* a, const S* b, S* y, double parameter) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < nest.size; i += dev::step()) {
    Index at[3];
    nest.offsets(i, at);
    const T second = b ? dev::load(b + at[1]) : T(0);
    dev::store(y + at[2], mapped(map, dev::load(a + at[0]), second, static_cast<T>(parameter)));
  }
}

}  // namespace

void eltwise(const Queue& queue, const std::string& name, const Operand& a, const Operand& b, const Operand& y,
             double parameter) {
  const Map map = map_by_name(name);
  require_shape(b, a.shape, "b");
  require_shape(y, a.shape, "y");
  const Operand* const arrays[] = {&a, &b, &y};
  const Nest<3> nest = nest_of<3>(a.shape, arrays);
  if (nest.size == 0) return;
  dispatch_storage(a.dtype(), [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(nest.size), map_kernel<S>, map, nest, static_cast<const S*>(a.data),
           static_cast<const S*>(b.data), static_cast<S*>(y.data), parameter);
  });
}

}  // namespace cuda
}  // namespace fastconv
