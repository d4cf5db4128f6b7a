#include "ops/peak.h"

#include <cmath>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/peak/kernels.h"

namespace fastconv {

double multiply_adds(Dtype dtype, std::int64_t steps) {
  if (steps < 0) fail("steps: expected at least 0, got " + std::to_string(steps));
  const PeakKernel& kernel = choose_peak(dtype, active_isa_mask());
  const std::int64_t threads = get_num_threads();
  // Items smaller than a thread's share: one that starts late does fewer of them.
  const std::int64_t items = 8 * threads, share = (steps + 7) / 8;
  std::vector<double> sums(static_cast<std::size_t>(items));
  const Work work{items, 5.0 * static_cast<double>(items) * static_cast<double>(share)};
  parallel_for(work, subnormals_of(dtype),
               [&](std::int64_t item) { sums[static_cast<std::size_t>(item)] = kernel.run(share); });
  for (double sum : sums)
    if (!std::isfinite(sum)) fail("peak: a chain left the finite numbers");
  return 2.0 * static_cast<double>(items) * static_cast<double>(share) * kernel.tile_rows * kernel.tile_cols;
}

}  // namespace fastconv
