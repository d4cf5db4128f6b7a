// Dense and grouped gather: blocks of outputs of a sample, or all outputs of a few samples where they are few; the
// block's inputs packed channels-last into scratch, a block of channels at a time, then tiles of (positions x channels)
// by the gather_gemm kernel.
#include <algorithm>
#include <atomic>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_pack.h"
#include "ops/conv_store.h"

namespace fastconv {
namespace {

constexpr std::int64_t kBlockPositions = 240;
constexpr std::int64_t kBlockColumns = 256;
constexpr std::int64_t kLeastChannels = 8;                    // channels are packed in multiples of these
constexpr std::int64_t kFewPanels = 4;                        // more than these share a packed input
constexpr std::int64_t kSharedInput = std::int64_t{1} << 16;  // elements of samples, or groups, of an item
constexpr std::int64_t kJoinedChannels = 64;                  // of x, of groups that an item takes together
constexpr std::int64_t kTrimmed = 16;                         // channels times panels
constexpr std::int64_t kManyChannels = 128 * 128;             // of x times of y
constexpr double kWorthParting = 0.85;                        // products left over
constexpr std::int64_t kOwnPart = 4;                          // of a call's memory, for the panels of an item

template <class S>
class PhaseDriver {
  using T = Compute<S>;

 public:
  PhaseDriver(const GatherProblem<S>& problem, const AxisPhase* const (&phase)[kSpatial])
      : p_(problem),
        phase_{phase[0], phase[1], phase[2]},
        kernel_(select_conv(DtypeOf<T>::value, problem.y_channels, active_isa_mask())),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        weight_of_tap_(weight_offsets(*phase[0], *phase[1], *phase[2], problem.weight_tap)) {
    taps_ = static_cast<std::int64_t>(weight_of_tap_.size());
    cols_ = kernel_.tile_cols;
    panels_ = ceil_div(p_.y_channels, cols_);
    choose_parts();
    // Blocks of channels and of taps depend on the shape of a sample and the weight only: they fix the order of the
    // sum.
    const std::int64_t wanted =
        ceil_div(ceil_div(kReductionBlock, std::max<std::int64_t>(live_taps_, 1)), kLeastChannels);
    // Inputs of parts lie far apart: twice as many channels of each are read at a time.
    const std::int64_t read = wanted * kLeastChannels * (live_taps_ < taps_ ? 2 : 1);
    const std::int64_t blocks = ceil_div(std::max<std::int64_t>(p_.x_channels, 1), read);
    channel_block_ = ceil_div(std::max<std::int64_t>(p_.x_channels, 1), blocks);
    joins_groups_ = p_.groups > 1 && p_.x_channels > 0 && panels_ == 1 && blocks == 1;
    choose_block();
  }

  void run() {
    const std::int64_t panel_size = std::max<std::int64_t>(1, taps_ * p_.x_channels * cols_);
    const std::int64_t total = p_.groups * panels_;
    if (panel_size <= kMostElements<T> && reads_weights_once(total)) {
      compute(0, total, nullptr, panel_size);
      if (results_finite_ || weights_are_finite(total)) return;
      weights_finite_ = false;
      return compute(0, total, nullptr, panel_size);
    }
    const std::int64_t at_once = std::clamp<std::int64_t>(kMostElements<T> / panel_size, 1, total);
    Workspace<T> packed(at_once * panel_size);
    for (std::int64_t first = 0; first < total; first += at_once) {
      const std::int64_t count = std::min(at_once, total - first);
      std::vector<unsigned char> finite(count);
      const Work packing{count, 0.5 * static_cast<double>(count * panel_size)};
      parallel_for(packing, subnormals_of(DtypeOf<T>::value), [&](std::int64_t i) {
        pack_panel(first + i, packed + i * panel_size);
        finite[i] = all_finite(packed + i * panel_size, panel_size);
      });
      weights_finite_ = std::all_of(finite.begin(), finite.end(), [](unsigned char f) { return f != 0; });
      compute(first, count, packed, panel_size);
    }
  }

 private:
  // Where much of a dilated kernel lies in the padding, outputs with the same live taps are blocks of their own: a tile
  // leaves out taps that none of its outputs has, and neighbours in a row seldom have the same.
  void choose_parts() {
    for (int axis = 0; axis < kSpatial; ++axis) parts_[axis] = {{*phase_[axis], 0}};
    live_taps_ = taps_;
    if (p_.x_channels * p_.y_channels < kManyChannels || p_.fills_around) return;
    std::vector<LivePart> live[kSpatial];
    for (int axis = 1; axis < kSpatial; ++axis) live[axis] = by_live_taps(*phase_[axis], p_.x.extent(axis));
    const auto taps = [](const AxisPhase& phase) { return static_cast<std::int64_t>(phase.taps.size()); };
    std::int64_t apart = 0, outputs = 0;
    for (const LivePart& h : live[1])
      for (const LivePart& w : live[2]) {
        const std::int64_t rows = rounded_up(h.phase.out_count * w.phase.out_count, std::int64_t{kernel_.tile_rows});
        apart += rows * taps(h.phase) * taps(w.phase);
        outputs += rows;
      }
    // Together, tiles leave out rows of taps, and hardly ever columns.
    const std::int64_t together = live_products(*phase_[1], p_.x.extent(1)) * phase_[2]->out_count * taps(*phase_[2]);
    if (static_cast<double>(apart) > kWorthParting * static_cast<double>(together)) return;
    for (int axis = 1; axis < kSpatial; ++axis) parts_[axis] = std::move(live[axis]);
    live_taps_ = ceil_div(apart, outputs) * taps(*phase_[0]);
  }

  // Blocks of outputs: rows as wide as they are up to a limit, then as many rows as fill the block.
  void choose_block() {
    const auto longest = [](const std::vector<LivePart>& parts) {
      std::int64_t most = 0;
      for (const LivePart& part : parts) most = std::max(most, part.phase.out_count);
      return most;
    };
    const std::int64_t width = std::min(longest(parts_[2]), kBlockPositions), height = longest(parts_[1]);
    const std::int64_t most[kSpatial] = {1, balanced(height, std::max<std::int64_t>(1, kBlockPositions / width)),
                                         width};
    for (int axis = 0; axis < kSpatial; ++axis)
      for (const LivePart& part : parts_[axis])
        for (std::int64_t j = 0; j < part.phase.out_count; j += most[axis])
          pieces_[axis].push_back({&part, j, std::min(most[axis], part.phase.out_count - j)});
    // Samples of a small map share what is read of the weights.
    image_ = channel_block_;
    for (int axis = 0; axis < kSpatial; ++axis) image_ *= axis_slots(*phase_[axis], most[axis], false).slots;
    const std::int64_t together = std::min(kBlockPositions / (most[1] * most[2]), kSharedInput / image_);
    samples_ = std::clamp<std::int64_t>(together, 1, p_.x.shape[0]);
  }

  std::int64_t position_blocks() const {
    std::int64_t blocks = 1;
    for (const std::vector<Piece>& of_axis : pieces_) blocks *= static_cast<std::int64_t>(of_axis.size());
    return blocks;
  }

  std::int64_t panels_of_item() const {
    if (!joins_groups_) return std::max<std::int64_t>(1, kBlockColumns / cols_);
    return std::max<std::int64_t>(1, std::min(kJoinedChannels / p_.x_channels, kSharedInput / (samples_ * image_)));
  }

  // Then no panel is kept. By samples there may be more items than by panels.
  bool reads_weights_once(std::int64_t total) const {
    return position_blocks() * ceil_div(p_.x.shape[0], samples_) == 1 &&
           panels_of_item() * channel_block_ * taps_ * cols_ <= kMostElements<T> / kOwnPart &&
           (p_.x.shape[0] == 1 || total >= 4 * get_num_threads());
  }

  bool weights_are_finite(std::int64_t total) const {
    std::atomic<bool> finite{true};
    const Work work{total, static_cast<double>(total * taps_ * p_.x_channels * cols_)};
    parallel_for(work, Subnormals::keep, [&](std::int64_t i) {
      Workspace<T> block(channel_block_ * taps_ * cols_);
      for (std::int64_t c0 = 0; finite && c0 < p_.x_channels; c0 += channel_block_) {
        const std::int64_t channels = std::min(channel_block_, p_.x_channels - c0);
        pack_panel_block(i, c0, channels, block);
        if (!all_finite(block.data(), channels * taps_ * cols_)) finite = false;
      }
    });
    return finite;
  }

  // Panel layout: [channel block][tap][channel in block][column], zero columns past the last channel.
  void pack_panel(std::int64_t index, T* dst) const {
    for (std::int64_t c0 = 0; c0 < p_.x_channels; c0 += channel_block_)
      pack_panel_block(index, c0, std::min(channel_block_, p_.x_channels - c0), dst + c0 * taps_ * cols_);
  }
  void pack_panel_block(std::int64_t index, std::int64_t c0, std::int64_t channels, T* dst) const {
    const std::int64_t group = index / panels_, y0 = index % panels_ * cols_;
    const std::int64_t live = std::min<std::int64_t>(cols_, p_.y_channels - y0);
    const S* const from = p_.weight + group * p_.weight_group + y0 * p_.weight_y + c0 * p_.weight_x;
    const PanelWeights<S> weights(weight_of_tap_, p_.weight_x, p_.weight_y);
    if (weights.in_list()) {
      weights.copy_list(from, channels, live, cols_, dst, cols_, channels * cols_);
      return;
    }
    const std::int64_t copied = weights.copied();
    const bool at_once = taps_ == 1 && copied == 1;
    Workspace<T> block(at_once ? 0 : channels * copied * cols_);
    T* const turned = at_once ? dst : block.data();
    weights.copy(transpose_, from, channels, live, cols_, turned);
    for (std::int64_t t = 0; t < taps_ && !at_once; ++t)
      for (std::int64_t c = 0; c < channels; ++c)
        copy_columns(turned + (c * copied + weights.place(t)) * cols_, dst + (t * channels + c) * cols_);
  }

  // A panel's row: lengths that the compiler knows spare a call each.
  void copy_columns(const T* from, T* to) const {
    constexpr std::int64_t half = 64 / static_cast<std::int64_t>(sizeof(T)) / 2;
    for (std::int64_t c = 0; c < cols_; c += half) std::memcpy(to + c, from + c, half * sizeof(T));
  }

  // `packed` may be null: then each item packs the panels that it needs.
  void compute(std::int64_t first_panel, std::int64_t panel_count, const T* packed, std::int64_t panel_size) {
    const std::int64_t samples = p_.x.shape[0], blocks = position_blocks();
    // Panels of one group, and samples, that one item computes; fewer where they would leave threads idle.
    std::int64_t span = panels_of_item(), together = samples_;
    const auto idle = [&] {
      return blocks * ceil_div(samples, together) * ceil_div(panel_count, span) < 4 * get_num_threads();
    };
    while (span > kFewPanels && idle()) span = ceil_div(span, 2);
    while (packed && together > 1 && idle()) together = ceil_div(together, 2);
    while (span > 1 && idle()) span = ceil_div(span, 2);
    // Groups that are joined are the panels of one.
    const std::int64_t panels = joins_groups_ ? p_.groups : panels_;
    const std::vector<PanelJob> jobs = panel_jobs(first_panel, panel_count, panels, span);
    const std::int64_t job_count = static_cast<std::int64_t>(jobs.size());
    const double steps = static_cast<double>(panel_size) * static_cast<double>(panel_count);  // an output position
    const double positions = static_cast<double>(samples * phase_[0]->out_count * phase_[1]->out_count) *
                             static_cast<double>(phase_[2]->out_count);
    parallel_for({blocks * ceil_div(samples, together) * job_count, positions * steps * multiply_add_nanoseconds<T>()},
                 subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
                   const PanelJob& job = jobs[static_cast<std::size_t>(item % job_count)];
                   std::int64_t index = item / job_count;
                   Block block;
                   for (int axis = kSpatial - 1; axis >= 0; --axis) {
                     const auto count = static_cast<std::int64_t>(pieces_[axis].size());
                     block.set(axis, pieces_[axis][static_cast<std::size_t>(index % count)]);
                     index /= count;
                   }
                   const std::int64_t first = index * together;
                   const Samples of{first, std::min(together, samples - first)};
                   run_block(of, job.group, job.panel, job.count, packed ? packed + job.slot * panel_size : nullptr,
                             panel_size, block);
                 });
  }

  // Some outputs of a part.
  struct Piece {
    const LivePart* part;
    std::int64_t j0, count;
  };
  struct Block {
    const AxisPhase* phase[kSpatial];
    std::int64_t first_tap[kSpatial], j0[kSpatial], count[kSpatial];

    void set(int axis, const Piece& piece) {
      phase[axis] = &piece.part->phase;
      first_tap[axis] = piece.part->first_tap;
      j0[axis] = piece.j0;
      count[axis] = piece.count;
    }
  };

  struct Samples {
    std::int64_t first, count;
  };

  void run_block(const Samples& of, std::int64_t group, std::int64_t panel, std::int64_t panel_count, const T* packed,
                 std::int64_t panel_size, const Block& block) {
    const auto& count = block.count;
    AxisSlots slots[kSpatial];
    std::int64_t taps = 1;
    for (int axis = 0; axis < kSpatial; ++axis) {
      slots[axis] = axis_slots(*block.phase[axis], count[axis], false);
      taps *= static_cast<std::int64_t>(block.phase[axis]->taps.size());
    }
    const std::int64_t tap_blocks =
        std::clamp<std::int64_t>(channel_block_ * taps / kReductionBlock, 1, std::max<std::int64_t>(taps, 1));
    const BlockPacker<S> packer{
        p_.x, {block.phase[0], block.phase[1], block.phase[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_};
    const std::int64_t positions = count[1] * count[2], ldc = panel_count * cols_;
    const std::int64_t image = packer.positions() * channel_block_;
    const std::int64_t groups = joins_groups_ ? panel_count : 1, first_group = joins_groups_ ? panel : group;
    Workspace<T> input(groups * of.count * image);
    Workspace<T> result(of.count * positions * ldc);
    const std::int64_t own_size = channel_block_ * taps_ * cols_;
    Workspace<T> own_panels(packed ? 0 : panel_count * own_size);
    std::vector<std::vector<Segment>> segments;  // of each tile, or of all
    std::vector<std::int64_t> slot_of(positions);
    for (std::int64_t q = 0; q < positions; ++q)
      slot_of[q] = q / count[2] * slots[1].step * slots[2].slots + q % count[2] * slots[2].step;
    // Taps in the padding are left out where a tile's work is worth a list of its own, and where their weights, which
    // may be infinite, must not meet zeros.
    const bool padded = !all_taps_live(block), exact = padded && !weights_finite_;
    // By the shape alone: a padding's zero that is added or not shows in the sign of a zero.
    const bool trimmed = exact || (padded && panels_ * std::min(channel_block_, p_.x_channels) >= kTrimmed);
    const std::int64_t tile = exact ? 1 : kernel_.tile_rows;
    segments.resize(static_cast<std::size_t>(trimmed ? ceil_div(positions, tile) : 1));

    for (std::int64_t c0 = 0; c0 == 0 || c0 < p_.x_channels; c0 += channel_block_) {
      const std::int64_t channels = std::min(channel_block_, p_.x_channels - c0);
      for (std::int64_t i = 0; i < groups * of.count; ++i)
        packer.pack(input + i * image, of.first + i % of.count, (first_group + i / of.count) * p_.x_channels + c0,
                    channels, block.j0, channels, 1);
      for (std::int64_t b = 0; b < tap_blocks; ++b) {
        const std::int64_t first = taps * b / tap_blocks, last = taps * (b + 1) / tap_blocks;
        for (std::int64_t q = 0, i = 0; i < static_cast<std::int64_t>(segments.size()); ++i, q += tile)
          list_segments(segments[static_cast<std::size_t>(i)], block, slots, channels, packed ? c0 : 0, first, last,
                        trimmed ? bounds_of(q, tile, block) : Bounds{});
        for (std::int64_t i = 0; i < panel_count; ++i) {
          T* const own = own_panels + (packed ? 0 : i * own_size);
          if (!packed && b == 0) pack_panel_block((joins_groups_ ? 0 : group * panels_) + panel + i, c0, channels, own);
          const T* const weights = packed ? packed + i * panel_size : own;
          for (std::int64_t n = 0; n < of.count; ++n)
            for (std::int64_t q = 0; q < positions; q += tile) {
              const std::int64_t rows = std::min(tile, positions - q);
              const std::vector<Segment>& runs = segments[static_cast<std::size_t>(trimmed ? q / tile : 0)];
              const bool accumulate = c0 > 0 || b > 0;
              if (accumulate && runs.empty()) continue;
              const T* a[kMaxTileRows];
              const T* const from = input + ((joins_groups_ ? i : 0) * of.count + n) * image;
              for (std::int64_t m = 0; m < rows; ++m) a[m] = from + slot_of[q + m] * channels;
              T* const c = result + (n * positions + q) * ldc + i * cols_;
              const GemmArgs<T> args{
                  a,  weights, runs.data(), static_cast<std::int64_t>(runs.size()), c, ldc, accumulate ? c : nullptr,
                  ldc};
              kernel_.gemm[rows - 1](&args);
            }
        }
      }
    }
    // A weight that is not finite shows in the results, whether it met an input or a zero of the padding.
    if (!packed && padded && !exact && !all_finite(result.data(), of.count * positions * ldc)) results_finite_ = false;
    // Whole panels follow each other in y as they do here, those of joined groups as well.
    const bool apart = joins_groups_ && p_.y_channels < cols_;
    const std::int64_t stores = apart ? groups : 1;
    for (std::int64_t i = 0; i < of.count * stores; ++i) {
      const std::int64_t n = i / stores, y0 = joins_groups_ ? 0 : panel * cols_;
      const std::int64_t live = joins_groups_ ? groups * p_.y_channels : p_.y_channels - y0;
      store_block<S>(p_, block.phase, transpose_, of.first + n, (first_group + i % stores) * p_.y_channels + y0,
                     apart ? p_.y_channels : std::min(ldc, live), block.j0, count,
                     result + n * positions * ldc + i % stores * cols_, ldc, count[2]);
    }
  }

  bool all_taps_live(const Block& block) const {
    for (int axis = 0; axis < kSpatial; ++axis)
      for (const Tap& tap : block.phase[axis]->taps) {
        const Range live = live_outputs(*block.phase[axis], tap, block.j0[axis], block.count[axis], p_.x.extent(axis));
        if (live.begin != 0 || live.end != block.count[axis]) return false;
      }
    return true;
  }

  // The first and the last output of a tile, along each dimension.
  struct Bounds {
    std::int64_t first[kSpatial] = {}, last[kSpatial] = {};
    bool known = false;
  };

  Bounds bounds_of(std::int64_t q, std::int64_t tile, const Block& block) const {
    const auto &j0 = block.j0, &count = block.count;
    const std::int64_t end = std::min(q + tile, count[1] * count[2]) - 1;
    Bounds bounds{{j0[0], j0[1] + q / count[2], j0[2]}, {j0[0], j0[1] + end / count[2], j0[2] + count[2] - 1}, true};
    if (q / count[2] == end / count[2]) {
      bounds.first[2] = j0[2] + q % count[2];
      bounds.last[2] = j0[2] + end % count[2];
    }
    return bounds;
  }

  // The taps [first, last) as runs of the reduction, neighbours merged; without those that are in the padding for all
  // of a tile.
  void list_segments(std::vector<Segment>& segments, const Block& block, const AxisSlots (&slots)[kSpatial],
                     std::int64_t channels, std::int64_t c0, std::int64_t first, std::int64_t last,
                     const Bounds& bounds) const {
    segments.clear();
    const auto live = [&](int axis, std::size_t t) {
      if (!bounds.known) return true;
      const std::int64_t step = block.phase[axis]->in_step, offset = block.phase[axis]->taps[t].offset;
      return bounds.last[axis] * step + offset >= 0 && bounds.first[axis] * step + offset < p_.x.extent(axis);
    };
    const auto place = [&](int axis, std::size_t t) { return block.first_tap[axis] + static_cast<std::int64_t>(t); };
    const auto height = static_cast<std::int64_t>(phase_[1]->taps.size()),
               width = static_cast<std::int64_t>(phase_[2]->taps.size());
    std::int64_t index = 0;
    for (std::size_t d = 0; d < block.phase[0]->taps.size(); ++d)
      for (std::size_t h = 0; h < block.phase[1]->taps.size(); ++h)
        for (std::size_t w = 0; w < block.phase[2]->taps.size(); ++w, ++index) {
          if (index < first || index >= last || !live(0, d) || !live(1, h) || !live(2, w)) continue;
          const std::int64_t slot =
              (slots[0].base[d] * slots[1].slots + slots[1].base[h]) * slots[2].slots + slots[2].base[w];
          const std::int64_t in_weight = (place(0, d) * height + place(1, h)) * width + place(2, w);
          const Segment next{slot * channels, c0 * taps_ + in_weight * channels, channels};
          if (!segments.empty() && segments.back().a + segments.back().length == next.a &&
              segments.back().b + segments.back().length == next.b)
            segments.back().length += channels;
          else
            segments.push_back(next);
        }
  }

  const GatherProblem<S>& p_;
  const AxisPhase* phase_[kSpatial];
  const ConvKernel& kernel_;
  const TransposeKernel& transpose_;
  std::vector<std::int64_t> weight_of_tap_;
  std::int64_t taps_ = 0, live_taps_ = 0, cols_ = 0, panels_ = 0, channel_block_ = 0;
  std::vector<LivePart> parts_[kSpatial];
  std::vector<Piece> pieces_[kSpatial];
  std::int64_t samples_ = 1;  // that an item takes together
  std::int64_t image_ = 1;    // elements that are packed of each
  bool joins_groups_ = false;
  bool weights_finite_ = true;              // as far as is known
  std::atomic<bool> results_finite_{true};  // where weights were not looked at
};

}  // namespace

template <class S>
void gather_dense(const GatherProblem<S>& problem) {
  for_each_phase(problem, Fill::around,
                 [&](const AxisPhase* const(&phase)[kSpatial]) { PhaseDriver<S>(problem, phase).run(); });
}

template void gather_dense<float>(const GatherProblem<float>&);
template void gather_dense<double>(const GatherProblem<double>&);
template void gather_dense<Float16>(const GatherProblem<Float16>&);
template void gather_dense<BFloat16>(const GatherProblem<BFloat16>&);

}  // namespace fastconv
