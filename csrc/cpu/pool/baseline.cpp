#include "cpu/pool/table.h"
#include "cpu/simd/vec_baseline.h"

FASTCONV_POOL_TABLE(baseline)
