#include "cpu/simd/vec_baseline.h"
// The register type must be known before the templates.
#include "cpu/norm/layer.h"

namespace fastconv {

const BatchNormKernel batch_norm_kernels_baseline[2] = {
    batch_norm_row<float>("batch_norm_f32_baseline", Isa::baseline),
    batch_norm_row<double>("batch_norm_f64_baseline", Isa::baseline)};
const LayerNormKernel layer_norm_kernels_baseline[2] = {
    layer_norm_row<float>("layer_norm_f32_baseline", Isa::baseline),
    layer_norm_row<double>("layer_norm_f64_baseline", Isa::baseline)};

}  // namespace fastconv
