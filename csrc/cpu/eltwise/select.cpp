// Which elementwise row serves a dtype on a machine: the widest instruction set that is in use.
#include "cpu/eltwise/kernels.h"

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

const std::vector<const ActivationKernel*>& activation_rows() {
  static const std::vector<const ActivationKernel*> rows = pointers<ActivationKernel>(FASTCONV_ROWS(activation));
  return rows;
}
const std::vector<const SoftmaxKernel*>& softmax_rows() {
  static const std::vector<const SoftmaxKernel*> rows = pointers<SoftmaxKernel>(FASTCONV_ROWS(softmax));
  return rows;
}
const std::vector<const DropoutKernel*>& dropout_rows() {
  static const std::vector<const DropoutKernel*> rows = pointers<DropoutKernel>(FASTCONV_ROWS(dropout));
  return rows;
}

struct Registrar {
  Registrar() {
    register_kernels([] {
      std::vector<KernelInfo> all;
      for (const auto* row : activation_rows()) all.push_back(*row);
      for (const auto* row : softmax_rows()) all.push_back(*row);
      for (const auto* row : dropout_rows()) all.push_back(*row);
      return all;
    });
  }
} const registrar;

constexpr auto any = [](const auto&) { return true; };

}  // namespace

const ActivationKernel& choose_activation(Dtype dtype, IsaMask mask) {
  return choose_kernel(activation_rows(), dtype, mask, any);
}
const SoftmaxKernel& choose_softmax(Dtype dtype, IsaMask mask) {
  return choose_kernel(softmax_rows(), dtype, mask, any);
}
const DropoutKernel& choose_dropout(Dtype dtype, IsaMask mask) {
  return choose_kernel(dropout_rows(), dtype, mask, any);
}

}  // namespace fastconv
