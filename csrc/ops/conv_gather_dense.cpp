// Dense and grouped gather: blocks of outputs of a sample, or all outputs of a few samples where they are few; the
// block's inputs packed channels-last into scratch, a block of channels at a time, then tiles of (positions x channels)
// by the gather_gemm kernel.
#include <algorithm>

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
constexpr std::int64_t kSharedInput = std::int64_t{1} << 16;  // elements of samples that an item takes together
constexpr std::int64_t kTrimmed = 32;                         // channels times panels

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
    // Blocks of channels and of taps depend on the shape of the weight only: they fix the order of the sum.
    const std::int64_t wanted = ceil_div(ceil_div(kReductionBlock, std::max<std::int64_t>(taps_, 1)), kLeastChannels);
    const std::int64_t blocks = ceil_div(std::max<std::int64_t>(p_.x_channels, 1), wanted * kLeastChannels);
    channel_block_ = ceil_div(std::max<std::int64_t>(p_.x_channels, 1), blocks);
    tap_blocks_ =
        std::clamp<std::int64_t>(channel_block_ * taps_ / kReductionBlock, 1, std::max<std::int64_t>(taps_, 1));
    choose_block();
  }

  void run() {
    const std::int64_t panel_size = std::max<std::int64_t>(1, taps_ * p_.x_channels * cols_);
    const std::int64_t total = p_.groups * panels_;
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
      finite_ = std::all_of(finite.begin(), finite.end(), [](unsigned char f) { return f != 0; });
      compute(first, count, packed, panel_size);
    }
  }

 private:
  // Blocks of outputs: rows as wide as they are up to a limit, then as many rows as fill the block.
  void choose_block() {
    block_[0] = 1;
    block_[2] = std::min(phase_[2]->out_count, kBlockPositions);
    const std::int64_t rows = std::max<std::int64_t>(1, kBlockPositions / block_[2]);
    const std::int64_t row_blocks = ceil_div(phase_[1]->out_count, rows);
    block_[1] = ceil_div(phase_[1]->out_count, row_blocks);
    for (int axis = 0; axis < kSpatial; ++axis) blocks_[axis] = ceil_div(phase_[axis]->out_count, block_[axis]);
    // Samples of a small map share what is read of the weights.
    std::int64_t image = channel_block_;
    for (int axis = 0; axis < kSpatial; ++axis) image *= axis_slots(*phase_[axis], block_[axis], false).slots;
    const std::int64_t most = std::min(kBlockPositions / (block_[1] * block_[2]), kSharedInput / image);
    samples_ = std::clamp<std::int64_t>(most, 1, p_.x.shape[0]);
  }

  // Panel layout: [channel block][tap][channel in block][column], zero columns past the last channel.
  void pack_panel(std::int64_t index, T* dst) const {
    const std::int64_t group = index / panels_, y0 = index % panels_ * cols_;
    const std::int64_t live = std::min<std::int64_t>(cols_, p_.y_channels - y0);
    const S* base = p_.weight + group * p_.weight_group + y0 * p_.weight_y;
    // A column's weights that follow each other in memory are transposed in registers.
    const bool runs = p_.weight_x == taps_ && p_.weight_y > taps_ && one_run(weight_of_tap_);
    Workspace<T> block(runs && taps_ > 1 ? channel_block_ * taps_ * cols_ : 0);
    for (std::int64_t c0 = 0; c0 < p_.x_channels; c0 += channel_block_) {
      const std::int64_t channels = std::min(channel_block_, p_.x_channels - c0);
      T* const target = dst + c0 * taps_ * cols_;
      if (runs) {
        T* const turned = taps_ > 1 ? block.data() : target;
        if (live < cols_) std::fill_n(turned, channels * taps_ * cols_, T(0));
        widen_transposed(transpose_, live, channels * taps_, base + c0 * taps_, p_.weight_y, turned, cols_);
        for (std::int64_t t = 0; t < taps_ && taps_ > 1; ++t)
          for (std::int64_t c = 0; c < channels; ++c)
            copy_columns(turned + (c * taps_ + weight_of_tap_[t]) * cols_, target + (t * channels + c) * cols_);
        continue;
      }
      for (std::int64_t t = 0; t < taps_; ++t)
        for (std::int64_t c = 0; c < channels; ++c) {
          const S* row = base + weight_of_tap_[t] + (c0 + c) * p_.weight_x;
          T* columns = target + (t * channels + c) * cols_;
          for (std::int64_t y = 0; y < live; ++y) columns[y] = widen(row[y * p_.weight_y]);
          std::fill(columns + live, columns + cols_, T(0));
        }
    }
  }

  // A panel's row: lengths that the compiler knows spare a call each.
  void copy_columns(const T* from, T* to) const {
    constexpr std::int64_t half = 64 / static_cast<std::int64_t>(sizeof(T)) / 2;
    for (std::int64_t c = 0; c < cols_; c += half) std::memcpy(to + c, from + c, half * sizeof(T));
  }

  void compute(std::int64_t first_panel, std::int64_t panel_count, const T* packed, std::int64_t panel_size) {
    const std::int64_t samples = p_.x.shape[0], blocks = blocks_[0] * blocks_[1] * blocks_[2];
    // Panels of one group, and samples, that one item computes; fewer where they would leave threads idle.
    std::int64_t span = std::max<std::int64_t>(1, kBlockColumns / cols_), together = samples_;
    const auto idle = [&] {
      return blocks * ceil_div(samples, together) * ceil_div(panel_count, span) < 4 * get_num_threads();
    };
    while (span > kFewPanels && idle()) span = ceil_div(span, 2);
    while (together > 1 && idle()) together = ceil_div(together, 2);
    while (span > 1 && idle()) span = ceil_div(span, 2);
    const std::vector<PanelJob> jobs = panel_jobs(first_panel, panel_count, panels_, span);
    const std::int64_t job_count = static_cast<std::int64_t>(jobs.size());
    const double steps = static_cast<double>(panel_size) * static_cast<double>(panel_count);  // an output position
    const double positions = static_cast<double>(samples * phase_[0]->out_count * phase_[1]->out_count) *
                             static_cast<double>(phase_[2]->out_count);
    parallel_for({blocks * ceil_div(samples, together) * job_count, positions * steps * multiply_add_nanoseconds<T>()},
                 subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
                   const PanelJob& job = jobs[static_cast<std::size_t>(item % job_count)];
                   std::int64_t j0[kSpatial];
                   const std::int64_t first = locate_block(item / job_count, blocks_, block_, j0) * together;
                   const Samples of{first, std::min(together, samples - first)};
                   run_block(of, job.group, job.panel, job.count, packed + job.slot * panel_size, panel_size, j0);
                 });
  }

  struct Samples {
    std::int64_t first, count;
  };

  void run_block(const Samples& of, std::int64_t group, std::int64_t panel, std::int64_t panel_count, const T* packed,
                 std::int64_t panel_size, const std::int64_t (&j0)[kSpatial]) const {
    std::int64_t count[kSpatial];
    AxisSlots slots[kSpatial];
    for (int axis = 0; axis < kSpatial; ++axis) {
      count[axis] = std::min(block_[axis], phase_[axis]->out_count - j0[axis]);
      slots[axis] = axis_slots(*phase_[axis], count[axis], false);
    }
    const BlockPacker<S> packer{p_.x, {phase_[0], phase_[1], phase_[2]}, {&slots[0], &slots[1], &slots[2]}, transpose_};
    const std::int64_t positions = count[1] * count[2], ldc = panel_count * cols_;
    const std::int64_t image = packer.positions() * channel_block_;
    Workspace<T> input(of.count * image);
    Workspace<T> result(of.count * positions * ldc);
    std::vector<std::vector<Segment>> segments;  // of each tile, or of all
    std::vector<std::int64_t> slot_of(positions);
    for (std::int64_t q = 0; q < positions; ++q)
      slot_of[q] = q / count[2] * slots[1].step * slots[2].slots + q % count[2] * slots[2].step;
    // Taps in the padding are left out where a tile's work is worth a list of its own, and where their weights, which
    // may be infinite, must not meet zeros.
    const bool padded = !all_taps_live(j0, count), exact = padded && !finite_;
    const bool trimmed = exact || (padded && panel_count * std::min(channel_block_, p_.x_channels) >= kTrimmed);
    const std::int64_t tile = exact ? 1 : kernel_.tile_rows;
    segments.resize(static_cast<std::size_t>(trimmed ? ceil_div(positions, tile) : 1));

    for (std::int64_t c0 = 0; c0 == 0 || c0 < p_.x_channels; c0 += channel_block_) {
      const std::int64_t channels = std::min(channel_block_, p_.x_channels - c0);
      for (std::int64_t n = 0; n < of.count; ++n)
        packer.pack(input + n * image, of.first + n, group * p_.x_channels + c0, channels, j0, channels, 1);
      for (std::int64_t b = 0; b < tap_blocks_; ++b) {
        const std::int64_t first = taps_ * b / tap_blocks_, last = taps_ * (b + 1) / tap_blocks_;
        for (std::int64_t q = 0, i = 0; i < static_cast<std::int64_t>(segments.size()); ++i, q += tile)
          list_segments(segments[static_cast<std::size_t>(i)], slots, channels, c0, first, last,
                        trimmed ? bounds_of(q, tile, j0, count) : Bounds{});
        for (std::int64_t i = 0; i < panel_count; ++i)
          for (std::int64_t n = 0; n < of.count; ++n)
            for (std::int64_t q = 0; q < positions; q += tile) {
              const std::int64_t rows = std::min(tile, positions - q);
              const std::vector<Segment>& runs = segments[static_cast<std::size_t>(trimmed ? q / tile : 0)];
              const bool accumulate = c0 > 0 || b > 0;
              if (accumulate && runs.empty()) continue;
              const T* a[kMaxTileRows];
              for (std::int64_t m = 0; m < rows; ++m) a[m] = input + n * image + slot_of[q + m] * channels;
              T* const c = result + (n * positions + q) * ldc + i * cols_;
              const GemmArgs<T> args{
                  a,   packed + i * panel_size,  runs.data(), static_cast<std::int64_t>(runs.size()), c,
                  ldc, accumulate ? c : nullptr, ldc};
              kernel_.gemm[rows - 1](&args);
            }
      }
    }
    for (std::int64_t n = 0; n < of.count; ++n)
      store_block<S>(p_, phase_, transpose_, of.first + n, group * p_.y_channels + panel * cols_,
                     std::min(ldc, p_.y_channels - panel * cols_), j0, count, result + n * positions * ldc, ldc,
                     count[2]);
  }

  bool all_taps_live(const std::int64_t (&j0)[kSpatial], const std::int64_t (&count)[kSpatial]) const {
    for (int axis = 0; axis < kSpatial; ++axis)
      for (const Tap& tap : phase_[axis]->taps) {
        const Range live = live_outputs(*phase_[axis], tap, j0[axis], count[axis], p_.x.extent(axis));
        if (live.begin != 0 || live.end != count[axis]) return false;
      }
    return true;
  }

  // The first and the last output of a tile, along each dimension.
  struct Bounds {
    std::int64_t first[kSpatial] = {}, last[kSpatial] = {};
    bool known = false;
  };

  Bounds bounds_of(std::int64_t q, std::int64_t tile, const std::int64_t (&j0)[kSpatial],
                   const std::int64_t (&count)[kSpatial]) const {
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
  void list_segments(std::vector<Segment>& segments, const AxisSlots (&slots)[kSpatial], std::int64_t channels,
                     std::int64_t c0, std::int64_t first, std::int64_t last, const Bounds& bounds) const {
    segments.clear();
    std::int64_t index = 0;
    const auto live = [&](int axis, std::size_t t) {
      if (!bounds.known) return true;
      const std::int64_t step = phase_[axis]->in_step, offset = phase_[axis]->taps[t].offset;
      return bounds.last[axis] * step + offset >= 0 && bounds.first[axis] * step + offset < p_.x.extent(axis);
    };
    for (std::size_t d = 0; d < phase_[0]->taps.size(); ++d)
      for (std::size_t h = 0; h < phase_[1]->taps.size(); ++h)
        for (std::size_t w = 0; w < phase_[2]->taps.size(); ++w, ++index) {
          if (index < first || index >= last || !live(0, d) || !live(1, h) || !live(2, w)) continue;
          const std::int64_t slot =
              (slots[0].base[d] * slots[1].slots + slots[1].base[h]) * slots[2].slots + slots[2].base[w];
          const Segment next{slot * channels, c0 * taps_ + index * channels, channels};
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
  std::int64_t taps_ = 0, tap_blocks_ = 1, cols_ = 0, panels_ = 0, channel_block_ = 0;
  std::int64_t block_[kSpatial] = {1, 1, 1}, blocks_[kSpatial] = {1, 1, 1};
  std::int64_t samples_ = 1;  // that an item takes together
  bool finite_ = true;
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
