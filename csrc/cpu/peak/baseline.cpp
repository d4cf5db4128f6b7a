#include "cpu/simd/vec_baseline.h"
// The register type must be known before the templates.
#include "cpu/peak/generic.h"

namespace fastconv {

const PeakKernel peak_kernels_baseline[2] = {peak_row<float>("peak_f32_baseline", Isa::baseline),
                                             peak_row<double>("peak_f64_baseline", Isa::baseline)};

}  // namespace fastconv
