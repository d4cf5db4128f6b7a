// The elementwise maps: activations, their gradients, and the differences that the squared error is made of.
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
};
constexpr int kMapCount = 13;

Map map_by_name(const std::string& name);

}  // namespace fastconv
