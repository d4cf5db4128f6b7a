// Which row serves a norm and a dtype on a machine: the widest instruction set that is in use.
#include "cpu/norm/kernels.h"

namespace fastconv {
namespace {

template <class Row>
std::vector<const Row*> pointers(std::initializer_list<const Row*> tables) {
  std::vector<const Row*> rows;
  for (const Row* table : tables)
    for (int i = 0; i < 2; ++i) rows.push_back(table + i);
  return rows;
}

#if defined(FASTCONV_HAVE_AVX2)
#define FASTCONV_ROWS(op) {op##_kernels_baseline, op##_kernels_avx2, op##_kernels_avx512}
#else
#define FASTCONV_ROWS(op) {op##_kernels_baseline}
#endif

const std::vector<const BatchNormKernel*>& batch_norm_rows() {
  static const std::vector<const BatchNormKernel*> rows = pointers<BatchNormKernel>(FASTCONV_ROWS(batch_norm));
  return rows;
}
const std::vector<const LayerNormKernel*>& layer_norm_rows() {
  static const std::vector<const LayerNormKernel*> rows = pointers<LayerNormKernel>(FASTCONV_ROWS(layer_norm));
  return rows;
}

struct Registrar {
  Registrar() {
    register_kernels([] {
      std::vector<KernelInfo> all;
      for (const auto* row : batch_norm_rows()) all.push_back(*row);
      for (const auto* row : layer_norm_rows()) all.push_back(*row);
      return all;
    });
  }
} const registrar;

constexpr auto any = [](const auto&) { return true; };

}  // namespace

const BatchNormKernel& choose_batch_norm(Dtype dtype, IsaMask mask) {
  return choose_kernel(batch_norm_rows(), dtype, mask, any);
}
const LayerNormKernel& choose_layer_norm(Dtype dtype, IsaMask mask) {
  return choose_kernel(layer_norm_rows(), dtype, mask, any);
}

}  // namespace fastconv
