#include "cpu/simd/vec_avx2.h"
// The register type must be known before the templates.
#include "cpu/pool/table.h"

FASTCONV_POOL_TABLE(avx2)
