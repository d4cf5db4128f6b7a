#include "cpu/simd/vec_avx512.h"
// The register type must be known before the templates.
#include "cpu/peak/generic.h"

namespace fastconv {

const PeakKernel peak_kernels_avx512[2] = {peak_row<float>("peak_f32_avx512", Isa::avx512),
                                           peak_row<double>("peak_f64_avx512", Isa::avx512)};

}  // namespace fastconv
