// Weight gradient by Winograd's F(2x2, 3x3), the transpose of what conv_winograd.cpp computes: blocks of tiles of 2x2
// outputs, whose inputs and gradients are packed channels last and transformed to 16 points; at each point the sum over
// tiles of the products of all channels of the one with all of the other, added to what other blocks have; the 16 sums
// transformed to 9 taps at the end. Taps along the depth have sums of their own. What blocks are added up by which
// thread, and in which order, depends on the shape only.
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

namespace fastconv {
namespace {

constexpr std::int64_t kTile = kWinogradTile, kTaps = 9;
constexpr std::int64_t kChannelRun = 16;  // transformed inputs come in whole cache lines
constexpr std::int64_t kPad = 16;         // elements that keep rows and points off powers of two
constexpr std::int64_t kPacked = 64;      // channels that are packed and transformed at a time
constexpr std::int64_t kFewestChannels = 8;
// Tiles of a block, which one running sum adds up; where there are few, their part of the error is larger.
constexpr std::int64_t kTiles = 64, kFewTiles = 32, kFew = 128;
constexpr std::int64_t kInputs = 64, kOutputs = 128;        // channels of an item
constexpr std::int64_t kMostBytes = std::int64_t{8} << 20;  // of a block's transformed inputs

// Whole blocks of at most `wanted`, of nearly equal sizes.
std::int64_t balanced(std::int64_t whole, std::int64_t wanted) {
  return ceil_div(whole, ceil_div(whole, std::clamp<std::int64_t>(wanted, 1, whole)));
}

std::int64_t rounded(std::int64_t count, std::int64_t to) { return ceil_div(count, to) * to; }

// Two positions a tile, and those behind that its inputs reach; the last tile's positions that do not exist stay zero.
AxisSlots tile_slots(std::int64_t tiles, std::int64_t behind, std::int64_t first, std::int64_t count) {
  AxisSlots slots;
  slots.slots = tiles * kTile + behind;
  slots.base = {0};
  slots.runs = {{0, first, 1, count + behind}};
  return slots;
}

template <class S>
class WinogradWeightGradient {
  using T = Compute<S>;
  static constexpr T kSmallest = std::numeric_limits<T>::min() * T(1 << 26);

 public:
  WinogradWeightGradient(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                         const View<S>& grad_weight, const WinogradKernel& kernel)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        items_(shape.groups, input.shape[1] / shape.groups, grad_output.shape[1] / shape.groups),
        winograd_(kernel),
        gemm_(find_conv(DtypeOf<T>::value, items_.k, active_isa_mask())),
        cols_(gemm_.tile_cols) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      phase_[axis] = forward_phases(shape.window[axis], gy_.extent(axis))[0];
      out_phase_[axis] = forward_phases(Window{}, gy_.extent(axis))[0];
    }
    depth_taps_ = static_cast<std::int64_t>(phase_[0].taps.size());
    items_.cut(balanced(items_.c, kInputs), std::min(rounded(items_.k, cols_), rounded(kOutputs, cols_)));
    row_ = rounded(items_.c_block, kChannelRun);
    point_ = items_.c_block * items_.k_block;
    sums_ = depth_taps_ * kWinogradPoints * point_;
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
                            static_cast<double>(samples_ * block_[0] * block_[1] * block_[2]);
    sum_in_parts<T>(
        items_.count(), sums_, blocks_, products * multiply_add_nanoseconds<T>(),
        [&](std::int64_t item, std::int64_t part, std::int64_t parts, T* sums) {
          accumulate(items_[item], part, parts, sums);
        },
        [&](std::int64_t item, T* sums) { finish(item, sums); });
    return serves_.load(std::memory_order_relaxed);
  }

 private:
  // Rows of tiles as long as they may be, as many rows as fill a block, and as many planes and samples if those do not.
  void choose_block() {
    const std::int64_t extent[kSpatial] = {gy_.extent(0), ceil_div(gy_.extent(1), kTile),
                                           ceil_div(gy_.extent(2), kTile)};
    // Inputs of neighbouring planes are transformed once for all taps that read them.
    block_[0] = depth_taps_ > 1 ? std::min<std::int64_t>(extent[0], 2) : 1;
    const std::int64_t wanted = gy_.shape[0] * extent[0] * extent[1] * extent[2] <= kFew ? kFewTiles : kTiles;
    block_[2] = balanced(extent[2], wanted);
    block_[1] = balanced(extent[1], wanted / block_[0] / block_[2]);
    const bool plane = block_[1] == extent[1] && block_[2] == extent[2];
    if (plane) block_[0] = balanced(extent[0], std::max(block_[0], wanted / (block_[1] * block_[2])));
    const std::int64_t tiles = block_[0] * block_[1] * block_[2];
    samples_ = plane && block_[0] == extent[0] ? balanced(gy_.shape[0], wanted / tiles) : 1;
    const std::int64_t planes = axis_slots(phase_[0], block_[0], false).slots;
    tiles_ = samples_ * tiles;
    input_tiles_ = samples_ * planes * block_[1] * block_[2];
    blocks_ = ceil_div(gy_.shape[0], samples_);
    for (int axis = 0; axis < kSpatial; ++axis) blocks_ *= block_count_[axis] = ceil_div(extent[axis], block_[axis]);
  }

  std::int64_t input_point() const { return input_tiles_ * row_ + kPad; }
  std::int64_t transformed_inputs() const { return kWinogradPoints * input_point(); }
  std::int64_t gradient_row() const { return items_.k_block + kPad; }
  std::int64_t gradient_point() const { return tiles_ * gradient_row() + kPad; }

  void accumulate(const WeightItem& item, std::int64_t part, std::int64_t parts, T* sums) const {
    std::fill_n(sums, sums_, T(0));
    Workspace<T> inputs(transformed_inputs()), gradients(kWinogradPoints * gradient_point());
    for (std::int64_t b = blocks_ * part / parts; b < blocks_ * (part + 1) / parts; ++b) {
      std::int64_t j0[kSpatial], count[kSpatial], tiles[kSpatial];
      const std::int64_t first = locate_block(b, block_count_, block_, j0) * samples_;
      for (int axis = 0; axis < kSpatial; ++axis) {
        const std::int64_t size = axis == 0 ? 1 : kTile;
        j0[axis] *= size;
        count[axis] = std::min(block_[axis] * size, gy_.extent(axis) - j0[axis]);
        tiles[axis] = ceil_div(count[axis], size);
      }
      const std::int64_t samples = std::min(samples_, gy_.shape[0] - first);
      const AxisSlots depth = axis_slots(phase_[0], count[0], false);
      transform_inputs(item, first, samples, j0, count, tiles, depth, inputs);
      transform_gradients(item, first, samples, j0, count, tiles, gradients);
      multiply(item, samples, tiles, depth, inputs, gradients, sums);
    }
  }

  // To [point][sample][plane of the input][tile][channel].
  void transform_inputs(const WeightItem& item, std::int64_t first, std::int64_t samples,
                        const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial],
                        const std::int64_t (&tiles)[kSpatial], const AxisSlots& depth, T* inputs) const {
    const AxisSlots height = tile_slots(tiles[1], 2, phase_[1].taps[0].offset, count[1]),
                    width = tile_slots(tiles[2], 2, phase_[2].taps[0].offset, count[2]);
    const BlockPacker<S> packer{x_, {&phase_[0], &phase_[1], &phase_[2]}, {&depth, &height, &width}, *transpose_};
    const std::int64_t area = tiles[1] * tiles[2], block = std::min(row_, kPacked), size = packer.positions() * block;
    const bool whole = count[1] == tiles[1] * kTile && count[2] == tiles[2] * kTile;
    Workspace<T> packed(size);
    for (std::int64_t c0 = 0; c0 < item.channels; c0 += block) {
      const std::int64_t channels = std::min(block, item.channels - c0);
      for (std::int64_t s = 0; s < samples; ++s) {
        if (!whole || channels < block) std::fill_n(packed.data(), size, T(0));
        packer.pack(packed, first + s, item.group * items_.c + item.c0 + c0, channels, j0, block, 1);
        for (std::int64_t d = 0; d < depth.slots; ++d) {
          const WinogradInputArgs<T> args{packed + d * height.slots * width.slots * block,
                                          width.slots * block,
                                          block,
                                          tiles[1],
                                          tiles[2],
                                          rounded(channels, kChannelRun),
                                          inputs + (s * depth.slots + d) * area * row_ + c0,
                                          row_,
                                          input_point()};
          winograd_.input(&args);
        }
      }
    }
  }

  // To [point][sample][plane of the output][tile][column].
  void transform_gradients(const WeightItem& item, std::int64_t first, std::int64_t samples,
                           const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial],
                           const std::int64_t (&tiles)[kSpatial], T* gradients) const {
    const AxisSlots depth = axis_slots(out_phase_[0], count[0], false), height = tile_slots(tiles[1], 0, 0, count[1]),
                    width = tile_slots(tiles[2], 0, 0, count[2]);
    const BlockPacker<S> packer{
        gy_, {&out_phase_[0], &out_phase_[1], &out_phase_[2]}, {&depth, &height, &width}, *transpose_};
    const std::int64_t columns = rounded(item.outputs, cols_), size = packer.positions() * columns;
    const std::int64_t channel = item.group * items_.k + item.k0;
    const bool whole = count[1] == tiles[1] * kTile && count[2] == tiles[2] * kTile && item.outputs == columns;
    // Whole tiles of whole panels whose channels lie side by side are read where they are.
    const bool in_place = std::is_same_v<S, T> && whole && gy_.stride[1] == 1;
    Workspace<T> packed(in_place ? 0 : size);
    WinogradInputArgs<T> args{packed,    width.slots * columns, columns,         tiles[1], tiles[2], columns,
                              gradients, gradient_row(),        gradient_point()};
    std::int64_t plane_step = height.slots * width.slots * columns;
    if (in_place) {
      args.row_step = gy_.step(1);
      args.position_step = gy_.step(2);
      plane_step = gy_.step(0);
    }
    for (std::int64_t s = 0; s < samples; ++s) {
      args.x = packed;
      if (in_place) {
        if constexpr (std::is_same_v<S, T>)
          args.x = gy_.data + (first + s) * gy_.stride[0] + channel + j0[0] * gy_.step(0) + j0[1] * gy_.step(1) +
                   j0[2] * gy_.step(2);
      } else {
        if (!whole) std::fill_n(packed.data(), size, T(0));
        packer.pack(packed, first + s, channel, item.outputs, j0, columns, 1);
      }
      for (std::int64_t d = 0; d < count[0]; ++d) {
        winograd_.gradient(&args);
        args.x += plane_step;
        args.v += tiles[1] * tiles[2] * gradient_row();
      }
    }
  }

  // The products of all tiles, plane by plane unless the tap's inputs lie like the gradients.
  void multiply(const WeightItem& item, std::int64_t samples, const std::int64_t (&tiles)[kSpatial],
                const AxisSlots& depth, const T* inputs, const T* gradients, T* sums) const {
    const std::int64_t area = tiles[1] * tiles[2], planes = samples * tiles[0];
    const bool one_run = depth.slots == tiles[0] && depth.step == 1, run_of_planes = depth.step == 1;
    const std::int64_t runs = one_run ? 1 : run_of_planes ? samples : planes, length = planes / runs * area;
    const std::int64_t row_runs = ceil_div(item.channels, std::int64_t{gemm_.tile_rows});
    for (std::int64_t point = 0; point < kWinogradPoints; ++point)
      for (std::int64_t tap = 0; tap < depth_taps_; ++tap)
        for (std::int64_t r = 0; r < runs; ++r) {
          const std::int64_t sample = one_run         ? 0
                                      : run_of_planes ? r
                                                      : r / tiles[0],
                             plane = one_run || run_of_planes ? 0 : r % tiles[0];
          const std::int64_t slot =
              sample * depth.slots + plane * depth.step + depth.base[static_cast<std::size_t>(tap)];
          const T* const a = inputs + point * input_point() + slot * area * row_;
          const T* const b = gradients + point * gradient_point() + r * length * gradient_row();
          T* const c = sums + (tap * kWinogradPoints + point) * point_;
          for (std::int64_t k = 0; k < item.outputs; k += cols_)
            for (std::int64_t i = 0; i < row_runs; ++i) {
              const std::int64_t begin = item.channels * i / row_runs, end = item.channels * (i + 1) / row_runs;
              const OuterArgs<T> args{
                  a + begin, row_, b + k, gradient_row(), length, c + begin * items_.k_block + k, items_.k_block};
              gemm_.outer[end - begin - 1](&args);
            }
        }
  }

  void finish(std::int64_t index, T* sums) {
    const std::int64_t count = items_[index].channels * items_.k_block;
    for (std::int64_t d = 0; d < depth_taps_; ++d) {
      T* const points = sums + d * kWinogradPoints * point_;
      T largest = 0;
      const WinogradTapsArgs<T> args{points, point_, count, &largest};
      winograd_.taps(&args);
      if (!(largest <= std::numeric_limits<T>::max()) || (largest > T(0) && largest < kSmallest))
        serves_.store(false, std::memory_order_relaxed);
      std::vector<std::int64_t> weights(kTaps);
      for (std::int64_t t = 0; t < kTaps; ++t) weights[static_cast<std::size_t>(t)] = weight_of_tap(d, t);
      items_.store(dw_, weights, index, points, point_);
    }
  }

  std::int64_t weight_of_tap(std::int64_t d, std::int64_t t) const {
    const std::size_t h = static_cast<std::size_t>(t / 3), w = static_cast<std::size_t>(t % 3);
    return phase_[0].taps[static_cast<std::size_t>(d)].index * dw_.step(0) + phase_[1].taps[h].index * dw_.step(1) +
           phase_[2].taps[w].index * dw_.step(2);
  }

  View<const S> gy_, x_;
  View<S> dw_;
  WeightItems items_;
  const WinogradKernel& winograd_;
  const ConvKernel& gemm_;
  const TransposeKernel* transpose_ = nullptr;
  AxisPhase phase_[kSpatial], out_phase_[kSpatial];
  std::int64_t cols_, depth_taps_ = 1, row_ = 1, point_ = 1, sums_ = 1;
  std::int64_t block_[kSpatial] = {1, 1, 1}, block_count_[kSpatial] = {1, 1, 1};  // in tiles
  std::int64_t samples_ = 1, blocks_ = 1, tiles_ = 1, input_tiles_ = 1;
  std::atomic<bool> serves_{true};
};

bool tiled(const Window& window) { return window.kernel == 3 && window.stride == 1 && window.dilation == 1; }

// The outputs of all taps that lie inside the input along an axis.
std::int64_t live_products(const Window& window, std::int64_t out, std::int64_t in) {
  const AxisPhase phase = forward_phases(window, out)[0];
  std::int64_t live = 0;
  for (const Tap& tap : phase.taps) {
    const Range range = live_outputs(phase, tap, 0, out, in);
    live += std::max<std::int64_t>(0, range.end - range.begin);
  }
  return live;
}

}  // namespace

// The products that it saves, what the transforms of a tile cost beside them, and those of the sums. Fitted to 3,000
// random problems; see bench/LOG.md.
template <class S>
double gain_of_winograd_weight(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input) {
  if (!tiled(shape.window[1]) || !tiled(shape.window[2])) return 0;
  const auto planes = static_cast<double>(grad_output.shape[0] * grad_output.extent(0));
  double tiles = 1, live = 1;
  for (int axis = 1; axis < kSpatial; ++axis) {
    tiles *= static_cast<double>(ceil_div(grad_output.extent(axis), kTile));
    live *= static_cast<double>(live_products(shape.window[axis], grad_output.extent(axis), input.extent(axis)));
  }
  const auto c = static_cast<double>(input.shape[1] / shape.groups),
             k = static_cast<double>(grad_output.shape[1] / shape.groups);
  return live / (kWinogradPoints * tiles * 1.1 * (1 + 2 / c + 2 / k + 3 / (planes * tiles)));
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
    if (gain < 1 || std::min(inputs, outputs) < kFewestChannels) return false;
    if (!forced.empty() &&
        (forced == find_conv(dtype, outputs, mask).name || forced == find_depthwise(dtype, mask).name))
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
