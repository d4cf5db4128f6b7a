#include "cpu/simd/vec_baseline.h"
// The register type must be known before the templates.
#include "cpu/pool/table.h"

FASTCONV_POOL_TABLE(baseline)
