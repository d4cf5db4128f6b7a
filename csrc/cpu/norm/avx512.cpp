#include "cpu/simd/vec_avx512.h"
// The register type must be known before the templates.
#include "cpu/norm/layer.h"

namespace fastconv {

const BatchNormKernel batch_norm_kernels_avx512[2] = {batch_norm_row<float>("batch_norm_f32_avx512", Isa::avx512),
                                                      batch_norm_row<double>("batch_norm_f64_avx512", Isa::avx512)};
const LayerNormKernel layer_norm_kernels_avx512[2] = {layer_norm_row<float>("layer_norm_f32_avx512", Isa::avx512),
                                                      layer_norm_row<double>("layer_norm_f64_avx512", Isa::avx512)};

}  // namespace fastconv
