// From a block of sums to the output: bias, norm, activation, and the output's own layout.
#pragma once

#include "ops/conv_gather.h"
#include "ops/conv_pack.h"

namespace fastconv {

// Stores count[1] x count[2] outputs of sample n and `channels` channels from y0 on, for outputs starting at j0 of a
// phase: those of a row side by side in `result`, `ldc` values each, `pitch` of them to the next row. Fills around them
// if the problem is such.
template <class S>
void store_block(const GatherProblem<S>& problem, const AxisPhase* const (&phase)[kSpatial],
                 const TransposeKernel& transpose, std::int64_t n, std::int64_t y0, std::int64_t channels,
                 const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial], Compute<S>* result,
                 std::int64_t ldc, std::int64_t pitch) {
  const View<const S>& y = problem.y_shape;
  const auto out = [&](int axis) { return phase[axis]->out_start + j0[axis] * phase[axis]->out_step; };
  if (problem.fills_around) {
    OutputBox box{n, y0, channels, {}, {}};
    for (int axis = 0; axis < kSpatial; ++axis) {
      const std::int64_t some = axis == 0 ? 1 : count[axis], end = j0[axis] + some;
      box.begin[axis] = j0[axis] == 0 ? 0 : out(axis);
      box.end[axis] = end == phase[axis]->out_count ? y.extent(axis) : out(axis) + some * phase[axis]->out_step;
    }
    fill_with_bias(problem, box);
  }
  S* base =
      problem.y + n * y.stride[0] + y0 * y.stride[1] + out(0) * y.step(0) + out(1) * y.step(1) + out(2) * y.step(2);
  const std::int64_t row_step = phase[1]->out_step * y.step(1), step = phase[2]->out_step * y.step(2);
  const Compute<S>* bias = problem.bias ? problem.bias + y0 : nullptr;
  if (problem.finish.changes()) {
    problem.finish.rows(result, ldc, (count[1] - 1) * pitch + count[2], y0, channels, problem.bias);
    bias = nullptr;
  }
  // Rows that follow each other in memory are stored as one run.
  const bool joined = row_step == count[2] * step && pitch == count[2];
  const std::int64_t rows = joined ? 1 : count[1], run = joined ? count[1] * count[2] : count[2];
  for (std::int64_t r = 0; r < rows; ++r)
    store_run<S>(transpose, result + r * pitch * ldc, ldc, run, channels, bias, base + r * row_step, step, y.stride[1]);
}

}  // namespace fastconv
