// Contract of the norms' kernels. For the norms of channels (batch, instance, group norm) a channel's values come in
// one of two forms: planes (a channel's positions lie dense, one plane a sample) or rows (the channels of one position
// lie dense). Sums of a few values are in their dtype, the sums of those in float64.
#pragma once

#include <cstdint>

#include "cpu/registry.h"

namespace fastconv {

// A channel's affine maps, as arrays of the data's dtype with one entry a channel:
// forward   y = (x - mean) * scale + shift
// backward  grad_input = grad_output * scale + ((x - mean) * slope + shift); without `slope` it is grad_output * scale
struct NormCoefficients {
  const void* mean;
  const void* scale;
  const void* shift;
  const void* slope;
};

// What ends a convolution: y = max(forward(x + bias), 0), of which each step may be absent.
struct FinishCoefficients {
  const void* bias;          // null: none
  NormCoefficients forward;  // a null scale: none
  bool rectify;
};

struct BatchNormKernel : KernelInfo {
  // One channel: `planes` runs of `length` values. The sum of x and the sum of squares around the mean.
  void (*plane_moments)(const void* x, std::int64_t stride, std::int64_t planes, std::int64_t length, double* sum,
                        double* squares);
  // One channel: the sum of grad_output and the sum of grad_output * (x - mean).
  void (*plane_products)(const void* grad_output, std::int64_t g_stride, const void* x, std::int64_t x_stride,
                         std::int64_t planes, std::int64_t length, double mean, double* sum, double* dot);
  // As many channels as planes, with one mean: the same sums of each.
  void (*group_products)(const void* grad_output, std::int64_t g_stride, const void* x, std::int64_t x_stride,
                         std::int64_t planes, std::int64_t length, double mean, double* sum, double* dot);
  // `planes` consecutive channels, one plane each; the coefficients start at the first of them.
  void (*plane_forward)(const void* x, std::int64_t x_stride, void* y, std::int64_t y_stride, std::int64_t planes,
                        std::int64_t length, const NormCoefficients& coefficients);
  void (*plane_backward)(const void* grad_output, std::int64_t g_stride, const void* x, std::int64_t x_stride,
                         void* grad_input, std::int64_t stride, std::int64_t planes, std::int64_t length,
                         const NormCoefficients& coefficients);
  // The same of `rows` rows of `columns` channels; results are arrays of `columns`.
  void (*row_moments)(const void* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, double* sum,
                      double* squares);
  void (*row_products)(const void* grad_output, std::int64_t g_stride, const void* x, std::int64_t x_stride,
                       std::int64_t rows, std::int64_t columns, const double* mean, double* sum, double* dot);
  void (*row_forward)(const void* x, std::int64_t x_stride, void* y, std::int64_t y_stride, std::int64_t rows,
                      std::int64_t columns, const NormCoefficients& coefficients);
  void (*row_backward)(const void* grad_output, std::int64_t g_stride, const void* x, std::int64_t x_stride,
                       void* grad_input, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                       const NormCoefficients& coefficients);
  // In place, over planes and over rows.
  void (*plane_finish)(void* x, std::int64_t stride, std::int64_t planes, std::int64_t length,
                       const FinishCoefficients& coefficients);
  void (*row_finish)(void* x, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                     const FinishCoefficients& coefficients);
};

constexpr int kLayerRows = 16;

// Dense rows whose entries each have a weight and a bias; those may be null (1 and 0).
struct LayerNormKernel : KernelInfo {
  // As BatchNormKernel's plane_moments.
  void (*moments)(const void* x, std::int64_t stride, std::int64_t planes, std::int64_t length, double* sum,
                  double* squares);
  // y = (x - mean) * invstd * weight + bias
  void (*forward)(const void* x, void* y, std::int64_t count, double mean, double invstd, const void* weight,
                  const void* bias);
  // The sum of g = grad_output * weight and the sum of g * (x - mean).
  void (*products)(const void* grad_output, const void* x, const void* weight, std::int64_t count, double mean,
                   double* sum, double* dot);
  // grad_input = g * scale + ((x - mean) * slope + shift)
  void (*backward)(const void* grad_output, const void* x, const void* weight, void* grad_input, std::int64_t count,
                   double mean, double scale, double slope, double shift);
  // Adds, column by column over at most kLayerRows rows of their own statistics, grad_output * (x - mean) * invstd to
  // `dot` and grad_output to `sum`.
  void (*accumulate)(const void* const* grad_output, const void* const* x, std::int64_t rows, std::int64_t columns,
                     const double* mean, const double* invstd, double* dot, double* sum);
};

#define FASTCONV_DECLARE_NORM(isa)                          \
  extern const BatchNormKernel batch_norm_kernels_##isa[2]; \
  extern const LayerNormKernel layer_norm_kernels_##isa[2];
FASTCONV_DECLARE_NORM(baseline)
FASTCONV_DECLARE_NORM(avx2)
FASTCONV_DECLARE_NORM(avx512)
#undef FASTCONV_DECLARE_NORM

const BatchNormKernel& choose_batch_norm(Dtype dtype, IsaMask mask);
const LayerNormKernel& choose_layer_norm(Dtype dtype, IsaMask mask);

}  // namespace fastconv
