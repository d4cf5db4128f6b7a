// The elementwise maps: activations, their gradients, the differences that the squared error is made of, and the sums
// that end a residual block.
#pragma once

#include <string>

namespace fastconv {

enum class Map : int {
  relu,
  leaky_relu,
  elu,
  sigmoid,
  tanh,
  step,                 // 1 where positive, else 0
  relu_backward,        // of (grad_output, y)
  leaky_relu_backward,  // of (grad_output, x), as elu's
  elu_backward,
  sigmoid_backward,
  tanh_backward,
  squared_difference,
  scaled_difference,
  sum,
  relu_of_sum,
};
constexpr int kMapCount = 15;

Map map_by_name(const std::string& name);

}  // namespace fastconv
