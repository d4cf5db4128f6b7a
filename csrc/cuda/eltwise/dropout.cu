// Dropout with the CPU's masks: word i of the seed's Philox 4x32-10 stream decides on entry i. J. Salmon, M. Moraes,
// R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#include "cuda/eltwise/eltwise.h"
#include "cuda/nest.h"

namespace fastconv {
namespace cuda {
namespace {

struct Words {
  std::uint32_t word[4];
};

FASTCONV_DEVICE Words philox(std::uint64_t seed, std::uint64_t counter) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32), c2 = 0,
                c3 = 0;
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<std::uint32_t>(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

__global__ void mask_kernel(std::uint64_t seed, std::uint64_t threshold, Index count, std::uint8_t* keep) {
  for (Index i = dev::first(); 4 * i < count; i += dev::step()) {
    const Words drawn = philox(seed, static_cast<std::uint64_t>(i));
    for (int k = 0; k < 4; ++k)
      if (4 * i + k < count) keep[4 * i + k] = drawn.word[k] >= threshold;
  }
}

template <class S>
__global__ void apply_kernel(Nest<3> nest, const S* x, const std::uint8_t* keep, S* y, double scale) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < nest.size; i += dev::step()) {
    Index at[3];
    nest.offsets(i, at);
    const T scaled = dev::load(x + at[0]) * static_cast<T>(scale);
    dev::store(y + at[2], keep[at[1]] ? scaled : T(0));
  }
}

}  // namespace

void dropout_mask(const Queue& queue, std::uint64_t seed, double p, const Operand& keep) {
  const Index count = keep.size();
  if (count == 0) return;
  const auto threshold = static_cast<std::uint64_t>(std::llround(std::ldexp(p, 32)));
  launch(queue, grid_of(ceil_div(count, 4)), mask_kernel, seed, threshold, count,
         static_cast<std::uint8_t*>(keep.data));
}

void dropout_apply(const Queue& queue, const Operand& x, const Operand& keep, const Operand& y, double scale) {
  if (keep.element != Element::boolean) fail("mask: expected bool");
  require_shape(keep, x.shape, "mask");
  require_shape(y, x.shape, "y");
  const Operand* const arrays[] = {&x, &keep, &y};
  const Nest<3> nest = nest_of<3>(x.shape, arrays);
  if (nest.size == 0) return;
  dispatch_storage(x.dtype(), [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(nest.size), apply_kernel<S>, nest, static_cast<const S*>(x.data),
           static_cast<const std::uint8_t*>(keep.data), static_cast<S*>(y.data), scale);
  });
}

}  // namespace cuda
}  // namespace fastconv
