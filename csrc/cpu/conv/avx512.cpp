// 32 registers of 64 bytes: 12x32 keeps 24 accumulators, 2 columns and a broadcast, and 12 row pointers fit the
// integer registers; 14 loads for 24 FMAs a step. 12x16 serves groups of at most 16 output channels.
#include "cpu/simd/vec_avx512.h"

#include "cpu/conv/generic.h"

namespace fastconv {

const ConvKernel conv_kernels_avx512[] = {
    FASTCONV_CONV_ROW(avx512, float, "f32", 12, 32, 2),
    FASTCONV_CONV_ROW(avx512, float, "f32", 12, 16, 1),
    FASTCONV_CONV_ROW(avx512, double, "f64", 12, 16, 2),
    FASTCONV_CONV_ROW(avx512, double, "f64", 12, 8, 1),
};
const int conv_kernel_count_avx512 = 4;
FASTCONV_CONV_COMMON_TABLES(avx512, 16, 8)

}  // namespace fastconv
