#include "cpu/simd/vec_avx512.h"
// The register type must be known before the templates.
#include "cpu/eltwise/generic.h"

namespace fastconv {

const ActivationKernel activation_kernels_avx512[2] = {activation_row<float>("activation_f32_avx512", Isa::avx512),
                                                       activation_row<double>("activation_f64_avx512", Isa::avx512)};
const SoftmaxKernel softmax_kernels_avx512[2] = {softmax_kernel_row<float>("softmax_f32_avx512", Isa::avx512),
                                                 softmax_kernel_row<double>("softmax_f64_avx512", Isa::avx512)};
const DropoutKernel dropout_kernels_avx512[2] = {dropout_row<float>("dropout_f32_avx512", Isa::avx512),
                                                 dropout_row<double>("dropout_f64_avx512", Isa::avx512)};

}  // namespace fastconv
