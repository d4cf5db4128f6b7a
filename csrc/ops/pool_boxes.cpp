#include "ops/pool_boxes.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/arithmetic.h"
#include "core/dtype.h"
#include "cpu/workspace.h"

namespace fastconv {
namespace {

using Index = std::int64_t;

constexpr Index kBox = 1 << 16;         // elements of a box, if its results are many: they stay in L2
constexpr Index kLargestBox = 1 << 22;  // beyond, results are cut though that widens most of the operands again
constexpr Index kChannels = 16;         // of a box that is cut along the channels, at least, unless that is too large

struct Range {
  Index first, last;
  Index size() const { return last - first; }
};

// The operand's indices along an axis that the results of `own` depend on.
Range operand_range(const PoolAxis& axis, PoolReach reach, const Range& own) {
  const Index before_last = (axis.kernel - 1) * axis.dilation;  // from a window's first tap to its last
  switch (reach) {
    case PoolReach::windows: {
      const Index first = std::clamp<Index>(own.first * axis.stride - axis.pad_before, 0, axis.in - 1);
      const Index last = (own.last - 1) * axis.stride - axis.pad_before + before_last;
      return {first, std::clamp(last, first, axis.in - 1) + 1};
    }
    case PoolReach::covers: {
      const Index begin = own.first + axis.pad_before, end = own.last - 1 + axis.pad_before;
      const Index first = std::clamp<Index>(begin / axis.stride - before_last / axis.stride, 0, axis.out - 1);
      return {first, std::clamp(end / axis.stride, first, axis.out - 1) + 1};
    }
    case PoolReach::bins:
      return {own.first * axis.in / axis.out, ceil_div(own.last * axis.in, axis.out)};
    case PoolReach::bin_covers:
      return {own.first * axis.out / axis.in, ceil_div(own.last * axis.out, axis.in)};
    default:
      return {0, axis.in};
  }
}

// Calls visit(offset in the array, offset in dense memory, count, step in the array) over a box of an array whose axes
// are given from the outermost to the innermost of the dense memory, in runs as long as the array's strides allow.
template <class Visit>
void for_box_runs(const Index (&size)[5], const Index (&step)[5], Visit&& visit) {
  Index sizes[5], steps[5];
  int rank = 0;
  for (int i = 0; i < 5; ++i) {
    if (size[i] == 1) continue;
    if (rank > 0 && steps[rank - 1] == size[i] * step[i]) {
      sizes[rank - 1] *= size[i];
      steps[rank - 1] = step[i];
    } else {
      sizes[rank] = size[i];
      steps[rank++] = step[i];
    }
  }
  if (rank == 0) sizes[rank] = steps[rank] = 1, ++rank;
  Index at[5] = {}, offset = 0;
  for (Index dense = 0;; dense += sizes[rank - 1]) {
    visit(offset, dense, sizes[rank - 1], steps[rank - 1]);
    int i = rank - 2;
    for (; i >= 0; --i) {
      offset += steps[i];
      if (++at[i] < sizes[i]) break;
      offset -= sizes[i] * steps[i];
      at[i] = 0;
    }
    if (i < 0) return;
  }
}

// Where float32 memory lies that stands for an array's elements from the one at `offset` on.
template <class T>
T* start_of(T* memory, Index offset) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(memory) -
                              static_cast<std::uintptr_t>(offset) * sizeof(T));
}

// A box of results: of planes (N * C) or of samples, with some of their channels.
struct Box {
  Range outer, axis[3], channels;
};

template <class S>
class BoxedTask {
 public:
  BoxedTask(const PoolKernel& kernel, const PoolTask& task, PoolReach reach)
      : kernel_(kernel), task_(task), shape_(*task.shape), reach_(reach), lanes_(kernel.family == PoolFamily::lane) {
    const bool backward = reach == PoolReach::covers || reach == PoolReach::bin_covers;
    for (int i = 0; i < 3; ++i)
      extent_[i] = reach == PoolReach::whole ? 1 : backward ? shape_.axis[i].in : shape_.axis[i].out;
  }

  void run() const {
    const Range units{task_.first, task_.last}, columns{task_.col_first, task_.col_last};
    if (!lanes_) {
      cut(units, {columns, {0, 1}});
      return;
    }
    const Range all = reach_ == PoolReach::whole ? columns : Range{0, shape_.channels};
    const Index each = elements(box_at({units.first, units.first + 1}, {{0, 1}, {0, 1}}));
    const Index wanted = std::max(kBox / each / kChannels, Index{1}) * kChannels;
    const Index count = std::min({all.size(), wanted, std::max(kLargestBox / each, Index{1})});
    for (Index c = all.first; c < all.last; c += count)
      cut(units, {{0, extent_[2]}, {c, std::min(all.last, c + count)}});
  }

 private:
  // What a box has beside its units (rows or positions): columns of rows, channels of positions.
  struct Across {
    Range columns, channels;
  };

  // How many units have the same indices but for the innermost `axes` of those that they are counted along.
  Index together(int axes) const {
    const int counted = lanes_ ? 3 : 2;
    Index count = 1;
    for (int i = counted - axes; i < counted; ++i) count *= extent_[i];
    return count;
  }

  // The units that are together with each of the values of the outermost axis that differs: a run of whole such values
  // is a box.
  Index stretch(const Range& units) const {
    int axes = lanes_ ? 3 : 2;
    while (axes > 0 && units.first / together(axes) == (units.last - 1) / together(axes)) --axes;
    return together(axes);
  }

  Box box_at(const Range& units, const Across& across) const {
    Box box{{}, {{0, extent_[0]}, {0, extent_[1]}, across.columns}, across.channels};
    const int counted = lanes_ ? 3 : 2;
    box.outer = {units.first / together(counted), (units.last - 1) / together(counted) + 1};
    for (int i = 0; i < counted && box.outer.size() == 1; ++i) {
      const Index each = together(counted - 1 - i);
      box.axis[i] = {units.first / each % extent_[i], (units.last - 1) / each % extent_[i] + 1};
      if (box.axis[i].size() > 1) break;
    }
    return box;
  }

  static Index size_of(const Box& box, const Range (&axis)[3]) {
    return box.outer.size() * box.channels.size() * axis[0].size() * axis[1].size() * axis[2].size();
  }

  Index elements(const Box& box) const {
    Range over[3];
    operand_ranges(box, over);
    return (size_of(box, over) + size_of(box, box.axis)) * (task_.forward_x.data ? 2 : 1);
  }

  void operand_ranges(const Box& box, Range (&over)[3]) const {
    for (int i = 0; i < 3; ++i) over[i] = operand_range(shape_.axis[i], reach_, box.axis[i]);
  }

  void cut(const Range& units, const Across& across) const {
    const Index size = stretch(units);
    if (units.first % size != 0) return cut_at(units, across, rounded_up(units.first, size));
    if (units.last % size != 0) return cut_at(units, across, units.last / size * size);
    const Box box = box_at(units, across);
    const Index whole = elements(box), values = units.size() / size;
    if (whole > kBox && values > 1) {
      const Index middle = units.first + values / 2 * size;
      const Index half = elements(box_at({units.first, middle}, across));
      if (whole > kLargestBox || half <= whole / 4 * 3) return cut_at(units, across, middle);
    }
    const Range& columns = across.columns;
    if (whole > kLargestBox && !lanes_ && columns.size() > 1) {
      const Index middle = columns.first + columns.size() / 2;
      cut(units, {{columns.first, middle}, across.channels});
      return cut(units, {{middle, columns.last}, across.channels});
    }
    run_box(units, box);
  }

  void cut_at(const Range& units, const Across& across, Index at) const {
    cut({units.first, at}, across);
    cut({at, units.last}, across);
  }

  // Widens a box of an operand; sets where the operand begins, ends and how it strides as the kernel sees it.
  void load(const void* data, const Index (&step)[5], const Box& box, const Range (&axis)[3], float* to,
            const void*& begin, const void*& end, Index (&dense)[5]) const {
    const S* const from =
        static_cast<const S*>(data) + axis[0].first * step[2] + axis[1].first * step[3] + axis[2].first * step[4];
    const auto widen_box = [](const S* source, const Index(&sizes)[5], const Index(&steps)[5], float* target) {
      for_box_runs(sizes, steps, [&](Index offset, Index place, Index count, Index each) {
        if (each == 1) {
          widen_run(source + offset, target + place, count);
        } else {
          for (Index i = 0; i < count; ++i) target[place + i] = widen(source[offset + i * each]);
        }
      });
    };
    const Index depth = axis[0].size(), height = axis[1].size(), width = axis[2].size();
    const Index unit = lanes_ ? box.channels.size() : 1, plane = depth * height * width * unit;
    dense[4] = unit;
    dense[3] = width * unit;
    dense[2] = height * width * unit;
    if (lanes_) {
      dense[1] = 1;
      dense[0] = plane;
      widen_box(from + box.outer.first * step[0] + box.channels.first * step[1],
                {box.outer.size(), depth, height, width, unit}, {step[0], step[2], step[3], step[4], step[1]}, to);
    } else {
      const Index channels = shape_.channels;
      dense[1] = plane;
      dense[0] = plane * channels;
      for (Index p = box.outer.first; p < box.outer.last;) {
        const Index n = p / channels, c = p % channels, count = std::min(box.outer.last - p, channels - c);
        widen_box(from + n * step[0] + c * step[1], {1, count, depth, height, width},
                  {step[0], step[1], step[2], step[3], step[4]}, to + (p - box.outer.first) * plane);
        p += count;
      }
    }
    end = to + size_of(box, axis);
    begin = start_of(
        to, box.outer.first * plane + axis[0].first * dense[2] + axis[1].first * dense[3] + axis[2].first * dense[4]);
  }

  // Global pools of images larger than any box: value by value, sums in float64.
  void reduce_whole(const Box& box) const {
    const bool mean = std::strcmp(kernel_.op, "global_avg_pool") == 0;
    const Range &planes = box.outer, &own = box.channels;
    const Index channels = shape_.channels;
    for (Index outer = planes.first; outer < planes.last; ++outer)
      for (Index channel = own.first; channel < own.last; ++channel) {
        const Index at = lanes_ ? outer * channels + channel : outer;
        const Index first = at / channels * task_.x_stride[0] + at % channels * task_.x_stride[1];
        double total = 0;
        float best = -std::numeric_limits<float>::infinity();
        Index place = 0, position = 0;
        for_positions([&](Index offset) {
          const float value = widen(static_cast<const S*>(task_.x)[first + offset]);
          total += static_cast<double>(value);
          if (value > best || value != value) {
            best = value;
            place = position;
          }
          ++position;
        });
        const double result = mean ? total / static_cast<double>(position) : static_cast<double>(best);
        static_cast<S*>(task_.y)[at] = narrow(static_cast<float>(result), S{});
        if (task_.indices) task_.indices[at] = place;
      }
  }

  template <class Visit>
  void for_positions(Visit&& visit) const {
    const Index* const step = task_.x_stride + 2;
    for (Index d = 0; d < shape_.axis[0].in; ++d)
      for (Index h = 0; h < shape_.axis[1].in; ++h)
        for (Index w = 0; w < shape_.axis[2].in; ++w) visit(d * step[0] + h * step[1] + w * step[2]);
  }

  void run_box(const Range& units, const Box& box) const {
    Range over[3];
    operand_ranges(box, over);
    if (reach_ == PoolReach::whole && size_of(box, over) > kLargestBox) return reduce_whole(box);
    PoolShape shape = shape_;
    PoolTask own = task_;
    own.shape = &shape;
    own.first = units.first;
    own.last = units.last;
    own.col_first = box.axis[2].first;
    own.col_last = box.axis[2].last;
    if (lanes_) {
      shape.channels = box.channels.size();
      own.col_first = 0;
      own.col_last = box.channels.size();
    }
    const bool power = task_.forward_x.data != nullptr;
    const Index operand = size_of(box, over), input = power ? size_of(box, box.axis) : 0;
    Workspace<float> operands(operand * (power ? 2 : 1) + input);
    load(task_.x, task_.x_stride, box, over, operands, own.x, own.x_end, own.x_stride);
    if (power) {
      const PoolOperand &x = task_.forward_x, &y = task_.forward_y;
      load(y.data, y.stride, box, over, operands + operand, own.forward_y.data, own.forward_y.end,
           own.forward_y.stride);
      load(x.data, x.stride, box, box.axis, operands + 2 * operand, own.forward_x.data, own.forward_x.end,
           own.forward_x.stride);
    }
    // Of each unit the results [first, first + count) of `whole`; `pitch` is the distance of units in scratch memory.
    const Index whole = lanes_ ? shape_.channels : extent_[2];
    const Range& across = lanes_ ? box.channels : box.axis[2];
    const Index count = across.size(), pitch = lanes_ ? count : whole;
    // One row may be very long, of which only these columns are held.
    const Index left_out = lanes_ || units.size() > 1 ? 0 : across.first;
    const Index held = units.size() * pitch - (lanes_ || units.size() > 1 ? 0 : whole - count);
    Workspace<float> results(held);
    own.y = start_of(results.data(), units.first * pitch + left_out);
    const bool own_indices = task_.indices && lanes_ && count != whole;
    Workspace<std::int64_t> indices(own_indices ? held : 0);
    if (own_indices) own.indices = start_of(indices.data(), units.first * pitch);
    kernel_.run(own);
    const Index runs = count == whole ? 1 : units.size(), length = count == whole ? units.size() * count : count;
    const float* const from = results + ((lanes_ ? 0 : across.first) - left_out);
    S* const to = static_cast<S*>(task_.y) + units.first * whole + across.first;
    for (Index i = 0; i < runs; ++i) {
      narrow_run(from + i * pitch, to + i * whole, length);
      if (own_indices)
        std::copy_n(indices + i * pitch, count, task_.indices + (units.first + i) * whole + across.first);
    }
  }

  const PoolKernel& kernel_;
  const PoolTask& task_;
  const PoolShape& shape_;
  PoolReach reach_;
  bool lanes_;
  Index extent_[3];  // of the results
};

}  // namespace

void run_pool_kernel(const PoolKernel& kernel, const PoolTask& task, const PoolData& data) {
  dispatch_storage(data.dtype, [&](auto zero) {
    using S = decltype(zero);
    if constexpr (is_wide<S>)
      kernel.run(task);
    else
      BoxedTask<S>(kernel, task, data.reach).run();
  });
}

}  // namespace fastconv
