// Arrays with the channels side by side, for depthwise kernels: a channels-last array as it lies in memory, any other
// through a packed copy of one block.
#pragma once

#include <algorithm>

#include "core/array_view.h"
#include "cpu/conv/kernels.h"
#include "ops/conv_pack.h"

namespace fastconv {

// Channels shared out evenly to blocks of whole registers, `least` channels or more where there are as many; what is
// left goes with the last block. A block computes on at least one whole register, idle lanes of it on zeros where an
// array has fewer channels.
struct LaneBlocks {
  std::int64_t channels, width, blocks;

  LaneBlocks(std::int64_t all, std::int64_t register_width, std::int64_t least)
      : channels(all), width(register_width), blocks(std::max<std::int64_t>(1, all / least)) {}

  std::int64_t begin(std::int64_t block) const { return channels / width * block / blocks * width; }
  std::int64_t end(std::int64_t block) const { return block + 1 == blocks ? channels : begin(block + 1); }
  // Lanes that a kernel computes for `live` channels, and those of the widest block.
  std::int64_t lanes(std::int64_t live) const { return std::max(live, width); }
  std::int64_t widest() const {
    std::int64_t most = width;
    for (std::int64_t i = 0; i < blocks; ++i) most = std::max(most, end(i) - begin(i));
    return most;
  }
};

// Where the sum of channel c of `lanes` lies: the last register overlaps the one before, but its sums have a place of
// their own.
inline std::int64_t lane_slot(std::int64_t c, std::int64_t lanes, std::int64_t width) {
  const std::int64_t whole = lanes / width * width;
  return c < whole ? c : c + width - (lanes - whole);
}

// Whether lanes can be read or written where they lie.
template <class S>
bool has_lanes(const View<S>& view, std::int64_t width) {
  using Element = std::remove_const_t<S>;
  return std::is_same_v<Element, Compute<Element>> && view.stride[1] == 1 && view.shape[1] >= width;
}

// Channel c of position (d, h, w) is at data[(d - origin[0]) * step[0] + ... + c].
template <class T>
struct Lanes {
  T* data = nullptr;
  std::int64_t step[kSpatial] = {}, origin[kSpatial] = {};

  T* at(std::int64_t d, std::int64_t h, std::int64_t w) const {
    return data + (d - origin[0]) * step[0] + (h - origin[1]) * step[1] + (w - origin[2]) * step[2];
  }

  // The lanes of a view, from channel c0 of sample n.
  static Lanes of(const View<T>& view, std::int64_t n, std::int64_t c0) {
    return {view.data + n * view.stride[0] + c0 * view.stride[1], {view.step(0), view.step(1), view.step(2)}, {}};
  }
  // Scratch for the box [begin, end), `lanes` values a position.
  static Lanes in(T* scratch, std::int64_t lanes, const std::int64_t (&begin)[kSpatial],
                  const std::int64_t (&end)[kSpatial]) {
    const std::int64_t row = (end[2] - begin[2]) * lanes;
    return {scratch, {(end[1] - begin[1]) * row, row, lanes}, {begin[0], begin[1], begin[2]}};
  }
};

// Calls body(d, h, positions) for runs of positions of a box that follow each other evenly in memory: rows, or planes
// where the rows are whole.
template <class T, class Body>
void for_each_run(const View<T>& view, const std::int64_t (&begin)[kSpatial], const std::int64_t (&end)[kSpatial],
                  Body&& body) {
  const bool whole = begin[2] == 0 && end[2] == view.extent(2) && view.step(1) == view.extent(2) * view.step(2);
  const std::int64_t rows = whole ? end[1] - begin[1] : 1, width = end[2] - begin[2];
  if (rows == 0 || width == 0) return;
  for (std::int64_t d = begin[0]; d < end[0]; ++d)
    for (std::int64_t h = begin[1]; h < end[1]; h += rows) body(d, h, rows * width);
}

// Copies the box of `channels` channels from c0 on into scratch, lanes past the channels zero.
template <class S, class T = Compute<S>>
Lanes<const T> pack_lanes(const TransposeKernel& transpose, const View<const S>& view, std::int64_t n, std::int64_t c0,
                          std::int64_t channels, std::int64_t lanes, const std::int64_t (&begin)[kSpatial],
                          const std::int64_t (&end)[kSpatial], T* scratch) {
  const Lanes<T> box = Lanes<T>::in(scratch, lanes, begin, end);
  if (lanes > channels) std::fill_n(scratch, (end[0] - begin[0]) * box.step[0], T(0));
  const Lanes<const S> source = Lanes<const S>::of(view, n, c0);
  const std::int64_t step = view.step(2), plane = view.stride[1];
  for_each_run(view, begin, end, [&](std::int64_t d, std::int64_t h, std::int64_t positions) {
    const S* src = source.at(d, h, begin[2]);
    T* dst = box.at(d, h, begin[2]);
    if (step == 1) {
      widen_transposed(transpose, channels, positions, src, plane, dst, lanes);
      return;
    }
    if (plane == 1) {
      for (std::int64_t p = 0; p < positions; ++p) widen_run(src + p * step, dst + p * lanes, channels);
      return;
    }
    for (std::int64_t p = 0; p < positions; ++p)
      for (std::int64_t c = 0; c < channels; ++c) dst[p * lanes + c] = widen(src[p * step + c * plane]);
  });
  return {box.data, {box.step[0], box.step[1], box.step[2]}, {begin[0], begin[1], begin[2]}};
}

// Copies scratch, made by Lanes::in for the same box, to the view.
template <class S>
void unpack_lanes(const TransposeKernel& transpose, const View<S>& view, std::int64_t n, std::int64_t c0,
                  std::int64_t channels, const Lanes<Compute<S>>& box, const std::int64_t (&begin)[kSpatial],
                  const std::int64_t (&end)[kSpatial]) {
  const Lanes<S> target = Lanes<S>::of(view, n, c0);
  for_each_run(view, begin, end, [&](std::int64_t d, std::int64_t h, std::int64_t positions) {
    store_run<S>(transpose, box.at(d, h, begin[2]), box.step[2], positions, channels, nullptr,
                 target.at(d, h, begin[2]), view.step(2), view.stride[1]);
  });
}

}  // namespace fastconv
