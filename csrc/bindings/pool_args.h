// What the bindings of the pooling ops share: windows, shapes in a data format, and results that follow the memory
// order of their argument.
#pragma once

#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/array_args.h"
#include "core/pool_shape.h"

namespace fastconv {

using PoolSizes = std::vector<std::int64_t>;
using PoolPairs = std::vector<std::pair<std::int64_t, std::int64_t>>;

// The window as one value, so that forward and backward check it alike.
struct PoolWindowArgs {
  PoolSizes kernel, stride, dilation;
  PoolPairs padding;
  bool ceil_mode, count_include_pad;
  std::int64_t divisor_override;
};

PoolShape make_pool_shape(const std::int64_t (&input)[kRank], int spatial, const PoolWindowArgs& window);

// The canonical shape of a shape in a data format.
void parse_pool_shape(const PoolSizes& shape, bool channels_last, std::int64_t (&canonical)[kRank], int& spatial);

// A fresh array whose memory has the channels last (`lanes`) or first, seen in the data format.
struct PoolResult {
  py::array memory;
  py::object seen;
  void* data() { return memory.mutable_data(); }
};

PoolResult new_pool_result(const py::dtype& dtype, const std::int64_t (&shape)[kRank], int spatial, bool lanes,
                           bool channels_last);

// The same of an output's shape.
PoolResult new_pool_output(Dtype dtype, const PoolShape& shape, int spatial, bool lanes, bool channels_last);
PoolResult new_pool_indices(const PoolShape& shape, int spatial, bool lanes, bool channels_last);

// Refuses an array that has not the shape of the output.
void require_pool_output(const ArrayView& array, const PoolShape& shape, const char* name);

// An int64 array in the data format, of the shape of `like` unless that is null.
View<const std::int64_t> pool_index_view(const py::array& array, bool channels_last, const ArrayView* like,
                                         int spatial);

std::int64_t product_of_spatial(const std::int64_t (&shape)[kRank]);

// The memory order of an input's gradient: that of the output's, or of the data format where a single output
// position leaves it open.
bool gradient_in_lanes(const ArrayView& grad_output, bool channels_last);

}  // namespace fastconv
