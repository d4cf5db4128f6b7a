#include "cpu/simd/vec_avx2.h"
// The register type must be known before the templates.
#include "cpu/peak/generic.h"

namespace fastconv {

const PeakKernel peak_kernels_avx2[2] = {peak_row<float>("peak_f32_avx2", Isa::avx2),
                                         peak_row<double>("peak_f64_avx2", Isa::avx2)};

}  // namespace fastconv
