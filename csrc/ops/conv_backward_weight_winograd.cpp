// Weight gradient by Winograd's algorithm, the transpose of what conv_winograd.cpp computes: blocks of tiles of 2x2
// outputs (winograd_plan.h; of 1x2 where a plane is one row), whose inputs and gradients are packed channels last and
// transformed to 16 points; at each point the sum over tiles of the products of all channels of the one with all of the
// other, added to what other blocks have; the 16 sums transformed to a run of taps at the end. Runs of taps, and taps
// along the depth, have sums of their own. With dilation, outputs of one residue modulo it are images of their own.
// What blocks are added up by which thread, and in which order, depends on the shape only.
//
// The transforms mix the values of a tile. Where a result is not finite the definition may have others, and where all
// are very small they may have lost what the transform halves: then nothing of it counts.
#include <algorithm>
#include <atomic>
#include <limits>
#include <string>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"
#include "ops/conv_weight_sums.h"
#include "ops/winograd_plan.h"

namespace fastconv {
namespace {

constexpr std::int64_t kChannelRun = 16;  // transformed inputs come in whole cache lines
constexpr std::int64_t kPad = 16;         // elements that keep rows and points off powers of two
constexpr std::int64_t kFewestChannels = 8;
// A shorter sum errs less than the transforms (docs/decisions/0012).
constexpr std::int64_t kFewestOutputs = 1024, kFewestOfLines = 256;
// Tiles of a block, which one running sum adds up; where there are few, their part of the error is larger.
constexpr std::int64_t kTiles = 64, kFewTiles = 32, kFew = 128;
constexpr std::int64_t kInputs = 64, kOutputs = 128;        // channels of an item
constexpr std::int64_t kMostBytes = std::int64_t{8} << 20;  // of a block's transformed inputs

// The first `count` of some positions, which are read from the phase's first tap on. Those behind stay zero.
AxisSlots tile_slots(std::int64_t positions, const AxisPhase& phase, std::int64_t step, std::int64_t count) {
  AxisSlots slots;
  slots.slots = positions;
  slots.runs = {{0, phase.taps[0].offset, step, count}};
  return slots;
}

template <class S>
class WinogradWeightGradient {
  using T = Compute<S>;

 public:
  WinogradWeightGradient(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                         const View<S>& grad_weight, const WinogradKernel& kernel)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        items_(shape.groups, input.shape[1] / shape.groups, grad_output.shape[1] / shape.groups),
        winograd_(kernel),
        gemm_(find_conv(DtypeOf<T>::value, winograd_columns<T>(kernel, items_.k), active_isa_mask())),
        cols_(gemm_.tile_cols) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      const AxisPhase phase = forward_phases(shape.window[axis], gy_.extent(axis))[0];
      const AxisPhase outputs = forward_phases(Window{}, gy_.extent(axis))[0];
      lattices_[axis] = axis == 0 ? std::vector<AxisPhase>{phase} : lattices(phase);
      for (const AxisPhase& lattice : lattices_[axis]) {
        out_lattices_[axis].push_back(outputs);
        out_lattices_[axis].back().in_step = lattice.out_step;
        out_lattices_[axis].back().taps[0].offset = lattice.out_start;
      }
    }
    images_of_sample_ = static_cast<std::int64_t>(lattices_[1].size() * lattices_[2].size());
    images_ = gy_.shape[0] * images_of_sample_;
    depth_taps_ = static_cast<std::int64_t>(lattices_[0][0].taps.size());
    cut_.emplace_back(lattices_[1][0], WinogradAxis::down);
    cut_.emplace_back(lattices_[2][0], WinogradAxis::across);
    points_ = winograd_points_of(rows());
    for (const Tap& tap : lattices_[0][0].taps)
      for (const WinogradAxis::Run& down : rows().runs)
        for (const WinogradAxis::Run& across : columns().runs) runs_.push_back(run_of(tap, down, across));
    // The sums of an item stay in the second-level cache, those of several runs together.
    const std::int64_t inputs = kInputs / (plane_runs() > 4 ? 4 : plane_runs() > 2 ? 2 : 1);
    items_.cut(balanced(items_.c, inputs), std::min(rounded_up(items_.k, cols_), rounded_up(kOutputs, cols_)));
    row_ = rounded_up(items_.c_block, kChannelRun);
    point_ = items_.c_block * items_.k_block;
    sums_ = static_cast<std::int64_t>(runs_.size()) * points_ * point_;
    choose_block();
  }

  bool fits() const {
    return sums_ <= kMostElements<T> && transformed_inputs() * static_cast<std::int64_t>(sizeof(T)) <= kMostBytes;
  }

  // False where nothing of the result counts.
  bool run() {
    count_kernel(winograd_);
    count_kernel(gemm_);
    transpose_ = &select_transpose(DtypeOf<T>::value, active_isa_mask());
    const double products = static_cast<double>(items_.count() * sums_) * static_cast<double>(blocks_) *
                            static_cast<double>(together_ * block_[0] * block_[1] * block_[2]);
    sum_in_parts<T>(
        items_.count(), sums_, blocks_, products * multiply_add_nanoseconds<T>(),
        [&](std::int64_t item, std::int64_t part, std::int64_t parts, T* sums) {
          accumulate(items_[item], part, parts, sums);
        },
        [&](std::int64_t item, T* sums) { finish(item, sums); });
    return serves_.load(std::memory_order_relaxed);
  }

 private:
  // A run of taps, and where they are in the weight.
  struct Run {
    WinogradRun taps;
    std::vector<std::int64_t> weights;
  };
  Run run_of(const Tap& depth, const WinogradAxis::Run& down, const WinogradAxis::Run& across) const {
    Run run{{rows().form(down), columns().form(across)}, {}};
    for (int i = 0; i < down.taps; ++i)
      for (int j = 0; j < across.taps; ++j)
        run.weights.push_back(depth.index * dw_.step(0) + lattices_[1][0].taps[down.place[i]].index * dw_.step(1) +
                              lattices_[2][0].taps[across.place[j]].index * dw_.step(2));
    return run;
  }

  const WinogradAxis& rows() const { return cut_[0]; }
  const WinogradAxis& columns() const { return cut_[1]; }
  std::int64_t plane_runs() const { return static_cast<std::int64_t>(rows().runs.size() * columns().runs.size()); }

  // Rows of tiles as long as they may be, as many rows as fill a block, and as many planes and samples if those do not.
  void choose_block() {
    const std::int64_t extent[kSpatial] = {gy_.extent(0), ceil_div(lattices_[1][0].out_count, rows().tile),
                                           ceil_div(lattices_[2][0].out_count, columns().tile)};
    // Inputs of neighbouring planes are transformed once for all taps that read them.
    block_[0] = depth_taps_ > 1 ? std::min<std::int64_t>(extent[0], 2) : 1;
    const std::int64_t wanted = images_ * extent[0] * extent[1] * extent[2] <= kFew ? kFewTiles : kTiles;
    block_[2] = balanced(extent[2], wanted);
    block_[1] = balanced(extent[1], wanted / block_[0] / block_[2]);
    const bool plane = block_[1] == extent[1] && block_[2] == extent[2];
    if (plane) block_[0] = balanced(extent[0], std::max(block_[0], wanted / (block_[1] * block_[2])));
    const std::int64_t tiles = block_[0] * block_[1] * block_[2];
    together_ = plane && block_[0] == extent[0] ? balanced(images_, wanted / tiles) : 1;
    const std::int64_t planes = axis_slots(lattices_[0][0], block_[0], false).slots;
    tiles_ = together_ * tiles;
    input_tiles_ = together_ * planes * block_[1] * block_[2];
    blocks_ = ceil_div(images_, together_);
    for (int axis = 0; axis < kSpatial; ++axis) blocks_ *= block_count_[axis] = ceil_div(extent[axis], block_[axis]);
  }

  std::int64_t input_point() const { return input_tiles_ * row_ + kPad; }
  std::int64_t transformed_inputs() const { return plane_runs() * points_ * input_point(); }
  std::int64_t gradient_row() const { return items_.k_block + kPad; }
  std::int64_t gradient_point() const { return tiles_ * gradient_row() + kPad; }

  // Some tiles of some images: samples, or with dilation one lattice of a sample each, the first of which is the
  // largest.
  struct Block {
    std::int64_t first, images, j0[kSpatial], count[kSpatial], tiles[kSpatial], outputs[kSpatial];  // of whole tiles

    std::int64_t area() const { return tiles[1] * tiles[2]; }
  };

  struct Image {
    std::int64_t sample, count[kSpatial];
    std::size_t lattice[kSpatial];

    bool empty() const { return count[1] <= 0 || count[2] <= 0; }
    bool whole(const Block& block) const { return count[1] == block.outputs[1] && count[2] == block.outputs[2]; }
  };
  Image image(const Block& block, std::int64_t index) const {
    const auto rest = static_cast<std::size_t>((block.first + index) % images_of_sample_);
    const std::size_t columns = lattices_[2].size();
    Image one{(block.first + index) / images_of_sample_, {block.count[0], 0, 0}, {0, rest / columns, rest % columns}};
    for (int axis = 1; axis < kSpatial; ++axis)
      one.count[axis] = std::min(block.count[axis], lattices_[axis][one.lattice[axis]].out_count - block.j0[axis]);
    return one;
  }

  void accumulate(const WeightItem& item, std::int64_t part, std::int64_t parts, T* sums) const {
    std::fill_n(sums, sums_, T(0));
    Workspace<T> inputs(transformed_inputs()), gradients(points_ * gradient_point());
    for (std::int64_t b = blocks_ * part / parts; b < blocks_ * (part + 1) / parts; ++b) {
      Block block;
      block.first = locate_block(b, block_count_, block_, block.j0) * together_;
      block.images = std::min(together_, images_ - block.first);
      if (!place(block)) continue;
      const AxisSlots depth = axis_slots(lattices_[0][0], block.count[0], false);
      transform_inputs(item, block, depth, inputs);
      transform_gradients(item, block, gradients);
      multiply(item, block, depth, inputs, gradients, sums);
    }
  }

  // Where the images of a block begin, and its size: as many tiles as the largest of them needs. False if it is empty.
  bool place(Block& block) const {
    std::int64_t longest[kSpatial] = {};
    const std::int64_t tile[kSpatial] = {1, rows().tile, columns().tile};
    for (int axis = 0; axis < kSpatial; ++axis) {
      block.j0[axis] *= tile[axis];
      block.count[axis] = block_[axis] * tile[axis];
    }
    block.count[0] = std::min(block.count[0], gy_.extent(0) - block.j0[0]);
    for (std::int64_t i = 0; i < block.images; ++i) {
      const Image own = image(block, i);
      for (int axis = 1; axis < kSpatial; ++axis) longest[axis] = std::max(longest[axis], own.count[axis]);
    }
    longest[0] = block.count[0];
    for (int axis = 0; axis < kSpatial; ++axis) {
      block.count[axis] = longest[axis];
      block.tiles[axis] = ceil_div(longest[axis], tile[axis]);
      block.outputs[axis] = block.tiles[axis] * tile[axis];
    }
    return block.area() > 0;
  }

  // To [run][point][image][plane of the input][tile][channel].
  void transform_inputs(const WeightItem& item, const Block& block, const AxisSlots& depth, T* inputs) const {
    const std::int64_t height = rows().slots(block.outputs[1]), width = columns().slots(block.outputs[2]);
    const std::int64_t plane = height * width * row_;
    Workspace<T> packed(depth.slots * plane);
    for (std::int64_t i = 0; i < block.images; ++i) {
      const Image own = image(block, i);
      const AxisPhase &lines = lattices_[1][own.lattice[1]], &line = lattices_[2][own.lattice[2]];
      const AxisSlots down = tile_slots(height, lines, rows().in_step, rows().slots(own.count[1])),
                      across = tile_slots(width, line, columns().in_step, columns().slots(own.count[2]));
      const bool whole = down.runs[0].count == height && across.runs[0].count == width;
      if (!whole || item.channels < row_) std::fill_n(packed.data(), depth.slots * plane, T(0));
      if (!own.empty())
        BlockPacker<S>{x_, {&lattices_[0][0], &lines, &line}, {&depth, &down, &across}, *transpose_}.pack(
            packed, own.sample, item.group * items_.c + item.c0, item.channels, block.j0, row_, 1);
      for (std::int64_t d = 0; d < depth.slots; ++d) {
        std::int64_t run = 0;
        for (const WinogradAxis::Run& r : rows().runs)
          for (const WinogradAxis::Run& c : columns().runs) {
            const WinogradInputArgs<T> args{
                packed + d * plane + (r.slot * width + c.slot) * row_,
                rows().step * width * row_,
                columns().step * row_,
                block.tiles[1],
                block.tiles[2],
                row_,
                inputs + run++ * points_ * input_point() + (i * depth.slots + d) * block.area() * row_,
                row_,
                input_point()};
            winograd_.input[rows().form(r)][columns().form(c) - 1](&args);
          }
      }
    }
  }

  // To [point][image][plane of the output][tile][column].
  void transform_gradients(const WeightItem& item, const Block& block, T* gradients) const {
    const AxisSlots out_depth = axis_slots(out_lattices_[0][0], block.count[0], false);
    const std::int64_t height = block.outputs[1], width = block.outputs[2];
    const std::int64_t columns = rounded_up(item.outputs, cols_), channel = item.group * items_.k + item.k0;
    Workspace<T> packed(out_depth.slots * height * width * columns);
    WinogradInputArgs<T> args{nullptr,         0, 0, block.tiles[1], block.tiles[2], columns, gradients, gradient_row(),
                              gradient_point()};
    for (std::int64_t i = 0; i < block.images; ++i) {
      const Image own = image(block, i);
      const AxisPhase &down = out_lattices_[1][own.lattice[1]], &across = out_lattices_[2][own.lattice[2]];
      std::int64_t plane_step = height * width * columns;
      // Whole tiles of whole panels whose channels lie side by side are read where they are.
      const bool whole = own.whole(block) && item.outputs == columns;
      const S* const in_place = at(own.sample, channel, block.j0, down, across);
      if (std::is_same_v<S, T> && whole && gy_.stride[1] == 1) {
        if constexpr (std::is_same_v<S, T>) args.x = in_place;
        args.row_step = down.in_step * gy_.step(1);
        args.position_step = across.in_step * gy_.step(2);
        plane_step = gy_.step(0);
      } else {
        if (!whole) std::fill_n(packed.data(), block.count[0] * plane_step, T(0));
        const AxisSlots rows = tile_slots(height, down, down.in_step, own.count[1]),
                        line = tile_slots(width, across, across.in_step, own.count[2]);
        if (!own.empty())
          BlockPacker<S>{gy_, {&out_lattices_[0][0], &down, &across}, {&out_depth, &rows, &line}, *transpose_}.pack(
              packed, own.sample, channel, item.outputs, block.j0, columns, 1);
        args.x = packed;
        args.row_step = width * columns;
        args.position_step = columns;
      }
      const T* const first = args.x;
      for (std::int64_t d = 0; d < block.count[0]; ++d) {
        args.x = first + d * plane_step;
        args.v = gradients + (i * block.count[0] + d) * block.area() * gradient_row();
        winograd_.gradient[rows().longest_form()][this->columns().longest_form() - 1](&args);
      }
    }
  }

  // A block's first gradient of a lattice.
  const S* at(std::int64_t sample, std::int64_t channel, const std::int64_t (&j0)[kSpatial], const AxisPhase& down,
              const AxisPhase& across) const {
    return gy_.data + sample * gy_.stride[0] + channel * gy_.stride[1] + j0[0] * gy_.step(0) +
           (down.taps[0].offset + j0[1] * down.in_step) * gy_.step(1) +
           (across.taps[0].offset + j0[2] * across.in_step) * gy_.step(2);
  }

  // The products of all tiles in as few runs as may be: a tap's inputs lie like the gradients throughout, or within an
  // image, or only within a plane.
  void multiply(const WeightItem& item, const Block& block, const AxisSlots& depth, const T* inputs, const T* gradients,
                T* sums) const {
    const std::int64_t area = block.area(), planes = block.images * block.tiles[0];
    std::int64_t planes_of_run = 1;
    if (depth.step == 1) planes_of_run = depth.slots == block.tiles[0] ? planes : block.tiles[0];
    const std::int64_t length = planes_of_run * area;
    for (std::int64_t run = 0; run < plane_runs(); ++run)
      for (std::int64_t point = 0; point < points_; ++point)
        for (std::int64_t tap = 0; tap < depth_taps_ && runs_[static_cast<std::size_t>(run)].taps.has(point); ++tap)
          for (std::int64_t plane = 0; plane < planes; plane += planes_of_run) {
            const std::int64_t slot = plane / block.tiles[0] * depth.slots + plane % block.tiles[0] * depth.step +
                                      depth.base[static_cast<std::size_t>(tap)];
            const T* const a = inputs + (run * points_ + point) * input_point() + slot * area * row_;
            const T* const b = gradients + point * gradient_point() + plane * area * gradient_row();
            T* const c = sums + ((tap * plane_runs() + run) * points_ + point) * point_;
            add_outer_sums<T>(gemm_, item, {a, row_, b, gradient_row(), length, c, items_.k_block});
          }
  }

  void finish(std::int64_t index, T* sums) {
    const std::int64_t count = items_[index].channels * items_.k_block;
    for (std::size_t run = 0; run < runs_.size(); ++run) {
      T* const points = sums + static_cast<std::int64_t>(run) * points_ * point_;
      T largest = 0;
      const WinogradTapsArgs<T> args{points, point_, count, &largest};
      winograd_.taps[runs_[run].taps.down][runs_[run].taps.across - 1](&args);
      if (!(largest <= std::numeric_limits<T>::max()) || (largest > T(0) && largest < kWinogradSmallest<T>))
        serves_.store(false, std::memory_order_relaxed);
      items_.store(dw_, runs_[run].weights, index, points, point_);
    }
  }

  View<const S> gy_, x_;
  View<S> dw_;
  WeightItems items_;
  const WinogradKernel& winograd_;
  const ConvKernel& gemm_;
  const TransposeKernel* transpose_ = nullptr;
  std::vector<AxisPhase> lattices_[kSpatial], out_lattices_[kSpatial];  // of inputs and of gradients
  std::int64_t images_of_sample_ = 1, images_ = 0;
  std::vector<WinogradAxis> cut_;  // of rows and columns
  std::vector<Run> runs_;          // of each tap along the depth one after the other
  std::int64_t cols_, depth_taps_ = 1, points_ = kWinogradPoints, row_ = 1, point_ = 1, sums_ = 1;
  std::int64_t block_[kSpatial] = {1, 1, 1}, block_count_[kSpatial] = {1, 1, 1};  // in tiles
  std::int64_t together_ = 1, blocks_ = 1, tiles_ = 1, input_tiles_ = 1;  // images in a block; blocks; of a block
  std::atomic<bool> serves_{true};
};

// Whether planes of the gradient are one row.
template <class S>
bool is_line(const ConvShape& shape, const View<const S>& grad_output) {
  return WinogradAxis::is_line(forward_phases(shape.window[1], grad_output.extent(1))[0]);
}

}  // namespace

// The products that it saves, what the transforms of a tile cost beside them, and those of the sums. Fitted to 3,000
// random problems of 3x3 and 100 lines; see bench/LOG.md.
template <class S>
double gain_of_winograd_weight(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input) {
  // Lattices of a line whose positions lie side by side are read number by number.
  constexpr double kLeastGainOfLines = 1.05, kStrided = 1.28, kLeastGainOfOthers = 1.15;
  double live = 1, tiles = 1, points = 1;
  bool is_3x3 = true;
  std::vector<WinogradAxis> cut;
  for (int axis = 1; axis < kSpatial; ++axis) {
    const Window& window = shape.window[axis];
    is_3x3 = is_3x3 && window.kernel == 3 && window.stride == 1;
    if (window.kernel > static_cast<std::int64_t>(WinogradAxis::kMostTaps)) return 0;
    const AxisPhase phase = forward_phases(window, grad_output.extent(axis))[0];
    cut.emplace_back(lattice(phase, 0), axis == 1 ? WinogradAxis::down : WinogradAxis::across);
    live *= static_cast<double>(live_products(phase, input.extent(axis)));
    tiles *= static_cast<double>(lattice_tiles(phase));
    points *= static_cast<double>(cut.back().points());
  }
  if (!winograd_serves(cut[0], cut[1])) return 0;
  const auto planes = static_cast<double>(grad_output.shape[0] * grad_output.extent(0));
  const auto c = static_cast<double>(input.shape[1] / shape.groups),
             k = static_cast<double>(grad_output.shape[1] / shape.groups);
  const auto distinct = static_cast<double>(winograd_points_of(cut[0]));
  const double transforms = 2 * distinct / (points * c) + 2 / k + 3 / (planes * tiles);
  double least = is_3x3 ? 1 : kLeastGainOfOthers;
  if (is_line(shape, grad_output))
    least = kLeastGainOfLines * (shape.window[2].dilation > 1 && input.step(2) == 1 ? kStrided : 1);
  return live / (points * tiles * 1.1 * (1 + transforms) * least);
}

template <class S>
bool backward_weight_winograd(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                              const View<S>& grad_weight) {
  constexpr Dtype dtype = DtypeOf<Compute<S>>::value;
  const double gain = gain_of_winograd_weight<S>(shape, grad_output, input);
  if (gain == 0) return false;
  const std::int64_t inputs = input.shape[1] / shape.groups, outputs = grad_output.shape[1] / shape.groups;
  const std::string forced = forced_kernel();
  const IsaMask mask = active_isa_mask();
  const WinogradKernel& kernel = find_winograd(dtype, mask);
  if (forced != kernel.name) {
    // Fewer channels than fill a register have kernels of their own.
    const std::int64_t positions =
        grad_output.shape[0] * grad_output.extent(0) * grad_output.extent(1) * grad_output.extent(2);
    const std::int64_t fewest = is_line(shape, grad_output) ? kFewestOfLines : kFewestOutputs;
    if (gain < 1 || positions < fewest || std::min(inputs, outputs) < kFewestChannels) return false;
    if (!forced.empty() &&
        (forced == find_conv(dtype, outputs, mask).name || forced == find_depthwise(dtype, outputs, mask).name))
      return false;
  }
  WinogradWeightGradient<S> gradient(shape, grad_output, input, grad_weight, kernel);
  return gradient.fits() && gradient.run();
}

#define FASTCONV_WINOGRAD_FOR(S)                                                                            \
  template double gain_of_winograd_weight<S>(const ConvShape&, const View<const S>&, const View<const S>&); \
  template bool backward_weight_winograd<S>(const ConvShape&, const View<const S>&, const View<const S>&,   \
                                            const View<S>&);
FASTCONV_WINOGRAD_FOR(float)
FASTCONV_WINOGRAD_FOR(double)
FASTCONV_WINOGRAD_FOR(Float16)
FASTCONV_WINOGRAD_FOR(BFloat16)

}  // namespace fastconv
