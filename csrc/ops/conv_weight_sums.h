// What the weight gradients share that sum blocks of outputs for some channels of the input and of the output at a
// time: items of channels, parts of the blocks, and where sums go.
#pragma once

#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "core/array_view.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"

namespace fastconv {

// Channels [c0, c0 + channels) of the input and [k0, k0 + outputs) of the output, within a group.
struct WeightItem {
  std::int64_t group, c0, channels, k0, outputs;
};

// The channels of all groups cut into items of at most c_block x k_block, whose sums lie as
// [tap][channel of the input][channel of the output], both to their full size.
struct WeightItems {
  std::int64_t groups, c, k;
  std::int64_t c_block = 1, k_block = 1, c_blocks = 1, k_blocks = 1;

  WeightItems(std::int64_t group_count, std::int64_t inputs, std::int64_t outputs)
      : groups(group_count), c(inputs), k(outputs) {}

  void cut(std::int64_t channels, std::int64_t outputs) {
    c_block = channels;
    k_block = outputs;
    c_blocks = ceil_div(c, c_block);
    k_blocks = ceil_div(k, k_block);
  }
  std::int64_t count() const { return groups * c_blocks * k_blocks; }
  WeightItem operator[](std::int64_t index) const {
    const std::int64_t k0 = index % k_blocks * k_block;
    index /= k_blocks;
    const std::int64_t c0 = index % c_blocks * c_block;
    return {index / c_blocks, c0, std::min(c_block, c - c0), k0, std::min(k_block, k - k0)};
  }

  // The sums of an item to the weight's gradient, whose taps are at these offsets; from one tap's to the next's are
  // `step` elements.
  template <class S>
  void store(const View<S>& dw, const std::vector<std::int64_t>& weight_of_tap, std::int64_t index,
             const Compute<S>* sums, std::int64_t step) const {
    const WeightItem item = (*this)[index];
    S* const target = dw.data + (item.group * k + item.k0) * dw.stride[0] + item.c0 * dw.stride[1];
    const auto taps = static_cast<std::int64_t>(weight_of_tap.size());
    bool dense = dw.stride[1] == taps;
    for (std::int64_t t = 0; t < taps; ++t) dense = dense && weight_of_tap[static_cast<std::size_t>(t)] == t;
    for (std::int64_t k0 = 0; k0 < item.outputs; k0 += kTogether) {
      const std::int64_t outputs = std::min(kTogether, item.outputs - k0);
      if (dense) {
        store_runs(target + k0 * dw.stride[0], dw.stride[0], outputs, item.channels, taps, sums + k0, step);
        continue;
      }
      for (std::int64_t i = 0; i < item.channels; ++i)
        for (std::size_t t = 0; t < weight_of_tap.size(); ++t) {
          const Compute<S>* from = sums + static_cast<std::int64_t>(t) * step + i * k_block + k0;
          S* to = target + k0 * dw.stride[0] + i * dw.stride[1] + weight_of_tap[t];
          for (std::int64_t j = 0; j < outputs; ++j) to[j * dw.stride[0]] = narrow(from[j], S{});
        }
    }
  }

 private:
  static constexpr std::int64_t kTogether = 16;  // outputs that are stored together

  // The weights of an output follow each other. Those of the next may lie a power of two away, where a cache has no
  // room for a line of each: so they are turned in a buffer and written in runs.
  template <class S>
  void store_runs(S* target, std::int64_t next_output, std::int64_t outputs, std::int64_t channels, std::int64_t taps,
                  const Compute<S>* sums, std::int64_t step) const {
    constexpr std::int64_t kRun = 64;
    Compute<S> turned[kTogether][kRun];
    std::int64_t channel = 0, tap = 0;
    for (std::int64_t first = 0; first < channels * taps; first += kRun) {
      const std::int64_t count = std::min(kRun, channels * taps - first);
      for (std::int64_t i = 0; i < count; ++i) {
        const Compute<S>* const from = sums + tap * step + channel * k_block;
        for (std::int64_t j = 0; j < outputs; ++j) turned[j][i] = from[j];
        if (++tap == taps) {
          tap = 0;
          ++channel;
        }
      }
      for (std::int64_t j = 0; j < outputs; ++j) narrow_run(turned[j], target + j * next_output + first, count);
    }
  }
};

// The products of an item's channels; `all` has the first row and column.
template <class T>
void add_outer_sums(const ConvKernel& kernel, const WeightItem& item, const OuterArgs<T>& all) {
  for (std::int64_t k = 0; k < item.outputs; k += kernel.tile_cols)
    in_equal_parts(item.channels, kernel.tile_rows, [&](std::int64_t begin, std::int64_t end) {
      OuterArgs<T> args = all;
      args.a += begin;
      args.b += k;
      args.c += begin * all.ldc + k;
      kernel.outer[end - begin - 1](&args);
    });
}

// Adds the sums of an item's other parts, which lie behind those of the first, in order.
template <class T>
void add_parts(T* total, std::int64_t parts, std::int64_t sums) {
  for (std::int64_t part = 1; part < parts; ++part)
    for (std::int64_t i = 0; i < sums; ++i) total[i] += total[part * sums + i];
}

// Every item's `sums` over all blocks: accumulate(item, part, parts, sums) adds up the blocks of one of so many parts,
// these are added in order, and finish(item, sums) takes the total.
template <class T, class Accumulate, class Finish>
void sum_in_parts(std::int64_t items, std::int64_t sums, std::int64_t blocks, double nanoseconds,
                  Accumulate&& accumulate, Finish&& finish) {
  const std::int64_t parts = parts_of_sum<T>(items, sums, blocks);
  const Subnormals subnormals = subnormals_of(DtypeOf<T>::value);
  if (parts == 1) {
    parallel_for({items, nanoseconds}, subnormals, [&](std::int64_t item) {
      Workspace<T> total(sums);
      accumulate(item, std::int64_t{0}, parts, total.data());
      finish(item, total.data());
    });
    return;
  }
  Workspace<T> totals(parts * items * sums);
  parallel_for({items * parts, nanoseconds}, subnormals,
               [&](std::int64_t i) { accumulate(i / parts, i % parts, parts, totals + i * sums); });
  parallel_for({items, 0.5 * static_cast<double>(items * parts * sums)}, subnormals, [&](std::int64_t item) {
    T* const total = totals + item * parts * sums;
    add_parts(total, parts, sums);
    finish(item, total);
  });
}

}  // namespace fastconv
