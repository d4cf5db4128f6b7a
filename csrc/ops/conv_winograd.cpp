// Winograd's algorithm for the gather sum of one phase: blocks of tiles of 2x2 outputs (winograd_plan.h; of 1x2 where a
// plane is one row: 4 points where 16 are below), whose inputs are packed channels-last and transformed to 16 points;
// at each point a product of matrices (winograd_products.h), tiles x channels times channels x outputs; the products
// transformed to a block of outputs. Taps along the depth, and further runs of taps, lengthen the products. With
// dilation, outputs of one residue modulo it are images of their own.
//
// The transforms mix the inputs of a tile and the weights of a channel. Where a result is not finite, all of its
// sample is computed again by gather_dense, which has infinities and NaNs where the definition has them.
#include <algorithm>
#include <atomic>
#include <limits>
#include <string>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"
#include "ops/conv_store.h"
#include "ops/winograd_plan.h"
#include "ops/winograd_products.h"

namespace fastconv {
namespace {

constexpr std::int64_t kChannels = 32;  // packed and transformed at a time
constexpr std::int64_t kColumns = 64;   // outputs whose products at all points are kept
constexpr std::int64_t kSpan = 256;     // outputs of an item
constexpr std::int64_t kMostTransformedBytes = std::int64_t{8} << 20;
constexpr std::int64_t kManyChannels = 128 * 128, kShortestLattice = 3;
constexpr double kFewestLanes = 16;
constexpr std::int64_t kAloneTiles = 64, kAloneBytes = std::int64_t{2} << 20;
constexpr double kFewProducts = 512, kFewProductsOfLines = 144;  // a plain sum of fewer errs less
constexpr std::int64_t kFewChannelsOfLines = 24;                 // as signals and filters by hand have
constexpr double kWeightTiles = 4;  // as long as preparing the weights takes, for each of four samples
constexpr double kLeastGain3x3 = 1, kLeastGainOfLines = 1.05, kLeastGainOfOthers = 1.1;
constexpr double kPositionRows = 0.05;  // what packing one position costs, in rows of products

// The next larger number of parts of `whole` that makes them smaller.
std::int64_t next_cut(std::int64_t whole, std::int64_t parts) {
  const std::int64_t size = ceil_div(whole, parts);
  return size == 1 ? whole + 1 : ceil_div(whole, size - 1);
}

template <class S, class Products>
class WinogradDriver {
  using T = Compute<S>;
  using Weight = typename Products::Weight;

 public:
  WinogradDriver(const GatherProblem<S>& problem, const WinogradKernel& kernel)
      : p_(problem),
        lattices_{lattices(problem.phases[1][0]), lattices(problem.phases[2][0])},
        phase_{&problem.phases[0][0], &lattices_[0][0], &lattices_[1][0]},
        rows_(*phase_[1], WinogradAxis::down),
        columns_(*phase_[2], WinogradAxis::across),
        runs_(static_cast<std::int64_t>(rows_.runs.size() * columns_.runs.size())),
        winograd_(kernel),
        images_of_sample_(static_cast<std::int64_t>(lattices_[0].size() * lattices_[1].size())),
        images_(problem.x.shape[0] * images_of_sample_),
        depth_taps_(static_cast<std::int64_t>(phase_[0]->taps.size())),
        points_(winograd_points_of(rows_)),
        products_(kernel, {points_, depth_taps_, problem.x_channels, problem.y_channels, taps_of_runs()}, images_),
        cols_(products_.cols()),
        panels_(ceil_div(p_.y_channels, cols_)) {
    choose_block();
  }

  // How often a block's inputs are transformed: for the panels of an item, as many as are packed at once.
  std::int64_t passes() const { return ceil_div(panels_, std::min(panels_at_once(), panels_of_item())); }

  // Whether a sample's transformed inputs and a panel of transformed weights are within the memory of a call.
  bool fits() const {
    return image_bytes_ <= kMostTransformedBytes && points_ * products_.weight_step() <= kMostElements<Weight>;
  }

  void run() {
    count_kernel(winograd_);
    products_.count();
    transpose_ = &select_transpose(DtypeOf<T>::value, active_isa_mask());
    const std::int64_t panel_size = points_ * products_.weight_step();
    const std::int64_t total = p_.groups * panels_, at_once = std::min(panels_at_once(), total);
    not_finite_ = std::vector<std::atomic<bool>>(static_cast<std::size_t>(images_));
    if (image_blocks() == 1) {
      compute(0, total, nullptr, panel_size);
      return compute_again();
    }
    Workspace<Weight> packed(at_once * panel_size);
    for (std::int64_t first = 0; first < total; first += at_once) {
      const std::int64_t count = std::min(at_once, total - first);
      // Neighbouring panels of some channels one after the other: where the weights of a channel lie far from those of
      // the next, what is read together lies together.
      const std::int64_t parts = ceil_div(p_.x_channels, kChannels);
      parallel_for({count * parts, 0.5 * static_cast<double>(count * panel_size)}, subnormals_of(DtypeOf<T>::value),
                   [&](std::int64_t i) {
                     const std::int64_t panel = i % count;
                     pack_panel(first + panel, i / count * kChannels, packed + panel * panel_size);
                   });
      compute(first, count, packed, panel_size);
    }
    compute_again();
  }

 private:
  // Blocks of tiles: some planes of the depth, rows of tiles up to a limit, as many rows as fill the block, and as many
  // samples as do if one does not.
  void choose_block() {
    const std::int64_t extent[kSpatial] = {phase_[0]->out_count, ceil_div(phase_[1]->out_count, rows_.tile),
                                           ceil_div(phase_[2]->out_count, columns_.tile)};
    block_[0] = depth_taps_ > 1 ? std::min<std::int64_t>(extent[0], 4) : 1;
    const std::int64_t planes = axis_slots(*phase_[0], block_[0], false).slots;
    const std::int64_t bytes = points_ * products_.row_bytes() * planes / block_[0];
    const std::int64_t tiles =
        std::clamp<std::int64_t>(Products::kInputBytes / bytes, Products::kFewTiles, Products::kManyTiles);
    // One image reads the weights once: in one block, if it has room, their transforms need not be kept.
    const std::int64_t most_together =
        images_ == 1 && bytes * extent[1] * extent[2] <= kAloneBytes ? std::max(tiles, kAloneTiles) : tiles;
    // Of all ways to cut a plane into equal blocks, the one with the least to do: products of whole tiles of the
    // kernel, reading the weights, packing the inputs with the two more on each side.
    double least = 0;
    for (std::int64_t across = 1; across <= extent[2]; across = next_cut(extent[2], across))
      for (std::int64_t down = 1; down <= extent[1]; down = next_cut(extent[1], down)) {
        const std::int64_t h = ceil_div(extent[1], down), w = ceil_div(extent[2], across), rows = h * w * block_[0];
        if (rows > (down * across == 1 ? most_together : tiles) && h * w > 1) continue;
        const std::int64_t samples = down * across == 1 ? std::max<std::int64_t>(1, tiles / rows) : 1;
        const double work = (static_cast<double>(rounded_up(samples * rows, Products::kRows)) + Products::kWeightRows) /
                                static_cast<double>(samples) +
                            kPositionRows * static_cast<double>(positions(h, w) * block_[0]);
        const double total = static_cast<double>(down * across) * work;
        if (least == 0 || total < least) {
          least = total;
          block_[1] = h;
          block_[2] = w;
        }
      }
    if (block_[1] == extent[1] && block_[2] == extent[2])
      block_[0] = balanced(extent[0], std::max(block_[0], tiles / (block_[1] * block_[2])));
    for (int axis = 0; axis < kSpatial; ++axis) blocks_[axis] = ceil_div(extent[axis], block_[axis]);
    planes_ = axis_slots(*phase_[0], block_[0], false).slots;
    image_bytes_ = points_ * planes_ * block_[1] * block_[2] * products_.row_bytes();
    together_ = 1;
    if (blocks_[0] * blocks_[1] * blocks_[2] == 1) {
      const std::int64_t wanted =
          std::min(tiles / (block_[0] * block_[1] * block_[2]), kMostTransformedBytes / image_bytes_);
      together_ = std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(images_, 1));
    }
  }

  // That are packed for so many tiles.
  std::int64_t positions(std::int64_t down, std::int64_t across) const {
    return rows_.slots(down * rows_.tile) * columns_.slots(across * columns_.tile);
  }

  std::int64_t panels_of_item() const { return std::max<std::int64_t>(1, kSpan / cols_); }
  // Blocks of all images, each of which needs all of the weights.
  std::int64_t image_blocks() const { return ceil_div(images_, together_) * blocks_[0] * blocks_[1] * blocks_[2]; }
  // In whole items, if that many have room: for the panels that are packed next all inputs are transformed again.
  std::int64_t panels_at_once() const {
    const std::int64_t panels = kMostElements<Weight> / (points_ * products_.weight_step()), item = panels_of_item();
    return std::max<std::int64_t>(1, panels > item ? panels / item * item : panels);
  }

  // Some channels of a panel, transformed.
  void pack_panel(std::int64_t index, std::int64_t c0, Weight* dst) {
    const std::int64_t group = index / panels_, y0 = index % panels_ * cols_;
    const std::int64_t live = std::min<std::int64_t>(cols_, p_.y_channels - y0);
    const std::int64_t channels = std::min(kChannels, p_.x_channels - c0);
    const S* base = p_.weight + group * p_.weight_group + y0 * p_.weight_y + c0 * p_.weight_x;
    const std::vector<std::int64_t> of_tap = weight_offsets(*phase_[0], *phase_[1], *phase_[2], p_.weight_tap);
    const PanelWeights<S> weights(of_tap, p_.weight_x, p_.weight_y);
    const auto listed = static_cast<std::int64_t>(of_tap.size()), taps = weights.copied();
    Workspace<T> turned(channels * taps * cols_);
    weights.copy(*transpose_, base, channels, live, cols_, turned);
    const auto place_of = [&](std::int64_t tap) { return weights.place(tap) * cols_; };
    T largest = 0;
    const auto width = static_cast<std::int64_t>(phase_[2]->taps.size()), plane = listed / depth_taps_;
    for (std::int64_t d = 0; d < depth_taps_; ++d)
      for (std::int64_t run = 0; run < runs_; ++run) {
        const WinogradAxis::Run &down = run_of_rows(run), &across = run_of_columns(run);
        WinogradWeightArgs<T> args{turned, {}, taps * cols_, channels, cols_, nullptr, 0, &largest};
        for (int i = 0; i < down.taps; ++i)
          for (int j = 0; j < across.taps; ++j)
            args.offset[i * across.taps + j] = place_of(d * plane + static_cast<std::int64_t>(down.place[i]) * width +
                                                        static_cast<std::int64_t>(across.place[j]));
        products_.pack(args, d, run, c0, dst);
      }
    // The transform halves weights twice; of some near the end of the range nothing would be left.
    if (largest > T(0) && largest < kWinogradSmallest<T>) too_small_.store(true, std::memory_order_relaxed);
  }

  std::vector<WinogradRun> taps_of_runs() const {
    std::vector<WinogradRun> all;
    for (const WinogradAxis::Run& down : rows_.runs)
      for (const WinogradAxis::Run& across : columns_.runs) all.push_back({rows_.form(down), columns_.form(across)});
    return all;
  }
  const WinogradAxis::Run& run_of_rows(std::int64_t run) const {
    return rows_.runs[static_cast<std::size_t>(run) / columns_.runs.size()];
  }
  const WinogradAxis::Run& run_of_columns(std::int64_t run) const {
    return columns_.runs[static_cast<std::size_t>(run) % columns_.runs.size()];
  }

  // `packed` may be null: then each item packs the panels that it needs.
  void compute(std::int64_t first_panel, std::int64_t panel_count, const Weight* packed, std::int64_t panel_size) {
    const std::int64_t blocks = image_blocks();
    // More items where blocks alone would leave threads idle, though each transforms its inputs anew.
    std::int64_t span = panels_of_item();
    const std::int64_t threads = get_num_threads();
    const std::int64_t few = std::max<std::int64_t>(1, kColumns / cols_);
    while (span > 1 && blocks * ceil_div(panel_count, span) < (span > few ? 4 : 1) * threads) span = ceil_div(span, 2);
    const std::vector<PanelJob> jobs = panel_jobs(first_panel, panel_count, panels_, span);
    const double products = static_cast<double>(images_ * blocks_[0] * block_[0] * blocks_[1] * block_[1]) *
                            static_cast<double>(blocks_[2] * block_[2] * panel_size) * static_cast<double>(panel_count);
    parallel_for({blocks * static_cast<std::int64_t>(jobs.size()), products * multiply_add_nanoseconds<T>()},
                 subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
                   const PanelJob& job = jobs[static_cast<std::size_t>(item / blocks)];
                   std::int64_t j0[kSpatial];
                   const std::int64_t set = locate_block(item % blocks, blocks_, block_, j0);
                   j0[1] *= rows_.tile;
                   j0[2] *= columns_.tile;
                   run_block(set * together_, job.group, job.panel, job.count,
                             packed ? packed + job.slot * panel_size : nullptr, panel_size, j0);
                 });
  }

  // A sample, or with dilation one of its lattices; its part of a block may be smaller than that of the first.
  struct Image {
    std::int64_t sample, count[kSpatial];
    const AxisPhase* phase[kSpatial];

    bool empty() const { return count[1] <= 0 || count[2] <= 0; }
  };
  Image image(std::int64_t index, const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial]) const {
    const std::int64_t lattice = index % images_of_sample_, columns = static_cast<std::int64_t>(lattices_[1].size());
    Image one{index / images_of_sample_,
              {count[0], 0, 0},
              {phase_[0], &lattices_[0][static_cast<std::size_t>(lattice / columns)],
               &lattices_[1][static_cast<std::size_t>(lattice % columns)]}};
    for (int axis = 1; axis < kSpatial; ++axis)
      one.count[axis] = std::min(count[axis], one.phase[axis]->out_count - j0[axis]);
    return one;
  }

  void run_block(std::int64_t first, std::int64_t group, std::int64_t panel, std::int64_t panel_count,
                 const Weight* packed, std::int64_t panel_size, const std::int64_t (&j0)[kSpatial]) {
    const std::int64_t images = std::min(together_, images_ - first);
    // As many tiles as the largest of the images needs.
    const std::int64_t most[kSpatial] = {block_[0], block_[1] * rows_.tile, block_[2] * columns_.tile};
    std::int64_t count[kSpatial] = {std::min(block_[0], phase_[0]->out_count - j0[0]), 0, 0};
    for (std::int64_t s = 0; s < images; ++s) {
      const Image own = image(first + s, j0, most);
      for (int axis = 1; axis < kSpatial; ++axis) count[axis] = std::max(count[axis], own.count[axis]);
    }
    if (count[1] == 0 || count[2] == 0) return;
    const std::int64_t tiles[kSpatial] = {count[0], ceil_div(count[1], rows_.tile), ceil_div(count[2], columns_.tile)};
    const AxisSlots depth = axis_slots(*phase_[0], count[0], false);
    const std::int64_t area = tiles[1] * tiles[2];
    const WinogradRows rows{first, images, area, depth.slots, count[0], depth.step, depth.base};
    typename Products::Block block(products_, rows);
    transform_inputs(rows, group * p_.x_channels, j0, count, tiles, depth, block);

    const std::int64_t chunk = packed ? std::min(panel_count, std::max<std::int64_t>(1, kColumns / cols_)) : 1;
    Workspace<Weight> own_panel(packed ? 0 : panel_size);
    const std::int64_t product_row = chunk * cols_ + kWinogradPad;
    const std::int64_t product_step = Products::whole_rows(rows.outputs()) * product_row + kWinogradPad;
    Workspace<T> products(points_ * product_step);
    Workspace<T> result(area * rows_.tile * columns_.tile * chunk * cols_);
    for (std::int64_t begin = 0; begin < panel_count; begin += chunk) {
      const std::int64_t some = std::min(chunk, panel_count - begin);
      for (std::int64_t c0 = 0; !packed && c0 < p_.x_channels; c0 += kChannels)
        pack_panel(group * panels_ + panel + begin, c0, own_panel);
      const Weight* const weights = packed ? packed + begin * panel_size : own_panel.data();
      for (std::int64_t point = 0; point < points_; ++point)
        block.multiply(point, weights, panel_size, some, products + point * product_step, product_row);
      const std::int64_t y0 = (panel + begin) * cols_, ldc = some * cols_;
      for (std::int64_t s = 0; s < images; ++s) {
        const Image own = image(first + s, j0, count);
        for (std::int64_t d = 0; d < count[0] && !own.empty(); ++d) {
          bool finite = true;
          const WinogradOutputArgs<T> args{products + (s * count[0] + d) * area * product_row,
                                           product_row,
                                           product_step,
                                           tiles[1],
                                           tiles[2],
                                           ldc,
                                           result,
                                           ldc,
                                           &finite};
          winograd_.output[rows_.longest_form()][columns_.longest_form() - 1](&args);
          if (!finite) not_finite_[static_cast<std::size_t>(first + s)].store(true, std::memory_order_relaxed);
          const std::int64_t at[kSpatial] = {j0[0] + d, j0[1], j0[2]};
          store_block<S>(p_, own.phase, *transpose_, own.sample, group * p_.y_channels + y0,
                         std::min(ldc, p_.y_channels - y0), at, own.count, result, ldc, tiles[2] * columns_.tile);
        }
      }
    }
  }

  // The inputs of a block, some channels at a time: packed channels-last with what the padding holds, then transformed.
  void transform_inputs(const WinogradRows& rows, std::int64_t channel0, const std::int64_t (&j0)[kSpatial],
                        const std::int64_t (&count)[kSpatial], const std::int64_t (&tiles)[kSpatial],
                        const AxisSlots& depth, typename Products::Block& transformed) const {
    AxisSlots slots[kSpatial] = {depth, {}, {}};
    const WinogradAxis* const cut[kSpatial] = {nullptr, &rows_, &columns_};
    for (int axis = 1; axis < kSpatial; ++axis) {
      slots[axis].slots = cut[axis]->slots(tiles[axis] * cut[axis]->tile);
      slots[axis].runs.resize(1);
    }
    const std::int64_t height = slots[1].slots, width = slots[2].slots, positions = depth.slots * height * width;
    const std::int64_t block = std::min(rounded_up(p_.x_channels, Products::kChannelRun), kChannels);
    Workspace<T> input(positions * block);
    for (std::int64_t c0 = 0; c0 < p_.x_channels; c0 += block) {
      const std::int64_t channels = std::min(block, p_.x_channels - c0);
      for (std::int64_t s = 0; s < rows.images; ++s) {
        // Whole tiles; what is behind the last output's inputs is zero.
        const Image own = image(rows.first_image + s, j0, count);
        bool all = channels == block;
        for (int axis = 1; axis < kSpatial; ++axis) {
          const std::int64_t inputs = cut[axis]->slots(own.count[axis]);
          slots[axis].runs[0] = {0, own.phase[axis]->taps[0].offset, cut[axis]->in_step, inputs};
          all = all && inputs == slots[axis].slots;
        }
        if (!all) std::fill_n(input.data(), positions * block, T(0));
        const BlockPacker<S> packer{
            p_.x, {own.phase[0], own.phase[1], own.phase[2]}, {&slots[0], &slots[1], &slots[2]}, *transpose_};
        if (!own.empty()) packer.pack(input, own.sample, channel0 + c0, channels, j0, block, 1);
        for (std::int64_t d = 0; d < depth.slots; ++d)
          for (std::int64_t run = 0; run < runs_; ++run) {
            const std::int64_t first = (d * height + run_of_rows(run).slot) * width + run_of_columns(run).slot;
            const WinogradInputArgs<T> args{input + first * block,
                                            rows_.step * width * block,
                                            columns_.step * block,
                                            tiles[1],
                                            tiles[2],
                                            rounded_up(channels, Products::kChannelRun),
                                            nullptr,
                                            0,
                                            0};
            transformed.transform(args, (s * depth.slots + d) * rows.area, run, c0);
          }
      }
      transformed.finish_channels(c0);
    }
  }

  // The samples with a result that is not finite, or products that are not exact enough, by the definition; all of them
  // where weights were too small.
  void compute_again() const {
    const bool all = too_small_.load(std::memory_order_relaxed);
    const auto again = [&](std::int64_t n) {
      bool some = all;
      for (std::int64_t i = n * images_of_sample_; i < (n + 1) * images_of_sample_; ++i)
        some = some || not_finite_[static_cast<std::size_t>(i)].load(std::memory_order_relaxed) || !products_.serves(i);
      return some;
    };
    for_sample_runs(p_, again, gather_dense<S>);
  }

  const GatherProblem<S>& p_;
  std::vector<AxisPhase> lattices_[2];  // along rows and columns
  const AxisPhase* phase_[kSpatial];    // of the first, which is the largest
  WinogradAxis rows_, columns_;
  std::int64_t runs_;
  const WinogradKernel& winograd_;
  const TransposeKernel* transpose_ = nullptr;
  std::int64_t images_of_sample_, images_, depth_taps_, points_;
  Products products_;
  std::int64_t cols_, panels_, together_ = 1, planes_ = 1;
  std::int64_t block_[kSpatial] = {1, 1, 1}, blocks_[kSpatial] = {1, 1, 1};  // in tiles
  std::int64_t image_bytes_ = 0;                                             // of transformed inputs
  std::vector<std::atomic<bool>> not_finite_;
  std::atomic<bool> too_small_{false};  // weights, for their transform
};

// Cycles of a sample's products, transforms and packing, and of the weights as if four samples shared them.
template <class S>
double cycles_on_tiles(const GatherProblem<S>& problem, const TileKernel& kernel, std::int64_t passes) {
  constexpr double kTransform = 1.6, kPack = 0.9, kOutput = 0.6, kWeight = 1.2;  // of a value
  const auto planes = static_cast<double>(problem.phases[0][0].out_count);
  const std::int64_t rows_of_tiles = lattice_tiles(problem.phases[1][0]),
                     tiles = rows_of_tiles * lattice_tiles(problem.phases[2][0]);
  const std::int64_t together = std::clamp<std::int64_t>(TileProducts::kManyTiles / tiles, 1, 4);
  const std::int64_t blocks = ceil_div(tiles * together, TileProducts::kManyTiles);
  const auto rows = static_cast<double>(blocks * ceil_div(ceil_div(tiles * together, blocks), kRowTile)) /
                    static_cast<double>(together);
  const auto taps = static_cast<double>(problem.phases[0][0].taps.size());
  const auto depth = static_cast<double>(rounded_up(problem.x_channels, kPartRun));
  const auto outputs = static_cast<double>(rounded_up(problem.y_channels, kPanelCols));
  const auto area = static_cast<double>(tiles);
  const double products =
      rows * taps * depth / kPartRun * outputs / kPanelTile * static_cast<double>(kernel.products) * kTileCycles;
  const double moved = area * (depth * static_cast<double>(passes) * (kTransform + kPack / 3) + outputs * kOutput);
  return kWinogradPoints * (planes * (products + moved) + taps * depth * outputs * kWeight / 4);
}

template <class S>
bool is_3x3(const GatherProblem<S>& problem) {
  return three_even_taps(problem.phases[1][0]) && three_even_taps(problem.phases[2][0]);
}

template <class S>
bool is_line(const GatherProblem<S>& problem) {
  const std::vector<AxisPhase>& rows = problem.phases[1];
  return std::any_of(rows.begin(), rows.end(), WinogradAxis::is_line);
}

// The products of other kernels, of a plane, a channel and an output. They leave out rows of taps that lie in the
// padding (gather_dense), which counts where kernels are large, or dilated with many channels.
template <class S>
double products_of_plane(const GatherProblem<S>& problem) {
  const AxisPhase &down = problem.phases[1][0], &across = problem.phases[2][0];
  const bool many = problem.x_channels * problem.y_channels >= kManyChannels;
  const bool leaves_out = is_3x3(problem) ? dilation_of(down) > 1 && many : true;
  const std::int64_t all = static_cast<std::int64_t>(down.taps.size()) * down.out_count;
  const std::int64_t rows = leaves_out ? live_products(down, problem.x.extent(1)) : all;
  return static_cast<double>(rows) *
         static_cast<double>(static_cast<std::int64_t>(across.taps.size()) * across.out_count);
}

// Whether no phase sums so many products that a plain sum errs as much.
template <class S>
bool few_products(const GatherProblem<S>& problem) {
  if (is_line(problem) && problem.x_channels < kFewChannelsOfLines) return true;
  auto products = static_cast<double>(problem.x_channels);
  for (int axis = 1; axis < kSpatial; ++axis) {
    std::size_t most = 0;
    for (const AxisPhase& phase : problem.phases[axis]) most = std::max(most, phase.taps.size());
    products *= static_cast<double>(most);
  }
  return products < (is_line(problem) ? kFewProductsOfLines : kFewProducts);
}

// The time of tiles of outputs over its own: the products that it saves, and the transforms, whose part is the larger
// the fewer channels and outputs there are. Fitted to 6,000 random problems of 3x3, and to 300 others, whose weights
// grow in their transform: preparing them takes as long as some tiles; and to 150 lines; see bench/LOG.md.
template <class S>
double gain_on_vectors(const GatherProblem<S>& problem) {
  const AxisPhase &down = problem.phases[1][0], &across = problem.phases[2][0];
  const WinogradAxis rows(lattice(down, 0), WinogradAxis::down), columns(lattice(across, 0), WinogradAxis::across);
  if (!winograd_serves(rows, columns)) return 0;
  const std::int64_t tiles = lattice_tiles(down) * lattice_tiles(across), points = rows.points() * columns.points();
  const double saved = products_of_plane(problem) / static_cast<double>(points * tiles);
  const auto x = static_cast<double>(problem.x_channels), y = static_cast<double>(problem.y_channels);
  const bool line = is_line(problem);
  // Of preparing the weights, as long as so many tiles take; of transforms; and of lattices whose positions lie side by
  // side, which a line reads and stores number by number.
  const double weights = line ? 1 : kWeightTiles, transforms = line ? 6.5 : 8.5,
               strided = line && dilation_of(across) > 1 && problem.x.step(2) == 1 ? 1.15 : 1;
  const double inputs = std::max(1.0, kFewestLanes / x) / y,
               outputs = static_cast<double>(winograd_points_of(rows)) / (static_cast<double>(points) * x);
  const auto all_tiles = static_cast<double>(tiles * problem.phases[0][0].out_count);
  const double products = is_3x3(problem) ? 1.3 : 1.1 * (1 + weights / all_tiles);
  return saved / (products * strided * (1 + transforms * (inputs + outputs)));
}

template <class S>
double cycles_on_vectors(const GatherProblem<S>& problem, double gain) {
  const auto x = static_cast<double>(problem.x_channels), y = static_cast<double>(problem.y_channels);
  const auto taps = static_cast<double>(problem.phases[0][0].taps.size());
  const auto planes = static_cast<double>(problem.phases[0][0].out_count);
  constexpr double kWeight = 0.6;  // of a transformed one, shared by four samples
  return products_of_plane(problem) * planes * taps * x * y / (kOtherRate * gain) +
         static_cast<double>(is_line(problem) ? kWinogradSide : kWinogradPoints) * taps * x * y * kWeight / 4;
}

}  // namespace

template <class S>
WinogradChoice choose_winograd(const GatherProblem<S>& problem, bool on_tiles) {
  constexpr Dtype dtype = DtypeOf<Compute<S>>::value;
  if (!problem.has_one_phase() || problem.x_channels == 0) return {};
  for (const std::vector<AxisPhase>& of_axis : problem.phases)
    if (of_axis.front().taps.empty()) return {};
  const bool plain = is_3x3(problem);
  const std::string forced = forced_kernel();
  const bool few = !plain && few_products(problem);
  if (few && forced.empty()) return {};  // before anything is planned
  const double gain = gain_on_vectors(problem), least = plain              ? kLeastGain3x3
                                                        : is_line(problem) ? kLeastGainOfLines
                                                                           : kLeastGainOfOthers;
  if (gain == 0) return {};
  const IsaMask mask = active_isa_mask();
  const WinogradKernel& vectors = find_winograd(dtype, mask);
  const WinogradKernel* const tiles =
      on_tiles && plain ? find_winograd_on_tiles(dtype, is_wide<S> ? problem.precision : Precision::highest, mask)
                        : nullptr;
  if (tiles && forced == tiles->name) return {tiles, 0};
  if (forced == vectors.name) return {&vectors, 0};
  if (!forced.empty() && (forced == find_conv(dtype, problem.y_channels, mask).name ||
                          forced == find_depthwise(dtype, problem.y_channels, mask).name))
    return {};
  // Lattices of one or two outputs are mostly borders.
  for (int axis = 1; axis < kSpatial; ++axis) {
    const AxisPhase& phase = problem.phases[axis][0];
    if (dilation_of(phase) > 1 && phase.out_count / dilation_of(phase) < kShortestLattice) return {};
  }
  if (few) return {};
  const double by_vectors = cycles_on_vectors(problem, gain);
  if constexpr (dtype == Dtype::f32) {
    if (tiles) {
      const WinogradDriver<S, TileProducts> driver(problem, *tiles);
      const double by_tiles = cycles_on_tiles(problem, *tiles->tiles, driver.passes());
      if (driver.fits() && by_tiles < by_vectors * std::min(gain, 1.0)) return {tiles, by_tiles, gain};
    }
  }
  return gain >= least ? WinogradChoice{&vectors, by_vectors, gain} : WinogradChoice{};
}

namespace {

// One phase; false if its transforms need more memory than a call may take.
template <class S>
bool gather_phase(const GatherProblem<S>& problem, const WinogradChoice& choice) {
  const auto run = [](auto&& driver) {
    if (!driver.fits()) return false;
    driver.run();
    return true;
  };
  if constexpr (std::is_same_v<Compute<S>, float>) {
    if (choice.kernel->tiles) return run(WinogradDriver<S, TileProducts>(problem, *choice.kernel));
  }
  return run(WinogradDriver<S, VectorProducts<Compute<S>>>(problem, *choice.kernel));
}

}  // namespace

template <class S>
bool gather_winograd(const GatherProblem<S>& problem, bool on_tiles, void (*otherwise)(const GatherProblem<S>&)) {
  if (problem.has_one_phase()) {
    const WinogradChoice choice = choose_winograd(problem, on_tiles);
    return choice.kernel && gather_phase(problem, choice);
  }
  if (few_products(problem) && forced_kernel().empty()) return false;
  struct Part {
    GatherProblem<S> problem;
    WinogradChoice choice;
  };
  std::vector<Part> parts;
  bool some = false;
  for_each_live_phase(problem, [&](const AxisPhase* const(&phase)[kSpatial]) {
    Part part{problem, {}};
    for (int axis = 0; axis < kSpatial; ++axis) part.problem.phases[axis] = {*phase[axis]};
    part.problem.fills_around = false;
    part.choice = choose_winograd(part.problem, false);
    some = some || part.choice.kernel;
    parts.push_back(std::move(part));
  });
  if (!some) return false;
  if (some_outputs_have_no_taps(problem.phases)) fill_with_bias(problem);
  for (const Part& part : parts)
    if (!part.choice.kernel || !gather_phase(part.problem, part.choice)) otherwise(part.problem);
  return true;
}

#define FASTCONV_WINOGRAD_FOR(S)                                             \
  template WinogradChoice choose_winograd<S>(const GatherProblem<S>&, bool); \
  template bool gather_winograd<S>(const GatherProblem<S>&, bool, void (*)(const GatherProblem<S>&));
FASTCONV_WINOGRAD_FOR(float)
FASTCONV_WINOGRAD_FOR(double)
FASTCONV_WINOGRAD_FOR(Float16)
FASTCONV_WINOGRAD_FOR(BFloat16)

}  // namespace fastconv
