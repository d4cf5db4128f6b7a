#include "cpu/simd/vec_avx512.h"
// The register type must be known before the templates.
#include "cpu/pool/table.h"

FASTCONV_POOL_TABLE(avx512)
