// Weight gradient on tile registers: a tile's rows are channels of the input, 32 neighbouring positions of each, and
// its columns channels of the output's gradient, whose positions are packed in pairs. A tap is a shift of where the
// rows begin. Positions between the rows of a block have a gradient of zero. Work is split over channels, and over
// blocks by a number that depends on the shape only; the parts are added in order.
#include <algorithm>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_tiles.h"
#include "ops/conv_weight_sums.h"

namespace fastconv {
namespace {

constexpr std::int64_t kTileChannels = 64;                 // of the input, in one item
constexpr std::int64_t kTileOutputs = 128;                 // of the output, in one item
constexpr std::int64_t kMostSums = std::int64_t{1} << 20;  // elements of one item's sums

template <class S>
class TileWeightGradient {
 public:
  TileWeightGradient(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                     const View<S>& grad_weight, const TileKernel& kernel)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        kernel_(kernel),
        transpose_(select_transpose(Dtype::f32, active_isa_mask())),
        items_(shape.groups, input.shape[1] / shape.groups, grad_output.shape[1] / shape.groups) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      own_[axis] = forward_phases(shape.window[axis], gy_.extent(axis))[0];
      own_out_[axis] = forward_phases(Window{}, gy_.extent(axis))[0];
      phase_[axis] = &own_[axis];
      out_phase_[axis] = &own_out_[axis];
    }
    weight_of_tap_ = weight_offsets(*phase_[0], *phase_[1], *phase_[2], dw_.stride + 2);
    taps_ = static_cast<std::int64_t>(weight_of_tap_.size());
    const std::int64_t k_block = std::min(rounded_up(items_.k, kPanelCols), kTileOutputs);
    std::int64_t c_block = std::min(rounded_up(items_.c, kRowTile), kTileChannels);
    while (c_block > kRowTile && taps_ * c_block * k_block > kMostSums) c_block -= kRowTile;
    items_.cut(c_block, k_block);
    sums_ = taps_ * c_block * k_block;
    // Its blocks are the order of the sum, which 16-bit arrays share with float32 ones.
    plan_ = plan_tiles(phase_, costs_of(work_of<S>(kernel).products));
    blocks_ = gy_.shape[0] * plan_.blocks_of_sample();
  }

  bool fits() const {
    return sums_ <= kMostElements<float> && slots_fit(plan_, items_.c_block, work_of<S>(kernel_).parts);
  }
  // Cycles of all of it with a number of products.
  double cycles(int products) const {
    return plan_tiles(phase_, costs_of(products)).cycles * static_cast<double>(gy_.shape[0] * items_.count());
  }
  // Of kernels that multiply float32 numbers.
  double cycles_of_others() const {
    const auto positions = static_cast<double>(gy_.shape[0] * gy_.extent(0) * gy_.extent(1) * gy_.extent(2));
    return positions * static_cast<double>(items_.groups * items_.c * taps_ * rounded_up(items_.k, kPanelTile)) /
           kOtherRate;
  }

  // False where the parts do not hold the values; nothing of the result counts then.
  bool run() {
    const std::int64_t items = items_.count();
    const std::int64_t parts = parts_of_sum<float>(items, sums_, blocks_);
    // As many items at a time as have room for their sums.
    const std::int64_t at_once = std::clamp<std::int64_t>(kMostElements<float> / (parts * sums_), 1, items);
    Workspace<float> sums(at_once * parts * sums_);
    std::vector<Largest> largest(static_cast<std::size_t>(at_once * parts));
    for (std::int64_t first = 0; first < items; first += at_once) {
      const std::int64_t count = std::min(at_once, items - first);
      const double nanoseconds =
          cycles(kernel_.products) / 2.5 * static_cast<double>(count) / static_cast<double>(items);
      parallel_for({count * parts, nanoseconds}, Subnormals::flush, [&](std::int64_t i) {
        largest[static_cast<std::size_t>(i)] = accumulate(first + i / parts, i % parts, parts, sums + i * sums_);
      });
      Largest all;
      for (const Largest& each : largest) all = {std::max(all.x, each.x), std::max(all.gy, each.gy)};
      if (!parts_serve(all.x, all.gy, blocks_ * kTilePositions)) return false;
      parallel_for({count, 0.5 * static_cast<double>(count * parts * sums_)}, Subnormals::flush, [&](std::int64_t i) {
        float* total = sums + i * parts * sums_;
        add_parts(total, parts, sums_);
        items_.store(dw_, weight_of_tap_, first + i, total, items_.c_block * items_.k_block);
      });
    }
    return true;
  }

 private:
  // With the channels of one item.
  TileCosts costs_of(int products) const {
    const auto tiles =
        static_cast<double>(items_.c_block / kRowTile * ceil_div(std::min(items_.k, items_.k_block), kPanelTile));
    return {
        static_cast<double>(taps_ * products) * tiles * kTileCycles / 2 + 32.0 * static_cast<double>(items_.k_block),
        1.3 * static_cast<double>(items_.c_block)};
  }

  struct Largest {
    std::uint32_t x = 0, gy = 0;
  };

  // Sums as [tap][channel of the input][channel of the output], over the blocks of one part.
  Largest accumulate(std::int64_t index, std::int64_t part, std::int64_t parts, float* sums) const {
    const WeightItem item = items_[index];
    std::fill_n(sums, sums_, 0.0F);
    Largest largest;
    const std::int64_t last = blocks_ * (part + 1) / parts;
    for (std::int64_t b = blocks_ * part / parts; b < last; ++b) {
      const Largest each = add_block(item, b, sums);
      largest = {std::max(largest.x, each.x), std::max(largest.gy, each.gy)};
    }
    return largest;
  }

  Largest add_block(const WeightItem& item, std::int64_t index, float* sums) const {
    std::int64_t start[kSpatial], count[kSpatial];
    plan_.locate(index % plan_.blocks_of_sample(), phase_, start, count);
    const std::int64_t n = index / plan_.blocks_of_sample();
    const TileSlots slots = tile_slots(phase_, count, plan_.by_tap);
    const std::int64_t positions = slots.positions(count), steps = ceil_div(positions, kPartRun);
    Largest largest;

    // A channel's slots side by side; those behind the last meet gradients of zero and must be finite.
    const std::int64_t line = rounded_up(slots.slots + kTileSlack, kPartRun);
    const std::int64_t rows = rounded_up(item.channels, kRowTile);
    Workspace<float> input(rows * line);
    std::fill_n(input.data(), rows * line, 0.0F);
    slots.pack<S>(x_, phase_, transpose_, n, item.group * items_.c + item.c0, item.channels, start, input, 1, line);
    Workspace<std::uint16_t> a(kernel_.parts * rows * line);
    largest.x = kernel_.split(input, rows * line, a, rows * line);

    // The gradient with the pitch of the slots, a panel of 32 channels at a time.
    const std::int64_t panels = ceil_div(item.outputs, kPanelCols), panel_size = steps * kernel_.parts * kPanelStep;
    Workspace<std::uint16_t> b(panels * panel_size);
    Workspace<float> gradient(steps * kPartRun * kPanelCols), turned(kPanelStep);
    for (std::int64_t j = 0; j < panels; ++j) {
      const std::int64_t k0 = j * kPanelCols, outputs = std::min(kPanelCols, item.outputs - k0);
      std::fill_n(gradient.data(), steps * kPartRun * kPanelCols, 0.0F);
      pack_gradient(n, item.group * items_.k + item.k0 + k0, outputs, start, count, slots.pitch, gradient);
      for (std::int64_t s = 0; s < steps; ++s) {
        turn(gradient + s * kPanelStep, turned);
        std::uint16_t* const to = b + j * panel_size + s * kernel_.parts * kPanelStep;
        largest.gy = std::max(largest.gy, kernel_.split(turned, kPanelStep, to, kPanelStep));
      }
    }

    std::vector<std::int64_t> offsets(static_cast<std::size_t>(steps));
    for (std::int64_t s = 0; s < steps; ++s) offsets[static_cast<std::size_t>(s)] = s * kPartRun;
    for (std::int64_t t = 0; t < taps_; ++t) {
      const TileArgs args{a + slots.base[static_cast<std::size_t>(t)],
                          rows * line,
                          line,
                          offsets.data(),
                          steps,
                          b,
                          panel_size,
                          sums + t * items_.c_block * items_.k_block,
                          items_.k_block,
                          rows / kRowTile,
                          ceil_div(item.outputs, kPanelTile),
                          true};
      kernel_.gemm(&args);
    }
    return largest;
  }

  // From 32 positions of 32 channels to where a panel's step has them: pairs of positions next to each other.
  static void turn(const float* from, float* to) {
    for (std::int64_t k = 0; k < kPanelCols; k += kPanelTile)
      for (std::int64_t q = 0; q < kPartRun; q += 2) {
        const float* const even = from + q * kPanelCols + k;
        float* const pairs = to + panel_place(q, k);
        for (std::int64_t i = 0; i < kPanelTile; ++i) {
          pairs[2 * i] = even[i];
          pairs[2 * i + 1] = even[kPanelCols + i];
        }
      }
  }

  // Position q of the block, with those between its rows, channels side by side.
  void pack_gradient(std::int64_t n, std::int64_t k0, std::int64_t outputs, const std::int64_t (&start)[kSpatial],
                     const std::int64_t (&count)[kSpatial], std::int64_t pitch, float* to) const {
    AxisSlots slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) slots[axis] = axis_slots(*out_phase_[axis], count[axis], true);
    // The gap between rows is left as it is, also behind the last.
    slots[2].slots = pitch;
    BlockPacker<S>{gy_, {out_phase_[0], out_phase_[1], out_phase_[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_}
        .pack(to, n, k0, outputs, start, kPanelCols, 1);
  }

  View<const S> gy_, x_;
  View<S> dw_;
  const TileKernel& kernel_;
  const TransposeKernel& transpose_;
  WeightItems items_;
  AxisPhase own_[kSpatial], own_out_[kSpatial];
  const AxisPhase* phase_[kSpatial];
  const AxisPhase* out_phase_[kSpatial];
  std::vector<std::int64_t> weight_of_tap_;
  std::int64_t taps_ = 0, sums_ = 1, blocks_ = 1;
  TilePlan plan_;
};

}  // namespace

template <class S>
bool backward_weight_tiles(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                           const View<S>& grad_weight) {
  if constexpr (std::is_same_v<Compute<S>, float>) {
    bool forced = false;
    const TileKernel* kernel = find_tiles(DtypeOf<S>::value, shape.precision, active_isa_mask(), forced);
    if (!kernel) return false;
    const int products = work_of<S>(*kernel).products;
    // Few channels leave most rows of a tile idle: before any plan, its products alone against multiply-adds.
    const std::int64_t channels = grad_weight.shape[1], rows = ceil_div(channels, kRowTile);
    const double least = static_cast<double>(products * rows) * kTileCycles / 2;
    const double others = static_cast<double>(channels * kRowTile * kPanelTile) / kOtherRate;
    // Of the other kernels, the fastest.
    const double most = kLeastGain / std::max(1.0, gain_of_winograd_weight<S>(shape, grad_output, input));
    if (!forced && least > most * others) return false;
    TileWeightGradient<S> gradient(shape, grad_output, input, grad_weight, *kernel);
    if (!gradient.fits()) return false;
    if (!forced && gradient.cycles(products) > most * gradient.cycles_of_others()) return false;
    count_kernel(*kernel);
    return gradient.run();
  }
  return false;
}

#define FASTCONV_TILES_FOR(S) \
  template bool backward_weight_tiles(const ConvShape&, const View<const S>&, const View<const S>&, const View<S>&);
FASTCONV_TILES_FOR(float)
FASTCONV_TILES_FOR(double)
FASTCONV_TILES_FOR(Float16)
FASTCONV_TILES_FOR(BFloat16)

}  // namespace fastconv
