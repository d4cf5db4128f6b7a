// One warp a line: its lanes' maxima and sums meet in one order.
#include "cuda/softmax/softmax.h"

#include "cuda/dev_block.h"
#include "cuda/nest.h"

namespace fastconv {
namespace cuda {
namespace {

// Lines of `length` entries, `step[k]` apart in array k.
template <int N>
struct Lines {
  Nest<N> nest;
  Index length;
  Index step[N];
};

template <int N>
Lines<N> lines_of(const Operand* const (&arrays)[N], int axis) {
  const std::vector<Index>& shape = arrays[0]->shape;
  if (axis < 0 || axis >= static_cast<int>(shape.size())) fail("axis: " + std::to_string(axis) + " is out of range");
  Operand kept[N];
  const Operand* rest[N];
  Lines<N> lines;
  lines.length = shape[static_cast<std::size_t>(axis)];
  for (int k = 0; k < N; ++k) {
    require_shape(*arrays[k], shape, "y");
    kept[k] = *arrays[k];
    lines.step[k] = kept[k].stride[static_cast<std::size_t>(axis)];
    kept[k].shape.erase(kept[k].shape.begin() + axis);
    kept[k].stride.erase(kept[k].stride.begin() + axis);
    rest[k] = &kept[k];
  }
  lines.nest = nest_of<N>(kept[0].shape, rest);
  return lines;
}

FASTCONV_DEVICE int lane() { return static_cast<int>(threadIdx.x) % dev::kLanes; }

template <class S>
__global__ void softmax_kernel(Lines<2> lines, const S* x, S* y, bool logarithm) {
  using T = Compute<S>;
  const Index warps = blockDim.x / dev::kLanes;
  for (Index i = blockIdx.x * warps + threadIdx.x / dev::kLanes; i < lines.nest.size; i += gridDim.x * warps) {
    Index at[2];
    lines.nest.offsets(i, at);
    const S* from = x + at[0];
    S* to = y + at[1];
    T top = static_cast<T>(-INFINITY);
    for (Index k = lane(); k < lines.length; k += dev::kLanes) {
      const T value = dev::load(from + k * lines.step[0]);
      top = value > top || value != value ? value : top;
    }
    top = dev::warp_max(top);
    T sum = 0;
    for (Index k = lane(); k < lines.length; k += dev::kLanes)
      sum += std::exp(dev::load(from + k * lines.step[0]) - top);
    sum = dev::warp_sum(sum);
    const T log_sum = std::log(sum);
    for (Index k = lane(); k < lines.length; k += dev::kLanes) {
      const T shifted = dev::load(from + k * lines.step[0]) - top;
      dev::store(to + k * lines.step[1], logarithm ? shifted - log_sum : std::exp(shifted) / sum);
    }
  }
}

template <class S>
__global__ void backward_kernel(Lines<3> lines, const S* gy, const S* y, S* gx, bool logarithm) {
  using T = Compute<S>;
  const Index warps = blockDim.x / dev::kLanes;
  for (Index i = blockIdx.x * warps + threadIdx.x / dev::kLanes; i < lines.nest.size; i += gridDim.x * warps) {
    Index at[3];
    lines.nest.offsets(i, at);
    T sum = 0;
    for (Index k = lane(); k < lines.length; k += dev::kLanes) {
      const T g = dev::load(gy + at[0] + k * lines.step[0]);
      sum += logarithm ? g : g * dev::load(y + at[1] + k * lines.step[1]);
    }
    sum = dev::warp_sum(sum);
    for (Index k = lane(); k < lines.length; k += dev::kLanes) {
      const T g = dev::load(gy + at[0] + k * lines.step[0]), value = dev::load(y + at[1] + k * lines.step[1]);
      dev::store(gx + at[2] + k * lines.step[2], logarithm ? g - std::exp(value) * sum : value * (g - sum));
    }
  }
}

Grid line_grid(Index lines) {
  constexpr Index warps = kThreads / dev::kLanes;
  // Few lines need few threads.
  const int threads = static_cast<int>(std::min<Index>(std::max<Index>(lines, 1), warps)) * dev::kLanes;
  return {std::clamp<Index>(ceil_div(lines, threads / dev::kLanes), 1, kMostBlocks), threads, 0};
}

}  // namespace

void softmax(const Queue& queue, const Operand& x, const Operand& y, int axis, bool logarithm) {
  const Operand* const arrays[] = {&x, &y};
  const Lines<2> lines = lines_of<2>(arrays, axis);
  if (lines.nest.size * lines.length == 0) return;
  dispatch_storage(x.dtype(), [&](auto zero) {
    using S = decltype(zero);
    launch(queue, line_grid(lines.nest.size), softmax_kernel<S>, lines, static_cast<const S*>(x.data),
           static_cast<S*>(y.data), logarithm);
  });
}

void softmax_backward(const Queue& queue, const Operand& grad_output, const Operand& y, const Operand& grad_input,
                      int axis, bool logarithm) {
  const Operand* const arrays[] = {&grad_output, &y, &grad_input};
  const Lines<3> lines = lines_of<3>(arrays, axis);
  if (lines.nest.size * lines.length == 0) return;
  dispatch_storage(y.dtype(), [&](auto zero) {
    using S = decltype(zero);
    launch(queue, line_grid(lines.nest.size), backward_kernel<S>, lines, static_cast<const S*>(grad_output.data),
           static_cast<const S*>(y.data), static_cast<S*>(grad_input.data), logarithm);
  });
}

}  // namespace cuda
}  // namespace fastconv
