#include <cstring>

#include "cpu/pool/kernels.h"

namespace fastconv {
namespace {

std::vector<const PoolKernel*> all_rows() {
  std::vector<const PoolKernel*> rows;
  const auto add = [&rows](const PoolKernel* table, int count) {
    for (int i = 0; i < count; ++i) rows.push_back(table + i);
  };
  add(pool_kernels_baseline, pool_kernel_count_baseline);
#if defined(FASTCONV_HAVE_AVX2)
  add(pool_kernels_avx2, pool_kernel_count_avx2);
#endif
#if defined(FASTCONV_HAVE_AVX512)
  add(pool_kernels_avx512, pool_kernel_count_avx512);
#endif
  return rows;
}

std::vector<KernelInfo> list() {
  std::vector<KernelInfo> infos;
  for (const PoolKernel* row : all_rows()) infos.push_back(*row);
  return infos;
}

const struct Registrar {
  Registrar() { register_kernels(&list); }
} registrar;

}  // namespace

const PoolKernel& choose_pool_kernel(const char* op, PoolFamily family, Dtype dtype, IsaMask mask) {
  // The memory order of the arrays settles op and family; a forced row of another family is not eligible.
  static const std::vector<const PoolKernel*> rows = all_rows();
  std::vector<const PoolKernel*> fitting;
  for (const PoolKernel* row : rows)
    if (row->family == family && std::strcmp(row->op, op) == 0) fitting.push_back(row);
  return choose_kernel(fitting, dtype, mask, [](const PoolKernel&) { return true; });
}

}  // namespace fastconv
