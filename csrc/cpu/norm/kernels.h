// Contract of the batch norm kernels. A channel's values come in one of two forms: planes (a channel's positions lie
// dense, one plane a sample) or rows (the channels of one position lie dense). Sums are kept in float64 at every dtype.
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

struct BatchNormKernel : KernelInfo {
  // One channel: `planes` runs of `length` values. The sum of x and the sum of squares around the mean.
  void (*plane_moments)(const void* x, std::int64_t stride, std::int64_t planes, std::int64_t length, double* sum,
                        double* squares);
  // One channel: the sum of grad_output and the sum of grad_output * (x - mean).
  void (*plane_products)(const void* grad_output, std::int64_t g_stride, const void* x, std::int64_t x_stride,
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
};

extern const BatchNormKernel batch_norm_kernels_baseline[2];
extern const BatchNormKernel batch_norm_kernels_avx2[2];
extern const BatchNormKernel batch_norm_kernels_avx512[2];

const BatchNormKernel& choose_batch_norm(Dtype dtype, IsaMask mask);

}  // namespace fastconv
