#include "cpu/simd/vec_avx2.h"
// The register type must be known before the templates.
#include "cpu/eltwise/generic.h"

namespace fastconv {

const ActivationKernel activation_kernels_avx2[2] = {activation_row<float>("activation_f32_avx2", Isa::avx2),
                                                     activation_row<double>("activation_f64_avx2", Isa::avx2)};
const SoftmaxKernel softmax_kernels_avx2[2] = {softmax_kernel_row<float>("softmax_f32_avx2", Isa::avx2),
                                               softmax_kernel_row<double>("softmax_f64_avx2", Isa::avx2)};
const DropoutKernel dropout_kernels_avx2[2] = {dropout_row<float>("dropout_f32_avx2", Isa::avx2),
                                               dropout_row<double>("dropout_f64_avx2", Isa::avx2)};

}  // namespace fastconv
