// The bias's gradient: a sum over samples and positions for each channel.
#include "cuda/conv/conv.h"
#include "cuda/dev_block.h"
#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

// One block a channel, its threads' sums added in one order.
template <class S>
__global__ void bias_kernel(View<const S> gy, Walk walk, Index items, View<S> gb, Index channels) {
  double* scratch = dev::shared_memory<double>();
  for (Index c = blockIdx.x; c < channels; c += gridDim.x) {
    double sum = 0;
    for (Index i = threadIdx.x; i < items; i += blockDim.x) {
      Position at = walk.at(i);
      at.c = c;
      sum += static_cast<double>(dev::load(gy.data + offset_of(gy, at)));
    }
    sum = dev::block_sum(sum, scratch);
    if (threadIdx.x == 0) dev::store(gb.data + c * gb.stride[1], static_cast<Compute<S>>(sum));
  }
}

}  // namespace

void conv_backward_bias(const Queue& queue, const ArrayView& grad_output, const ArrayView& grad_bias) {
  const Index channels = grad_output.shape[1];
  if (channels == 0) return;
  Walk walk = walk_of(grad_output);
  walk.channels = 1;
  Grid grid{std::min(channels, kMostBlocks), kThreads, sizeof(double) * dev::kLanes};
  dispatch_storage(grad_output.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid, bias_kernel<S>, grad_output.as<const S>(), walk, grad_output.size() / channels,
           grad_bias.as<S>(), channels);
  });
}

}  // namespace cuda
}  // namespace fastconv
