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
void fill_with_bias(const GatherProblem<S>& problem, const OutputBox& box) {
  const View<const S>& y = problem.y_shape;
  const bool lanes = y.stride[1] == 1;  // channels side by side
  const std::int64_t channels = lanes ? 1 : box.channels, values = lanes ? box.channels : 1;
  for (std::int64_t c = 0; c < channels; ++c) {
    const Compute<S>* const bias = problem.bias ? problem.bias + box.channel + c : nullptr;
    S* const plane = problem.y + box.sample * y.stride[0] + (box.channel + c) * y.stride[1];
    for (std::int64_t d = box.begin[0]; d < box.end[0]; ++d)
      for (std::int64_t h = box.begin[1]; h < box.end[1]; ++h) {
        S* const row = plane + d * y.step(0) + h * y.step(1) + box.begin[2] * y.step(2);
        const std::int64_t width = box.end[2] - box.begin[2];
        if (y.step(2) == values && !(lanes && bias)) {  // one run
          std::fill_n(row, width * values, narrow(bias ? *bias : Compute<S>(0), S{}));
          continue;
        }
        for (std::int64_t w = 0; w < width; ++w)
          for (std::int64_t i = 0; i < values; ++i)
            row[w * y.step(2) + i] = narrow(bias ? bias[i] : Compute<S>(0), S{});
      }
  }
}

template <class S>
void fill_with_bias(const GatherProblem<S>& problem) {
  const View<const S>& y = problem.y_shape;
  const bool lanes = y.stride[1] == 1;
  const std::int64_t channels = lanes ? y.shape[1] : 1, parts = y.shape[1] / std::max<std::int64_t>(channels, 1);
  const Work work{y.shape[0] * parts * y.extent(0), 0.2 * static_cast<double>(y.size())};
  parallel_for(work, Subnormals::keep, [&](std::int64_t item) {
    const std::int64_t d = item % y.extent(0), part = item / y.extent(0) % parts, n = item / y.extent(0) / parts;
    fill_with_bias(problem, {n, part * channels, channels, {d, 0, 0}, {d + 1, y.extent(1), y.extent(2)}});
  });
}

#define FASTCONV_FILL_FOR(S)                                                  \
  template void fill_with_bias<S>(const GatherProblem<S>&, const OutputBox&); \
  template void fill_with_bias<S>(const GatherProblem<S>&);
FASTCONV_FILL_FOR(float)
FASTCONV_FILL_FOR(double)
FASTCONV_FILL_FOR(Float16)
FASTCONV_FILL_FOR(BFloat16)

}  // namespace fastconv
