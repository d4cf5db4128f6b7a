// Depthwise gather with the channels side by side. A block of outputs falls into rectangles that have the same live
// taps, so nothing is multiplied by padding. All phases of a block are computed together, so that its input is read,
// and where it is not channels-last packed, once.
#include <algorithm>

#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_lanes.h"

namespace fastconv {
namespace {

constexpr std::int64_t kPackedLanes = 32;          // channels of a block that is packed
constexpr std::int64_t kLongLanes = 1024;          // of a block that is read and written where it lies, as one stream
constexpr std::int64_t kSharedLanes = 64;          // of such a block where longer ones would leave threads idle
constexpr std::int64_t kBlockElements = 32 << 10;  // of a block of outputs
constexpr std::int64_t kScratchElements = 256 << 10;  // of the input of one block, at most
constexpr std::int64_t kBlockWidth = 512;

template <class S>
class LanesDriver {
  using T = Compute<S>;

 public:
  explicit LanesDriver(const GatherProblem<S>& problem)
      : p_(problem),
        y_(problem.result()),
        kernel_(select_depthwise(DtypeOf<T>::value, problem.groups, active_isa_mask())),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        x_in_place_(has_lanes(p_.x, kernel_.tile_cols)),
        y_in_place_(has_lanes(y_, kernel_.tile_cols)),
        lanes_(p_.groups, kernel_.tile_cols, block_lanes()) {
    for (int axis = 0; axis < kSpatial; ++axis) kernel_size_[axis] = p_.kernel_extent(axis);
    std::int64_t size[kSpatial] = {1, y_.extent(1), std::min(y_.extent(2), kBlockWidth)};
    size[1] = std::clamp<std::int64_t>(kBlockElements / lanes_.widest() / std::max<std::int64_t>(1, size[2]), 1,
                                       std::max<std::int64_t>(1, size[1]));
    for (int axis = 0; axis < kSpatial; ++axis)
      blocks_[axis] = axis_blocks(p_.phases[axis], y_.extent(axis), p_.x.extent(axis), size[axis]);
    x_scratch_ = y_scratch_ = lanes_.widest();
    for (int axis = 0; axis < kSpatial; ++axis) {
      std::int64_t span = 0;
      for (const AxisBlock& block : blocks_[axis]) span = std::max(span, block.x_end - block.x_begin);
      x_scratch_ *= span;
      y_scratch_ *= size[axis];
    }
  }

  // Whether the block's input can be packed; taps may lie far apart.
  bool serves() const { return x_in_place_ || x_scratch_ <= kScratchElements; }

  void run() {
    const std::int64_t taps = kernel_size_[0] * kernel_size_[1] * kernel_size_[2];
    const std::int64_t at_once = std::clamp<std::int64_t>(
        kMostElements<T> / (std::max<std::int64_t>(1, taps) * lanes_.widest()), 1, lanes_.blocks);
    for (std::int64_t first = 0; first < lanes_.blocks; first += at_once) {
      const std::int64_t last = std::min(lanes_.blocks, first + at_once);
      const std::int64_t c0 = lanes_.begin(first), channels = lanes_.end(last - 1) - c0;
      const std::int64_t packed_lanes = lanes_.lanes(channels);
      Workspace<T> weights(taps * packed_lanes), bias(packed_lanes);
      pack_weights(weights, c0, channels, packed_lanes);
      if (p_.bias) {
        std::fill_n(bias.data(), packed_lanes, T(0));
        std::copy_n(p_.bias + c0, channels, bias.data());
      }
      compute(first, last - first, weights, p_.bias ? bias.data() : nullptr, packed_lanes);
    }
  }

 private:
  std::int64_t block_lanes() const {
    if (!x_in_place_ || !y_in_place_) return kPackedLanes;
    const double blocks = static_cast<double>(y_.size()) / static_cast<double>(kBlockElements);
    return blocks >= 4.0 * get_num_threads() ? kLongLanes : kSharedLanes;
  }

  // [tap of the whole kernel][channel], lanes past the channels zero.
  void pack_weights(T* packed, std::int64_t c0, std::int64_t channels, std::int64_t packed_lanes) const {
    for (std::int64_t d = 0; d < kernel_size_[0]; ++d)
      for (std::int64_t h = 0; h < kernel_size_[1]; ++h)
        for (std::int64_t w = 0; w < kernel_size_[2]; ++w, packed += packed_lanes) {
          const S* source =
              p_.weight + c0 * p_.weight_group + d * p_.weight_tap[0] + h * p_.weight_tap[1] + w * p_.weight_tap[2];
          for (std::int64_t c = 0; c < channels; ++c) packed[c] = widen(source[c * p_.weight_group]);
          std::fill(packed + channels, packed + packed_lanes, T(0));
        }
  }

  void compute(std::int64_t first, std::int64_t lane_blocks, const T* weights, const T* bias,
               std::int64_t packed_lanes) const {
    const auto count = [&](int axis) { return static_cast<std::int64_t>(blocks_[axis].size()); };
    const double outputs = static_cast<double>(lanes_.end(first + lane_blocks - 1) - lanes_.begin(first)) *
                           static_cast<double>(p_.x.shape[0] * y_.extent(0) * y_.extent(1)) *
                           static_cast<double>(y_.extent(2));
    const double steps = outputs * static_cast<double>(kernel_size_[0] * kernel_size_[1] * kernel_size_[2] + 4);
    parallel_for({p_.x.shape[0] * lane_blocks * count(0) * count(1) * count(2), steps * multiply_add_nanoseconds<T>()},
                 subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
                   const AxisBlock* block[kSpatial];
                   for (int axis = kSpatial - 1; axis >= 0; --axis) {
                     block[axis] = &blocks_[axis][static_cast<std::size_t>(item % count(axis))];
                     item /= count(axis);
                   }
                   const std::int64_t offset = lanes_.begin(first + item % lane_blocks) - lanes_.begin(first);
                   run_block(item / lane_blocks, first + item % lane_blocks, block, weights + offset,
                             bias ? bias + offset : nullptr, packed_lanes);
                 });
  }

  void run_block(std::int64_t n, std::int64_t lane_block, const AxisBlock* const (&block)[kSpatial], const T* weights,
                 const T* bias, std::int64_t packed_lanes) const {
    const std::int64_t c0 = lanes_.begin(lane_block), channels = lanes_.end(lane_block) - c0;
    const std::int64_t lanes = lanes_.lanes(channels);
    std::int64_t x_begin[kSpatial], x_end[kSpatial], y_begin[kSpatial], y_end[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) {
      x_begin[axis] = block[axis]->x_begin;
      x_end[axis] = block[axis]->x_end;
      y_begin[axis] = block[axis]->y_begin;
      y_end[axis] = block[axis]->y_end;
    }
    Workspace<T> x_scratch(x_in_place_ ? 1 : x_scratch_), y_scratch(y_in_place_ ? 1 : y_scratch_);
    Lanes<const T> x;
    Lanes<T> y = Lanes<T>::in(y_scratch, lanes, y_begin, y_end);
    if constexpr (std::is_same_v<S, T>) {
      if (x_in_place_) x = Lanes<const T>::of(p_.x, n, c0);
      if (y_in_place_) y = Lanes<T>::of(y_, n, c0);
    }
    if (!x_in_place_) x = pack_lanes<S>(transpose_, p_.x, n, c0, channels, lanes, x_begin, x_end, x_scratch.data());
    const std::int64_t w_step[kSpatial] = {kernel_size_[1] * kernel_size_[2] * packed_lanes,
                                           kernel_size_[2] * packed_lanes, packed_lanes};
    for (const AxisRun& d : block[0]->runs)
      for (std::int64_t i = 0; i < d.count; ++i)
        for (const AxisRun& h : block[1]->runs)
          for (const AxisRun& w : block[2]->runs) {
            const bool live = d.taps > 0 && h.taps > 0 && w.taps > 0;
            const LanesArgs<T> args{live ? x.at(d.x + i * d.x_step, h.x, w.x) : x.data,
                                    weights + d.w * w_step[0] + h.w * w_step[1] + w.w * w_step[2],
                                    bias,
                                    y.at(d.y + i * d.y_step, h.y, w.y),
                                    lanes,
                                    {h.count, w.count},
                                    {h.x_step * x.step[1], w.x_step * x.step[2]},
                                    {h.y_step * y.step[1], w.y_step * y.step[2]},
                                    {live ? d.taps : 0, h.taps, w.taps},
                                    {d.x_tap * x.step[0], h.x_tap * x.step[1], w.x_tap * x.step[2]},
                                    {d.w_tap * w_step[0], h.w_tap * w_step[1], w.w_tap * w_step[2]}};
            kernel_.lanes(&args);
          }
    for (std::int64_t d = y_begin[0]; p_.finish.changes() && d < y_end[0]; ++d)
      for (std::int64_t h = y_begin[1]; h < y_end[1]; ++h)
        p_.finish.rows(y.at(d, h, y_begin[2]), y.step[2], y_end[2] - y_begin[2], c0, channels, nullptr);
    if (y_in_place_) return;
    unpack_lanes(transpose_, y_, n, c0, channels, y, y_begin, y_end);
  }

  const GatherProblem<S>& p_;
  View<S> y_;
  const DepthwiseKernel& kernel_;
  const TransposeKernel& transpose_;
  bool x_in_place_, y_in_place_;
  LaneBlocks lanes_;
  std::int64_t kernel_size_[kSpatial];
  std::vector<AxisBlock> blocks_[kSpatial];
  std::int64_t x_scratch_ = 1, y_scratch_ = 1;
};

}  // namespace

template <class S>
bool gather_lanes(const GatherProblem<S>& problem) {
  LanesDriver<S> driver(problem);
  if (!driver.serves()) return false;
  driver.run();
  return true;
}

template bool gather_lanes<float>(const GatherProblem<float>&);
template bool gather_lanes<double>(const GatherProblem<double>&);
template bool gather_lanes<Float16>(const GatherProblem<Float16>&);
template bool gather_lanes<BFloat16>(const GatherProblem<BFloat16>&);

}  // namespace fastconv
