#include "cpu/pool/table.h"
#include "cpu/simd/vec_avx2.h"

FASTCONV_POOL_TABLE(avx2)
