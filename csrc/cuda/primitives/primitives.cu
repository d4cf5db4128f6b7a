#include "cuda/primitives/primitives.h"

#include "cuda/dev_async.h"
#include "cuda/dev_block.h"
#include "cuda/dev_half.h"
#include "cuda/dev_matrix.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

// x: (steps, 128, 4) float32, through a ring of three stages to which every thread copies 16 bytes of each step, every
// third one nothing but zeros. y: (128, 4), the sums of what the thread's neighbour copied.
struct CopyAsync {
  using X = float;
  using Y = float;
  static constexpr int kThreads = 128, kWide = 4, kRing = 3;
  static constexpr std::size_t kShared = sizeof(float) * kThreads * kWide * kRing;
  static FASTCONV_DEVICE void run(const X* x, Y* y, Index size) {
    float* const ring = dev::shared_memory<float>();
    const int thread = static_cast<int>(threadIdx.x), steps = static_cast<int>(size / (kThreads * kWide));
    const auto fetch = [&](int step) {
      if (step < steps)
        dev::copy_async<16>(ring + (step % kRing * kThreads + thread) * kWide,
                            x + (static_cast<Index>(step) * kThreads + thread) * kWide, (thread + step) % 3 != 0);
      dev::commit_copies();
    };
    float sum[kWide] = {};
    for (int step = 0; step < kRing - 1; ++step) fetch(step);
    for (int step = 0; step < steps; ++step) {
      dev::wait_copies<kRing - 2>();
      __syncthreads();
      fetch(step + kRing - 1);
      const float* const piece = ring + (step % kRing * kThreads + (thread + 1) % kThreads) * kWide;
      for (int i = 0; i < kWide; ++i) sum[i] += piece[i];
    }
    for (int i = 0; i < kWide; ++i) y[thread * kWide + i] = sum[i];
  }
};

// x: four 8 by 8 matrices of float16. y: (32 lanes, 4 matrices, 2 elements).
template <bool Turned>
struct LoadMatrices {
  using X = Float16;
  using Y = Float16;
  static constexpr int kThreads = 32;
  static constexpr std::size_t kShared = 512;
  static FASTCONV_DEVICE void run(const X* x, Y* y, Index) {
    Float16* const memory = dev::shared_memory<Float16>();
    const int lane = static_cast<int>(threadIdx.x);
    for (int i = 0; i < 8; ++i) memory[lane * 8 + i] = x[lane * 8 + i];
    __syncthreads();
    unsigned words[4];
    dev::load_matrices<Turned>(memory + lane * 8, words);
    for (int i = 0; i < 4; ++i) {
      y[lane * 8 + 2 * i] = {static_cast<std::uint16_t>(words[i] & 0xffffU)};
      y[lane * 8 + 2 * i + 1] = {static_cast<std::uint16_t>(words[i] >> 16)};
    }
  }
};

// x: a (16, 16) and b (16, 8) of 16-bit numbers, one behind the other. y: (16, 8) float32, twice their product.
template <class S>
struct Multiply {
  using X = S;
  using Y = float;
  static constexpr int kThreads = 32;
  static constexpr std::size_t kShared = 0;
  static FASTCONV_DEVICE unsigned pair(S first, S second) {
    return first.bits | static_cast<unsigned>(second.bits) << 16;
  }
  static FASTCONV_DEVICE void run(const X* x, Y* y, Index) {
    const int lane = static_cast<int>(threadIdx.x), group = lane / 4, within = lane % 4 * 2;
    const S* const other = x + 16 * 16;
    unsigned a[4], b[2];
    for (int i = 0; i < 4; ++i) {
      const S* from = x + (group + i % 2 * 8) * 16 + within + i / 2 * 8;
      a[i] = pair(from[0], from[1]);
    }
    for (int i = 0; i < 2; ++i)
      b[i] = pair(other[(within + i * 8) * 8 + group], other[(within + i * 8 + 1) * 8 + group]);
    float sum[4] = {};
    for (int times = 0; times < 2; ++times) dev::multiply(S{}, a, b, sum);
    for (int i = 0; i < 4; ++i) y[(group + i / 2 * 8) * 8 + within + i % 2] = sum[i];
  }
};

// x: (96,) float32. y: (96,), what each thread gets.
enum class Sum { warp_sum, warp_max, block_sum, block_max };
template <Sum Kind>
struct Reduce {
  using X = float;
  using Y = float;
  static constexpr int kThreads = 96;
  static constexpr std::size_t kShared = sizeof(float) * dev::kLanes;
  static FASTCONV_DEVICE void run(const X* x, Y* y, Index) {
    float* const scratch = dev::shared_memory<float>();
    const float value = x[threadIdx.x];
    if constexpr (Kind == Sum::warp_sum) y[threadIdx.x] = dev::warp_sum(value);
    if constexpr (Kind == Sum::warp_max) y[threadIdx.x] = dev::warp_max(value);
    if constexpr (Kind == Sum::block_sum) y[threadIdx.x] = dev::block_sum(value, scratch);
    if constexpr (Kind == Sum::block_max) y[threadIdx.x] = dev::block_max(value, scratch);
  }
};

// x: any number of elements. y: the same in the other dtype.
template <class From, class To>
struct Convert {
  using X = From;
  using Y = To;
  static constexpr int kThreads = 256;
  static constexpr std::size_t kShared = 0;
  static FASTCONV_DEVICE void run(const X* x, Y* y, Index size) {
    for (Index i = threadIdx.x; i < size; i += blockDim.x) dev::store(y + i, dev::load(x + i));
  }
};

// x: (64,) int64, none negative. y: (65,): what was there before each thread put its number, the first place's 0, and
// the largest number.
struct Atomics {
  using X = long long;
  using Y = long long;
  static constexpr int kThreads = 64;
  static constexpr std::size_t kShared = 2 * sizeof(long long);
  static FASTCONV_DEVICE void run(const X* x, Y* y, Index) {
    long long* const places = dev::shared_memory<long long>();
    if (threadIdx.x == 0) places[0] = places[1] = 0;
    __syncthreads();
    y[threadIdx.x] = dev::exchange_atomic(places, x[threadIdx.x]);
    dev::max_atomic(places + 1, x[threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) y[kThreads] = places[1];
  }
};

template <class P>
__global__ void primitive_kernel(const typename P::X* x, typename P::Y* y, Index size) {
  P::run(x, y, size);
}

template <class P>
void start(const Queue& queue, const Operand& x, const Operand& y) {
  launch(queue, {1, P::kThreads, P::kShared}, primitive_kernel<P>, static_cast<const typename P::X*>(x.data),
         static_cast<typename P::Y*>(y.data), x.size());
}

struct Entry {
  const char* name;
  void (*start)(const Queue&, const Operand&, const Operand&);
};

constexpr Entry kPrimitives[] = {
    {"copy_async", start<CopyAsync>},
    {"load_matrices", start<LoadMatrices<false>>},
    {"load_matrices_turned", start<LoadMatrices<true>>},
    {"multiply_float16", start<Multiply<Float16>>},
    {"multiply_bfloat16", start<Multiply<BFloat16>>},
    {"warp_sum", start<Reduce<Sum::warp_sum>>},
    {"warp_max", start<Reduce<Sum::warp_max>>},
    {"block_sum", start<Reduce<Sum::block_sum>>},
    {"block_max", start<Reduce<Sum::block_max>>},
    {"widen_float16", start<Convert<Float16, float>>},
    {"widen_bfloat16", start<Convert<BFloat16, float>>},
    {"narrow_float16", start<Convert<float, Float16>>},
    {"narrow_bfloat16", start<Convert<float, BFloat16>>},
    {"atomics", start<Atomics>},
};

}  // namespace

void primitive(const Queue& queue, const std::string& name, const Operand& x, const Operand& y) {
  for (const Entry& entry : kPrimitives)
    if (name == entry.name) return entry.start(queue, x, y);
  fail("name: '" + name + "' is no primitive");
}

}  // namespace cuda
}  // namespace fastconv
