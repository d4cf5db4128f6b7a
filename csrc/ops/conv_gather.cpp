#include "ops/conv_gather.h"

#include "cpu/parallel.h"

namespace fastconv {

std::vector<PanelJob> panel_jobs(std::int64_t first, std::int64_t count, std::int64_t panels, std::int64_t span) {
  std::vector<PanelJob> jobs;
  for (std::int64_t i = 0; i < count; i += jobs.back().count) {
    const std::int64_t group = (first + i) / panels, panel = (first + i) % panels;
    jobs.push_back({group, panel, std::min({span, panels - panel, count - i}), i});
  }
  return jobs;
}

template <class S>
void fill_with_bias(const GatherProblem<S>& problem) {
  const View<const S>& y = problem.y_shape;
  const bool lanes = y.stride[1] == 1;  // channels side by side
  const std::int64_t channels = y.shape[1], inner = lanes ? 1 : channels, width = y.extent(2);
  const Work work{y.shape[0] * inner * y.extent(0), 0.2 * static_cast<double>(y.size())};
  parallel_for(work, Subnormals::keep, [&](std::int64_t item) {
    const std::int64_t d = item % y.extent(0), c = item / y.extent(0) % inner, n = item / y.extent(0) / inner;
    S* plane = problem.y + n * y.stride[0] + c * y.stride[1] + d * y.step(0);
    for (std::int64_t h = 0; h < y.extent(1); ++h)
      for (std::int64_t w = 0; w < width; ++w) {
        S* to = plane + h * y.step(1) + w * y.step(2);
        for (std::int64_t i = 0; i < (lanes ? channels : 1); ++i)
          to[i] = narrow(problem.bias ? problem.bias[c + i] : Compute<S>(0), S{});
      }
  });
}

template void fill_with_bias<float>(const GatherProblem<float>&);
template void fill_with_bias<double>(const GatherProblem<double>&);
template void fill_with_bias<Float16>(const GatherProblem<Float16>&);
template void fill_with_bias<BFloat16>(const GatherProblem<BFloat16>&);

}  // namespace fastconv
