// Which loop shows a dtype's ceiling on a machine: the widest instruction set that is in use.
#include "cpu/peak/kernels.h"

namespace fastconv {
namespace {

const std::vector<const PeakKernel*>& peak_rows() {
  static const std::vector<const PeakKernel*> rows = {
      &peak_kernels_baseline[0], &peak_kernels_baseline[1],
#if defined(FASTCONV_HAVE_AVX2)
      &peak_kernels_avx2[0],     &peak_kernels_avx2[1],     &peak_kernels_avx512[0], &peak_kernels_avx512[1],
#endif
  };
  return rows;
}

}  // namespace

const PeakKernel& choose_peak(Dtype dtype, IsaMask mask) {
  return find_kernel(peak_rows(), dtype, mask, [](const PeakKernel&) { return true; });
}

}  // namespace fastconv
