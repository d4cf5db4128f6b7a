// What indices scatter, without atomic additions: the values of each position are linked to a list, in any order, and
// then one thread a position adds up its list in row-major order of the values. Lists are short, as few windows meet.
#include "cuda/launch.h"
#include "cuda/pool/windows.h"

namespace fastconv {
namespace cuda {
namespace {

constexpr long long kNone = -1;

__global__ void no_heads_kernel(long long* heads, Index count) {
  for (Index i = dev::first(); i < count; i += dev::step()) heads[i] = kNone;
}

// Value i, in the order of `walk`, which is row-major, goes to the front of its position's list.
__global__ void link_kernel(Indices indices, Walk walk, Index positions, Index count, long long* heads,
                            long long* next) {
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    const Index place = indices.data[offset_of(indices, at)];
    if (place < 0 || place >= positions) continue;
    next[i] = dev::exchange_atomic(heads + (at.n * walk.channels + at.c) * positions + place, i);
  }
}

template <class S>
__global__ void collect_kernel(bool sum, View<const S> values, Walk walk, const long long* heads, const long long* next,
                               View<S> image, Walk image_walk, Index positions, Index count) {
  using T = Compute<S>;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = image_walk.at(i);
    const Index place = (at.at[0] * image.shape[3] + at.at[1]) * image.shape[4] + at.at[2];
    const long long head = heads[(at.n * image_walk.channels + at.c) * positions + place];
    T total = 0;
    long long last = kNone;
    for (;;) {  // the smallest number beyond the last, or the largest of all
      long long chosen = kNone;
      for (long long each = head; each != kNone; each = next[each])
        if (sum ? each > last && (chosen == kNone || each < chosen) : each > chosen) chosen = each;
      if (chosen == kNone) break;
      const T value = dev::load(values.data + offset_of(values, walk.at(chosen)));
      total = sum ? total + value : value;
      last = chosen;
      if (!sum) break;
    }
    dev::store(image.data + offset_of(image, at), total);
  }
}

template <class S>
__global__ void gather_kernel(View<const S> image, Indices indices, View<S> values, Walk walk, Index positions,
                              Index count) {
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Position at = walk.at(i);
    const Index place = indices.data[offset_of(indices, at)];
    const bool inside = place >= 0 && place < positions;
    const Index width = image.shape[4], height = image.shape[3];
    const Index from[kSpatial] = {place / width / height, place / width % height, place % width};
    dev::store(values.data + offset_of(values, at),
               inside ? dev::load(image.data + spatial_offset(image, at.n, at.c, from)) : Compute<S>(0));
  }
}

Index positions_in(const ArrayView& image) { return image.extent(0) * image.extent(1) * image.extent(2); }

Walk row_major(const ArrayView& view) {
  return {view.shape[1], {view.extent(0), view.extent(1), view.extent(2)}, false};
}

}  // namespace

void scatter(const Queue& queue, bool sum, const ArrayView& values, const Indices& indices, const ArrayView& image) {
  const Index count = image.size(), given = values.size(), positions = positions_in(image);
  if (count == 0) return;
  auto* heads = static_cast<long long*>(queue.scratch(sizeof(long long) * static_cast<std::size_t>(count)));
  auto* next = static_cast<long long*>(queue.scratch(sizeof(long long) * static_cast<std::size_t>(given)));
  launch(queue, grid_of(count), no_heads_kernel, heads, count);
  const Walk walk = row_major(values);
  if (given > 0) launch(queue, grid_of(given), link_kernel, indices, walk, positions, given, heads, next);
  dispatch_storage(image.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), collect_kernel<S>, sum, values.as<const S>(), walk,
           static_cast<const long long*>(heads), static_cast<const long long*>(next), image.as<S>(), walk_of(image),
           positions, count);
  });
}

void gather(const Queue& queue, const ArrayView& image, const Indices& indices, const ArrayView& values) {
  const Index count = values.size();
  if (count == 0) return;
  dispatch_storage(image.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), gather_kernel<S>, image.as<const S>(), indices, values.as<S>(), walk_of(values),
           positions_in(image), count);
  });
}

}  // namespace cuda
}  // namespace fastconv
