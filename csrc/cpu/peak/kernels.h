// The ceiling of arithmetic: a loop that does nothing but multiply and add in registers, which benchmarks time to know
// how much of the machine a real kernel uses. No op calls it, so the kernel list does not name it.
#pragma once

#include <cstdint>

#include "cpu/registry.h"

namespace fastconv {

// Independent chains a loop keeps going: an FMA takes four or five cycles and two start in each, so ten are needed;
// with the two factors, twelve fit into sixteen registers.
constexpr int kPeakChains = 12;

struct PeakKernel : KernelInfo {
  // `steps` times: one register-wide multiply-add on each chain. `tile_cols` is the register's width; the sum that
  // comes back keeps the compiler from leaving the work out.
  double (*run)(std::int64_t steps);
};

extern const PeakKernel peak_kernels_baseline[2];
extern const PeakKernel peak_kernels_avx2[2];
extern const PeakKernel peak_kernels_avx512[2];

const PeakKernel& choose_peak(Dtype dtype, IsaMask mask);

}  // namespace fastconv
