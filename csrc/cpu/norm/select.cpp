// Which batch norm row serves a dtype on a machine: the widest instruction set that is in use.
#include "cpu/norm/kernels.h"

namespace fastconv {
namespace {

const std::vector<const BatchNormKernel*>& batch_norm_rows() {
  static const std::vector<const BatchNormKernel*> rows = [] {
    std::vector<const BatchNormKernel*> all;
    for (const BatchNormKernel* table : {
             batch_norm_kernels_baseline,
#if defined(FASTCONV_HAVE_AVX2)
             batch_norm_kernels_avx2,
             batch_norm_kernels_avx512,
#endif
         })
      for (int i = 0; i < 2; ++i) all.push_back(table + i);
    return all;
  }();
  return rows;
}

struct Registrar {
  Registrar() {
    register_kernels([] {
      std::vector<KernelInfo> all;
      for (const auto* row : batch_norm_rows()) all.push_back(*row);
      return all;
    });
  }
} const registrar;

}  // namespace

const BatchNormKernel& choose_batch_norm(Dtype dtype, IsaMask mask) {
  return choose_kernel(batch_norm_rows(), dtype, mask, [](const BatchNormKernel&) { return true; });
}

}  // namespace fastconv
