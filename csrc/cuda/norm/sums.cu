// The statistics of sets, and the sums that their gradients need. Each set is cut into parts of one length, by its size
// alone; a block sums a part, its threads in one order, and then one thread a set joins the parts in theirs.
#include "cuda/dev_block.h"
#include "cuda/launch.h"
#include "cuda/norm/elements.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr Index kPart = 8192;  // elements of a part, at least
constexpr Index kMostParts = 512;

struct Parts {
  Index count, length;
};

Parts parts_of(Index elements) {
  const Index count = std::clamp<Index>(elements / kPart, 1, kMostParts);
  return {count, ceil_div(elements, count)};
}

// A small set's block has few threads.
int threads_for(Index length) { return length <= 32 ? 32 : length <= 128 ? 64 : kThreads; }

Grid part_grid(Index sets, const Parts& parts) {
  return {std::clamp<Index>(sets * parts.count, 1, kMostBlocks), threads_for(parts.length),
          2 * dev::kLanes * sizeof(double)};
}

// What is taken off each element: the set's first one, which is about as far from the mean as any.
template <class S>
FASTCONV_DEVICE double pivot_of(const View<const S>& x, const SetWalk& walk, Index set) {
  const double value = static_cast<double>(dev::load(x.data + offset_of(x, walk.at(set, 0))));
  return value - value == 0 ? value : 0;  // not an infinity
}

// The sums of x - pivot and of its square over a part.
template <class S>
__global__ void moments_kernel(View<const S> x, SetWalk sets, Index items, Parts parts, double* partial) {
  double* scratch = dev::shared_memory<double>();
  for (Index item = blockIdx.x; item < items; item += gridDim.x) {
    const Index set = item / parts.count, begin = item % parts.count * parts.length;
    const Index end = dev::smaller(begin + parts.length, sets.elements);
    const double pivot = pivot_of(x, sets, set);
    double sum = 0, square = 0;
    for (Index e = begin + threadIdx.x; e < end; e += blockDim.x) {
      const double d = static_cast<double>(dev::load(x.data + offset_of(x, sets.at(set, e)))) - pivot;
      sum += d;
      square += d * d;
    }
    sum = dev::block_sum(sum, scratch);
    square = dev::block_sum(square, scratch + dev::kLanes);
    if (threadIdx.x == 0) {
      partial[2 * item] = sum;
      partial[2 * item + 1] = square;
    }
  }
}

template <class S>
__global__ void join_moments_kernel(View<const S> x, SetWalk walk, Index sets, Parts parts, const double* partial,
                                    double* mean, double* variance) {
  for (Index set = dev::first(); set < sets; set += dev::step()) {
    const double pivot = pivot_of(x, walk, set);
    const double count = static_cast<double>(walk.elements);
    double sum = 0, square = 0;
    for (Index part = 0; part < parts.count; ++part) {
      sum += partial[2 * (set * parts.count + part)];
      square += partial[2 * (set * parts.count + part) + 1];
    }
    const double shift = sum / count, spread = square / count - shift * shift;
    mean[set] = pivot + shift;
    variance[set] = spread < 0 ? 0 : spread;
  }
}

__global__ void no_elements_kernel(Index sets, double* first, double* second) {
  for (Index set = dev::first(); set < sets; set += dev::step()) {
    first[set] = 0;
    second[set] = 0;
  }
}

template <class S>
__global__ void products_kernel(View<const S> gy, View<const S> x, SetWalk sets, SetWalk statistics, Index items,
                                Parts parts, const double* mean, const double* scale, const S* weight,
                                double* partial) {
  using T = Compute<S>;
  double* scratch = dev::shared_memory<double>();
  for (Index item = blockIdx.x; item < items; item += gridDim.x) {
    const Index set = item / parts.count, begin = item % parts.count * parts.length;
    const Index end = dev::smaller(begin + parts.length, sets.elements);
    double sum = 0, dot = 0;
    for (Index e = begin + threadIdx.x; e < end; e += blockDim.x) {
      const Position at = sets.at(set, e);
      const Index owner = statistics.of(at);
      const double g = static_cast<double>(dev::load(gy.data + offset_of(gy, at))) *
                       static_cast<double>(channel_value(weight, at.c, T(1)));
      const double d = static_cast<double>(dev::load(x.data + offset_of(x, at))) - mean[owner];
      sum += g;
      dot += g * d * (scale ? scale[owner] : 1);
    }
    sum = dev::block_sum(sum, scratch);
    dot = dev::block_sum(dot, scratch + dev::kLanes);
    if (threadIdx.x == 0) {
      partial[2 * item] = sum;
      partial[2 * item + 1] = dot;
    }
  }
}

__global__ void join_products_kernel(Index sets, Parts parts, const double* partial, double* sum, double* dot) {
  for (Index set = dev::first(); set < sets; set += dev::step()) {
    double first = 0, second = 0;
    for (Index part = 0; part < parts.count; ++part) {
      first += partial[2 * (set * parts.count + part)];
      second += partial[2 * (set * parts.count + part) + 1];
    }
    sum[set] = first;
    dot[set] = second;
  }
}

// Two sums a set: body(walk, parts, grid of the parts, how many parts in all, room for two numbers of each) makes them.
template <class Body>
void sum_sets(const Queue& queue, const ArrayView& x, Sets sets, double* first, double* second, Body&& body) {
  const Index count = sets.count(x);
  if (count == 0) return;
  const SetWalk walk = set_walk(x, sets);
  if (walk.elements == 0) {
    launch(queue, grid_of(count), no_elements_kernel, count, first, second);
    return;
  }
  const Parts parts = parts_of(walk.elements);
  const Index items = count * parts.count;
  auto* partial = static_cast<double*>(queue.scratch(sizeof(double) * 2 * static_cast<std::size_t>(items)));
  body(walk, parts, part_grid(count, parts), items, partial);
}

}  // namespace

void moments(const Queue& queue, const ArrayView& x, Sets sets, double* mean, double* variance) {
  sum_sets(queue, x, sets, mean, variance,
           [&](const SetWalk& walk, const Parts& parts, const Grid& grid, Index items, double* partial) {
             dispatch_storage(x.dtype, [&](auto zero) {
               using S = decltype(zero);
               launch(queue, grid, moments_kernel<S>, x.as<const S>(), walk, items, parts, partial);
               const Index count = sets.count(x);
               launch(queue, grid_of(count), join_moments_kernel<S>, x.as<const S>(), walk, count, parts,
                      static_cast<const double*>(partial), mean, variance);
             });
           });
}

void products(const Queue& queue, const ArrayView& grad_output, const ArrayView& x, Sets sets, Sets statistics,
              const double* mean, const double* scale, const ArrayView& weight, double* sum, double* dot) {
  sum_sets(queue, x, sets, sum, dot,
           [&](const SetWalk& walk, const Parts& parts, const Grid& grid, Index items, double* partial) {
             dispatch_storage(x.dtype, [&](auto zero) {
               using S = decltype(zero);
               launch(queue, grid, products_kernel<S>, grad_output.as<const S>(), x.as<const S>(), walk,
                      set_walk(x, statistics), items, parts, mean, scale, static_cast<const S*>(weight.data), partial);
             });
             const Index count = sets.count(x);
             launch(queue, grid_of(count), join_products_kernel, count, parts, static_cast<const double*>(partial), sum,
                    dot);
           });
}

}  // namespace cuda
}  // namespace fastconv
