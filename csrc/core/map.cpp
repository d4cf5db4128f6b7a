#include "core/map.h"

#include "core/error.h"

namespace fastconv {
namespace {

constexpr const char* kMapNames[kMapCount] = {"relu",
                                              "leaky_relu",
                                              "elu",
                                              "sigmoid",
                                              "tanh",
                                              "step",
                                              "relu_backward",
                                              "leaky_relu_backward",
                                              "elu_backward",
                                              "sigmoid_backward",
                                              "tanh_backward",
                                              "squared_difference",
                                              "scaled_difference",
                                              "sum",
                                              "relu_of_sum"};

}  // namespace

Map map_by_name(const std::string& name) {
  for (int i = 0; i < kMapCount; ++i)
    if (name == kMapNames[i]) return static_cast<Map>(i);
  fail("name: no map is called '" + name + "'");
}

}  // namespace fastconv
