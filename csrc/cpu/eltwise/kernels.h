// Contract of the elementwise, softmax and dropout kernels: plain functions on dense runs of one dtype. An element's
// result depends on its own inputs only, never on its place in the run, so any cut of the work gives the same bits.
#pragma once

#include <cstdint>

#include "core/map.h"
#include "cpu/registry.h"

namespace fastconv {

// The binary cross entropy of logits x and targets t, elementwise, with weights w and p of positives (null: 1):
// w * ((1 - t) * softplus(x) + p * t * softplus(-x)), or its derivative by x, times `factor`.
using BinaryCrossEntropyFunction = void (*)(const void* x, const void* t, const void* w, const void* p, void* y,
                                            std::int64_t count, double factor);

// y[i] = map(a[i], b[i]); a map of one input gets a null b. `parameter` is the slope, alpha or factor where one exists.
using MapFunction = void (*)(const void* a, const void* b, void* y, std::int64_t count, double parameter);

struct ActivationKernel : KernelInfo {
  MapFunction maps[kMapCount];
  // Sum of (a[i] - b[i])^2, added in float64.
  double (*squared_error)(const void* a, const void* b, std::int64_t count);
  BinaryCrossEntropyFunction binary_cross_entropy, binary_cross_entropy_backward;
  // Sum in float64.
  double (*sum)(const void* x, std::int64_t count);
};

struct SoftmaxKernel : KernelInfo {
  // One distribution of `count` dense entries.
  void (*row)(const void* x, void* y, std::int64_t count, bool logarithm);
  void (*row_backward)(const void* grad_output, const void* y, void* grad_input, std::int64_t count, bool logarithm);
  // `positions` (at most kSoftmaxPositions) distributions side by side: entry c of distribution p lies at
  // c * stride + p, strides in elements.
  void (*columns)(const void* x, std::int64_t x_stride, void* y, std::int64_t y_stride, std::int64_t count,
                  std::int64_t positions, bool logarithm);
  void (*columns_backward)(const void* grad_output, std::int64_t g_stride, const void* y, std::int64_t y_stride,
                           void* grad_input, std::int64_t stride, std::int64_t count, std::int64_t positions,
                           bool logarithm);
};
constexpr int kSoftmaxPositions = 256;

struct DropoutKernel : KernelInfo {
  // keep[i] = (word `first + i` of the stream of `seed`) >= threshold; `first` is a multiple of 4.
  void (*draw)(std::uint64_t seed, std::int64_t first, std::int64_t count, std::uint64_t threshold, std::uint8_t* keep);
  // y[i] = keep[i] ? x[i] * scale : 0
  void (*apply)(const void* x, const std::uint8_t* keep, void* y, std::int64_t count, double scale);
};

#define FASTCONV_DECLARE_ELTWISE(isa)                        \
  extern const ActivationKernel activation_kernels_##isa[2]; \
  extern const SoftmaxKernel softmax_kernels_##isa[2];       \
  extern const DropoutKernel dropout_kernels_##isa[2];
FASTCONV_DECLARE_ELTWISE(baseline)
FASTCONV_DECLARE_ELTWISE(avx2)
FASTCONV_DECLARE_ELTWISE(avx512)
#undef FASTCONV_DECLARE_ELTWISE

const ActivationKernel& choose_activation(Dtype dtype, IsaMask mask);
const SoftmaxKernel& choose_softmax(Dtype dtype, IsaMask mask);
const DropoutKernel& choose_dropout(Dtype dtype, IsaMask mask);

}  // namespace fastconv
