// 16 registers of 16 bytes: 4x8 keeps 8 accumulators, 2 columns and a broadcast. Multiply and add round separately.
#include "cpu/simd/vec_baseline.h"

#include "cpu/conv/generic.h"

namespace fastconv {

const ConvKernel conv_kernels_baseline[] = {
    FASTCONV_CONV_ROW(baseline, float, "f32", 4, 8, 2),
    FASTCONV_CONV_ROW(baseline, double, "f64", 4, 4, 2),
};
const int conv_kernel_count_baseline = 2;
FASTCONV_CONV_COMMON_TABLES(baseline, 4, 2)

}  // namespace fastconv
