// 16 registers of 32 bytes: 6x16 keeps 12 accumulators (2 FMA units x 4 to 5 cycles of latency), 2 columns and a
// broadcast; 8 loads for 12 FMAs a step. 12x8 serves groups of at most 8 output channels without idle lanes.
#include "cpu/simd/vec_avx2.h"

#include "cpu/conv/generic.h"

namespace fastconv {

const ConvKernel conv_kernels_avx2[] = {
    FASTCONV_CONV_ROW(avx2, float, "f32", 6, 16, 2),
    FASTCONV_CONV_ROW(avx2, float, "f32", 12, 8, 1),
    FASTCONV_CONV_ROW(avx2, double, "f64", 6, 8, 2),
    FASTCONV_CONV_ROW(avx2, double, "f64", 12, 4, 1),
};
const int conv_kernel_count_avx2 = 4;
FASTCONV_CONV_COMMON_TABLES(avx2, 8, 4)

}  // namespace fastconv
