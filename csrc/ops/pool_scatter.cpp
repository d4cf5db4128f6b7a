// Pooling gradients and unpooling, which move values without arithmetic to speak of: plain loops, one thread per plane
// or block of channels, so that sums have one order, and of values that meet the last one stays.
#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/pool.h"

namespace fastconv {
namespace {

constexpr std::int64_t kItemElements = 1 << 15;
constexpr std::int64_t kChannelBlock = 64;
constexpr std::int64_t kCachedPlane = 1 << 17;  // bytes of a plane that is called to the second-level cache
constexpr std::int64_t kWideSums = 1 << 20;     // float32 sums that 16-bit gradients are added up in at a time

[[noreturn]] void refuse_index(std::int64_t index, std::int64_t positions) {
  fail("indices: got " + std::to_string(index) + ", expected flat spatial positions from 0 to " +
       std::to_string(positions - 1));
}

// Positions of a (D, H, W) array with its offsets in two strided arrays.
template <class Visit>
void for_positions(const std::int64_t (&shape)[kRank], const std::int64_t (&a)[kRank], const std::int64_t (&b)[kRank],
                   Visit&& visit) {
  for (std::int64_t d = 0; d < shape[2]; ++d)
    for (std::int64_t h = 0; h < shape[3]; ++h) {
      std::int64_t at_a = d * a[2] + h * a[3], at_b = d * b[2] + h * b[3];
      for (std::int64_t w = 0; w < shape[4]; ++w, at_a += a[4], at_b += b[4]) visit(at_a, at_b);
    }
}

// Where the flat positions of a (D, H, W) array lie: one step serves an array without gaps.
class PlaceOffsets {
 public:
  template <class T>
  explicit PlaceOffsets(const View<T>& view)
      : height_(view.shape[3]), width_(view.shape[4]), step_{view.stride[2], view.stride[3], view.stride[4]} {
    even_ = (height_ == 1 || step_[1] == width_ * step_[2]) &&
            (view.shape[2] == 1 || step_[0] == width_ * height_ * step_[2]);
  }
  bool dense() const { return even_ && step_[2] == 1; }
  std::int64_t operator()(std::int64_t place) const {
    if (even_) return place * step_[2];
    return place / (width_ * height_) * step_[0] + place / width_ % height_ * step_[1] + place % width_ * step_[2];
  }

 private:
  std::int64_t height_, width_, step_[kSpatial];
  bool even_;
};

struct Add {
  template <class T>
  void operator()(T& place, T value) const {
    place += value;
  }
};

struct Set {
  template <class T>
  void operator()(T& place, T value) const {
    place = value;
  }
};

template <class Put, class T>
void scatter_plane(const T* g, const View<T>& gradients, const std::int64_t* index,
                   const View<const std::int64_t>& indices, std::int64_t positions, T* out) {
  std::memset(out, 0, static_cast<std::size_t>(positions) * sizeof(T));
  const auto put = [=](std::int64_t at_g, std::int64_t at_i) {
    const std::int64_t place = index[at_i];
    if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(positions)) refuse_index(place, positions);
    Put()(out[place], g[at_g]);
  };
  if (PlaceOffsets(gradients).dense() && PlaceOffsets(indices).dense()) {
    const std::int64_t count = indices.shape[2] * indices.shape[3] * indices.shape[4];
    for (std::int64_t i = 0; i < count; ++i) put(i, i);
  } else {
    for_positions(gradients.shape, gradients.stride, indices.stride, put);
  }
}

template <class Put, class T>
void scatter_lanes(const T* g, const View<T>& gradients, const std::int64_t* index,
                   const View<const std::int64_t>& indices, std::int64_t positions, std::int64_t count, T* out) {
  const std::int64_t channels = gradients.shape[1], step_g = gradients.stride[1], step_i = indices.stride[1];
  for (std::int64_t p = 0; p < positions; ++p)
    std::memset(out + p * channels, 0, static_cast<std::size_t>(count) * sizeof(T));
  for_positions(gradients.shape, gradients.stride, indices.stride, [&](std::int64_t at_g, std::int64_t at_i) {
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t place = index[at_i + c * step_i];
      if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(positions)) refuse_index(place, positions);
      Put()(out[place * channels + c], g[at_g + c * step_g]);
    }
  });
}

// Calls for the elements [begin, end) of an array.
template <class T>
void prefetch(const T* array, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t i = begin; i < end; i += line) __builtin_prefetch(array + i, 0, 2);
}

// out[i] = g[index[i]], while the next plane is on its way: indices may come in any order, which no processor foresees.
template <class T>
void gather_plane(const T* g, const T* next, const std::int64_t* index, std::int64_t count, std::int64_t positions,
                  T* out) {
  constexpr std::int64_t block = 64;
  const std::int64_t share = ceil_div(positions, ceil_div(count, block));
  for (std::int64_t begin = 0, ahead = 0; begin < count; begin += block, ahead += share) {
    if (next) prefetch(next, std::min(ahead, positions), std::min(ahead + share, positions));
    const std::int64_t end = std::min(begin + block, count);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t place = index[i];
      if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(positions)) refuse_index(place, positions);
      out[i] = g[place];
    }
  }
}

// The same of `count` channels at each place, `step` apart.
template <class T>
void gather_lanes(const T* g, std::int64_t step, const PlaceOffsets& offsets, const std::int64_t* index,
                  const View<const std::int64_t>& indices, const std::int64_t (&to)[kRank], std::int64_t positions,
                  std::int64_t count, T* out) {
  const std::int64_t step_i = indices.stride[1];
  for_positions(indices.shape, indices.stride, to, [&](std::int64_t at, std::int64_t at_out) {
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t place = index[at + c * step_i];
      if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(positions)) refuse_index(place, positions);
      out[at_out + c] = g[offsets(place) + c * step];
    }
  });
}

// Planes that one work item takes: as many as fit the cache, where every thread gets a few items.
std::int64_t planes_per_item(std::int64_t planes, std::int64_t positions) {
  if (planes * positions <= kItemElements / 2) return planes;
  return std::clamp<std::int64_t>(kItemElements / std::max<std::int64_t>(1, positions), 1,
                                  std::max<std::int64_t>(1, planes / (4 * get_num_threads())));
}

// Adds the values of `count` channels that are side by side in the result up in float32, and rounds once: for a stretch
// of the positions after the other where not all have room. `out` is the first channel's first position.
template <class S>
void scatter_wide(const S* g, const View<S>& gradients, const std::int64_t* index,
                  const View<const std::int64_t>& indices, std::int64_t positions, std::int64_t count,
                  std::int64_t out_step, S* out) {
  const std::int64_t step_g = gradients.stride[1], step_i = indices.stride[1];
  const std::int64_t most = std::clamp<std::int64_t>(kWideSums / count, 1, std::max<std::int64_t>(1, positions));
  Workspace<float> sums(most * count);
  for (std::int64_t first = 0; first == 0 || first < positions; first += most) {
    const std::int64_t some = std::min(most, positions - first);
    std::fill_n(sums.data(), some * count, 0.0F);
    for_positions(gradients.shape, gradients.stride, indices.stride, [&](std::int64_t at_g, std::int64_t at_i) {
      for (std::int64_t c = 0; c < count; ++c) {
        const std::int64_t place = index[at_i + c * step_i];
        if (static_cast<std::uint64_t>(place) >= static_cast<std::uint64_t>(positions)) refuse_index(place, positions);
        if (static_cast<std::uint64_t>(place - first) < static_cast<std::uint64_t>(some))
          sums[(place - first) * count + c] += widen(g[at_g + c * step_g]);
      }
    });
    if (count == out_step) {
      narrow_run(sums.data(), out + first * count, some * count);
    } else {
      for (std::int64_t p = 0; p < some; ++p) narrow_run(sums + p * count, out + (first + p) * out_step, count);
    }
  }
}

template <class Put>
void scatter(const ArrayView& values, const View<const std::int64_t>& indices, std::int64_t positions, bool lanes,
             void* result) {
  const std::int64_t batch = values.shape[0], channels = values.shape[1], planes = batch * channels;
  if (planes == 0) return;
  const double nanoseconds = static_cast<double>(planes * positions);
  dispatch_storage(values.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr bool wide_sums = !is_wide<T> && std::is_same_v<Put, Add>;
    const View<T> gradients = values.as<T>();
    T* const out = static_cast<T*>(result);
    const auto start = [](const auto& view, std::int64_t n, std::int64_t c) {
      return view.data + n * view.stride[0] + c * view.stride[1];
    };
    if (lanes) {
      const std::int64_t blocks = ceil_div(channels, kChannelBlock);
      parallel_for({batch * blocks, nanoseconds}, Subnormals::keep, [&](std::int64_t item) {
        const std::int64_t n = item / blocks, c = item % blocks * kChannelBlock;
        const std::int64_t some = std::min(kChannelBlock, channels - c);
        T* const own = out + n * positions * channels + c;
        if constexpr (wide_sums)
          scatter_wide(start(gradients, n, c), gradients, start(indices, n, c), indices, positions, some, channels,
                       own);
        else
          scatter_lanes<Put>(start(gradients, n, c), gradients, start(indices, n, c), indices, positions, some, own);
      });
      return;
    }
    const std::int64_t step = planes_per_item(planes, positions);
    parallel_for({ceil_div(planes, step), nanoseconds}, Subnormals::keep, [&](std::int64_t item) {
      const std::int64_t last = std::min(planes, (item + 1) * step);
      const auto g = [&](std::int64_t p) { return start(gradients, p / channels, p % channels); };
      const auto index = [&](std::int64_t p) { return start(indices, p / channels, p % channels); };
      for (std::int64_t p = item * step; p < last; ++p) {
        T* const own = out + p * positions;
        if constexpr (wide_sums)
          scatter_wide(g(p), gradients, index(p), indices, positions, 1, 1, own);
        else
          scatter_plane<Put>(g(p), gradients, index(p), indices, positions, own);
      }
    });
  });
}

}  // namespace

void pool_backward_from_indices(const ArrayView& grad_output, const View<const std::int64_t>& indices,
                                std::int64_t positions, bool lanes, void* grad_input) {
  scatter<Add>(grad_output, indices, positions, lanes, grad_input);
}

void max_unpool_forward(const ArrayView& x, const View<const std::int64_t>& indices, std::int64_t positions, bool lanes,
                        void* y) {
  scatter<Set>(x, indices, positions, lanes, y);
}

void max_unpool_backward(const ArrayView& grad_output, const View<const std::int64_t>& indices, bool lanes,
                         void* grad_input) {
  const std::int64_t batch = indices.shape[0], channels = indices.shape[1], planes = batch * channels;
  if (planes == 0) return;
  std::int64_t places = 1;
  for (int i = 2; i < kRank; ++i) places *= indices.shape[i];
  const std::int64_t positions = grad_output.shape[2] * grad_output.shape[3] * grad_output.shape[4];
  const bool in_order = PlaceOffsets(indices).dense();
  // Offsets of the result's elements by canonical axis: contiguous as (N, C, D, H, W) or (N, D, H, W, C).
  const std::int64_t inner = lanes ? channels : 1;
  const std::int64_t to[kRank] = {channels * places, lanes ? 1 : places, indices.shape[3] * indices.shape[4] * inner,
                                  indices.shape[4] * inner, inner};
  const double nanoseconds = 2.0 * static_cast<double>(planes * places);
  dispatch_storage(grad_output.dtype, [&](auto zero) {
    using T = decltype(zero);
    const View<const T> gradients = grad_output.as<const T>();
    const PlaceOffsets offsets(gradients);
    const bool dense = offsets.dense();
    const auto start = [](const auto& view, std::int64_t n, std::int64_t c) {
      return view.data + n * view.stride[0] + c * view.stride[1];
    };
    T* const out = static_cast<T*>(grad_input);
    if (lanes) {
      const std::int64_t blocks = ceil_div(channels, kChannelBlock);
      parallel_for({batch * blocks, nanoseconds}, Subnormals::keep, [&](std::int64_t item) {
        const std::int64_t n = item / blocks, c = item % blocks * kChannelBlock;
        gather_lanes(start(gradients, n, c), gradients.stride[1], offsets, start(indices, n, c), indices, to, positions,
                     std::min(kChannelBlock, channels - c), out + n * to[0] + c);
      });
      return;
    }
    const std::int64_t step = planes_per_item(planes, places);
    const bool cached = positions * static_cast<std::int64_t>(sizeof(T)) <= kCachedPlane;
    parallel_for({ceil_div(planes, step), nanoseconds}, Subnormals::keep, [&](std::int64_t item) {
      const std::int64_t last = std::min(planes, (item + 1) * step);
      for (std::int64_t p = item * step; p < last; ++p) {
        const T* const g = start(gradients, p / channels, p % channels);
        const std::int64_t* const index = start(indices, p / channels, p % channels);
        if (in_order && dense) {
          if (cached && p == item * step) prefetch(g, 0, positions);
          const T* const next =
              cached && p + 1 < last ? start(gradients, (p + 1) / channels, (p + 1) % channels) : nullptr;
          gather_plane(g, next, index, places, positions, out + p * places);
        } else {
          gather_lanes(g, 0, offsets, index, indices, to, positions, 1, out + p * places);
        }
      }
    });
  });
}

void global_avg_pool_backward(const ArrayView& grad_output, std::int64_t positions, bool lanes, void* grad_input) {
  const std::int64_t batch = grad_output.shape[0], channels = grad_output.shape[1], planes = batch * channels;
  if (planes == 0) return;
  const double nanoseconds = 0.3 * static_cast<double>(planes * positions);
  dispatch_storage(grad_output.dtype, [&](auto zero) {
    using T = decltype(zero);
    const View<T> gradients = grad_output.as<T>();
    const T* const g = gradients.data;
    T* const out = static_cast<T*>(grad_input);
    const auto share = [positions](T gradient) {
      return narrow(widen(gradient) / static_cast<Compute<T>>(positions), T{});
    };
    if (lanes) {
      parallel_for({batch, nanoseconds}, Subnormals::keep, [&](std::int64_t n) {
        T* const first = out + n * positions * channels;
        for (std::int64_t c = 0; c < channels; ++c)
          first[c] = share(g[n * gradients.stride[0] + c * gradients.stride[1]]);
        for (std::int64_t p = 1; p < positions; ++p)
          std::memcpy(first + p * channels, first, static_cast<std::size_t>(channels) * sizeof(T));
      });
      return;
    }
    const std::int64_t step = planes_per_item(planes, positions);
    parallel_for({ceil_div(planes, step), nanoseconds}, Subnormals::keep, [&](std::int64_t item) {
      for (std::int64_t p = item * step; p < std::min(planes, (item + 1) * step); ++p)
        std::fill_n(out + p * positions, positions,
                    share(g[p / channels * gradients.stride[0] + p % channels * gradients.stride[1]]));
    });
  });
}

}  // namespace fastconv
