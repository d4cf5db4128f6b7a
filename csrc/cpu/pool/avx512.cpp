#include "cpu/pool/table.h"
#include "cpu/simd/vec_avx512.h"

FASTCONV_POOL_TABLE(avx512)
