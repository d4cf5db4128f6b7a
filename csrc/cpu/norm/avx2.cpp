#include "cpu/simd/vec_avx2.h"
// The register type must be known before the templates.
#include "cpu/norm/generic.h"

namespace fastconv {

const BatchNormKernel batch_norm_kernels_avx2[2] = {batch_norm_row<float>("batch_norm_f32_avx2", Isa::avx2),
                                                    batch_norm_row<double>("batch_norm_f64_avx2", Isa::avx2)};

}  // namespace fastconv
