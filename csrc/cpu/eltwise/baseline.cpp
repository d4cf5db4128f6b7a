#include "cpu/simd/vec_baseline.h"
// The register type must be known before the templates.
#include "cpu/eltwise/generic.h"

namespace fastconv {

const ActivationKernel activation_kernels_baseline[2] = {
    activation_row<float>("activation_f32_baseline", Isa::baseline),
    activation_row<double>("activation_f64_baseline", Isa::baseline)};
const SoftmaxKernel softmax_kernels_baseline[2] = {softmax_kernel_row<float>("softmax_f32_baseline", Isa::baseline),
                                                   softmax_kernel_row<double>("softmax_f64_baseline", Isa::baseline)};
const DropoutKernel dropout_kernels_baseline[2] = {dropout_row<float>("dropout_f32_baseline", Isa::baseline),
                                                   dropout_row<double>("dropout_f64_baseline", Isa::baseline)};

}  // namespace fastconv
