#include "cpu/simd/vec_avx2.h"
// The register type must be known before the templates.
#include "cpu/norm/layer.h"

namespace fastconv {

const BatchNormKernel batch_norm_kernels_avx2[2] = {batch_norm_row<float>("batch_norm_f32_avx2", Isa::avx2),
                                                    batch_norm_row<double>("batch_norm_f64_avx2", Isa::avx2)};
const LayerNormKernel layer_norm_kernels_avx2[2] = {layer_norm_row<float>("layer_norm_f32_avx2", Isa::avx2),
                                                    layer_norm_row<double>("layer_norm_f64_avx2", Isa::avx2)};

}  // namespace fastconv
