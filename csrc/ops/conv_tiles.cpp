// Forward and input gradient on tile registers: blocks of outputs of one sample; a block of 32 channels of their inputs
// is packed, split into parts and multiplied with all taps before the next one. Samples whose values the parts do not
// hold are computed again by the other kernels, on the evidence of the sample and the weights alone.
#include "ops/conv_tiles.h"

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_store.h"

namespace fastconv {

namespace {

constexpr std::int64_t kPanelsTogether = 8;
constexpr std::int64_t kTapsTogether = 16;

}  // namespace

TileSlots tile_slots(const AxisPhase* const (&phase)[kSpatial], const std::int64_t (&count)[kSpatial], bool by_tap) {
  TileSlots result;
  result.depth = axis_slots(*phase[0], count[0], true);
  result.height = axis_slots(*phase[1], count[1], true);
  const AxisSlots row = by_tap ? slots_by_tap(*phase[2], count[2]) : axis_slots(*phase[2], count[2], true);
  for (const AxisSlots::Run& run : row.runs) result.pitch = std::max(result.pitch, run.count);
  for (const AxisSlots::Run& run : row.runs) {
    AxisSlots plane;
    plane.slots = result.pitch;
    plane.runs.push_back({0, run.start, run.in_step, run.count});
    result.planes.push_back(std::move(plane));
  }
  result.plane = result.depth.slots * result.height.slots * result.pitch;
  result.slots = result.plane * static_cast<std::int64_t>(result.planes.size());
  // The run of a tap along the width, and its place there.
  std::vector<std::int64_t> place;
  for (const std::int64_t base : row.base) {
    std::size_t i = 0;
    while (base >= row.runs[i].slot + row.runs[i].count) ++i;
    place.push_back(static_cast<std::int64_t>(i) * result.plane + base - row.runs[i].slot);
  }
  for (const std::int64_t d : result.depth.base)
    for (const std::int64_t h : result.height.base)
      for (const std::int64_t w : place) result.base.push_back((d * result.height.slots + h) * result.pitch + w);
  return result;
}

TilePlan plan_tiles(const AxisPhase* const (&phase)[kSpatial], const TileCosts& costs) {
  TilePlan best;
  for (const bool by_tap : {false, true}) {
    TilePlan plan;
    plan.by_tap = by_tap;
    plan.block[2] = balanced(phase[2]->out_count, kTilePositions);
    const std::int64_t pitch = tile_slots(phase, plan.block, by_tap).pitch;
    plan.block[1] =
        balanced(phase[1]->out_count, std::max<std::int64_t>(1, (kTilePositions - plan.block[2]) / pitch + 1));
    const TileSlots slots = tile_slots(phase, plan.block, by_tap);
    for (int axis = 0; axis < kSpatial; ++axis) plan.blocks[axis] = ceil_div(phase[axis]->out_count, plan.block[axis]);
    const auto tiles = static_cast<double>(ceil_div(slots.positions(plan.block), kRowTile));
    plan.slots = slots.slots;
    plan.cycles = static_cast<double>(plan.blocks_of_sample()) *
                  (tiles * costs.tile + static_cast<double>(slots.slots) * costs.slot);
    if (!by_tap || plan.cycles < best.cycles) best = plan;
  }
  return best;
}

bool parts_serve(std::uint32_t largest_x, std::uint32_t largest_w, std::int64_t length) {
  constexpr int kLowest = -90, kHighest = 125;
  if (largest_x == 0 || largest_w == 0) return largest_x < 0x7f800000U && largest_w < 0x7f800000U;
  const int x = static_cast<int>(largest_x >> 23) - 127, w = static_cast<int>(largest_w >> 23) - 127;
  int growth = 2;  // each factor is below 2 to the power of its exponent plus one
  while (growth < 64 && (length >> (growth - 2)) > 0) ++growth;
  return std::min({x, w, x + w}) >= kLowest && std::max({x, w, x + w + growth}) <= kHighest;
}

namespace {

// What all phases of a call have seen: the magnitudes that decide which samples to compute again.
struct Seen {
  std::vector<std::uint32_t> of_sample;
  std::uint32_t of_weight = 0;
};

// A value that is packed and split takes about a cycle.
template <class S>
TileCosts tile_costs(const GatherProblem<S>& p, std::int64_t taps, int products) {
  const auto blocks = static_cast<double>(ceil_div(p.x_channels, kPartRun));
  const auto columns = static_cast<double>(ceil_div(p.y_channels, kPanelTile));
  const auto spans = static_cast<double>(ceil_div(p.y_channels, kPanelCols * kPanelsTogether));
  return {static_cast<double>(taps * products) * blocks * columns * kTileCycles, 0.9 * kPartRun * blocks * spans};
}

template <class S>
class TileDriver {
 public:
  TileDriver(const GatherProblem<S>& problem, const AxisPhase* const (&phase)[kSpatial], const TileKernel& kernel,
             Seen& seen)
      : p_(problem),
        phase_{phase[0], phase[1], phase[2]},
        kernel_(kernel),
        transpose_(select_transpose(Dtype::f32, active_isa_mask())),
        weight_of_tap_(weight_offsets(*phase[0], *phase[1], *phase[2], problem.weight_tap)),
        taps_(static_cast<std::int64_t>(weight_of_tap_.size())),
        panels_(ceil_div(problem.y_channels, kPanelCols)),
        channel_blocks_(ceil_div(problem.x_channels, kPartRun)),
        panel_size_(channel_blocks_ * taps_ * kernel.parts * kPanelStep),
        seen_(seen) {
    plan_ = plan_tiles(phase_, tile_costs(problem, taps_, work_of<S>(kernel).products));
  }

  void run() {
    const std::int64_t total = p_.groups * panels_;
    const std::int64_t at_once = std::clamp<std::int64_t>(kMostElements<std::uint16_t> / panel_size_, 1, total);
    Workspace<std::uint16_t> packed(at_once * panel_size_);
    for (std::int64_t first = 0; first < total; first += at_once) {
      const std::int64_t count = std::min(at_once, total - first);
      std::vector<std::uint32_t> largest(static_cast<std::size_t>(count));
      parallel_for({count, 0.5 * static_cast<double>(count * panel_size_)}, Subnormals::flush, [&](std::int64_t i) {
        largest[static_cast<std::size_t>(i)] = pack_panel(first + i, packed + i * panel_size_);
      });
      seen_.of_weight = std::max(seen_.of_weight, *std::max_element(largest.begin(), largest.end()));
      compute(first, count, packed);
    }
  }

 private:
  // [channel block][tap][part][kPanelStep], with zeros past the last channel and the last column.
  std::uint32_t pack_panel(std::int64_t index, std::uint16_t* dst) const {
    const std::int64_t group = index / panels_, y0 = index % panels_ * kPanelCols;
    const std::int64_t live = std::min(kPanelCols, p_.y_channels - y0);
    const S* const base = p_.weight + group * p_.weight_group + y0 * p_.weight_y;
    Workspace<float> block(std::min(taps_, kTapsTogether) * kPanelStep);
    std::uint32_t largest = 0;
    for (std::int64_t c0 = 0; c0 < p_.x_channels; c0 += kPartRun)
      for (std::int64_t t0 = 0; t0 < taps_; t0 += kTapsTogether) {
        const std::int64_t channels = std::min(kPartRun, p_.x_channels - c0),
                           taps = std::min(kTapsTogether, taps_ - t0);
        if (channels < kPartRun || live < kPanelCols) std::fill_n(block.data(), taps * kPanelStep, 0.0F);
        for (std::int64_t n = 0; n < live; ++n)
          for (std::int64_t c = 0; c < channels; ++c) {
            const S* const from = base + n * p_.weight_y + (c0 + c) * p_.weight_x;
            float* const to = block + panel_place(c, n);
            for (std::int64_t t = 0; t < taps; ++t)
              to[t * kPanelStep] = widen(from[weight_of_tap_[static_cast<std::size_t>(t0 + t)]]);
          }
        for (std::int64_t t = 0; t < taps; ++t) {
          std::uint16_t* const to = dst + (c0 / kPartRun * taps_ + t0 + t) * kernel_.parts * kPanelStep;
          largest = std::max(largest, kernel_.split(block + t * kPanelStep, kPanelStep, to, kPanelStep));
        }
      }
    return largest;
  }

  void compute(std::int64_t first_panel, std::int64_t panel_count, const std::uint16_t* packed) {
    const std::int64_t samples = p_.x.shape[0], blocks = samples * plan_.blocks_of_sample();
    // Panels of one group that one item computes; more items where blocks alone would leave threads idle.
    std::int64_t span = kPanelsTogether;
    const std::int64_t threads = get_num_threads();
    while (span > 1 && blocks * ceil_div(panel_count, span) < 4 * threads) span = ceil_div(span, 2);
    const std::vector<PanelJob> jobs = panel_jobs(first_panel, panel_count, panels_, span);
    const std::int64_t job_count = static_cast<std::int64_t>(jobs.size());
    std::vector<std::uint32_t> largest(static_cast<std::size_t>(blocks * job_count));
    const double nanoseconds =
        plan_.cycles / 2.5 * static_cast<double>(samples * panel_count) / static_cast<double>(panels_);
    parallel_for({blocks * job_count, nanoseconds}, Subnormals::flush, [&](std::int64_t item) {
      const PanelJob& job = jobs[static_cast<std::size_t>(item % job_count)];
      largest[static_cast<std::size_t>(item)] = run_block(item / job_count, job, packed + job.slot * panel_size_);
    });
    const std::int64_t items = plan_.blocks_of_sample() * job_count;
    for (std::int64_t item = 0; item < blocks * job_count; ++item) {
      std::uint32_t& of_sample = seen_.of_sample[static_cast<std::size_t>(item / items)];
      of_sample = std::max(of_sample, largest[static_cast<std::size_t>(item)]);
    }
  }

  std::uint32_t run_block(std::int64_t index, const PanelJob& job, const std::uint16_t* packed) const {
    const std::int64_t y0 = job.panel * kPanelCols, n = index / plan_.blocks_of_sample();
    const std::int64_t outputs = std::min(job.count * kPanelCols, p_.y_channels - y0);
    std::int64_t start[kSpatial], count[kSpatial];
    plan_.locate(index % plan_.blocks_of_sample(), phase_, start, count);
    const TileSlots slots = tile_slots(phase_, count, plan_.by_tap);
    const std::int64_t row_tiles = ceil_div(slots.positions(count), kRowTile), ldc = job.count * kPanelCols;
    const std::int64_t part = (slots.slots + kTileSlack) * kPartRun;
    Workspace<float> input(slots.slots * kPartRun);
    Workspace<std::uint16_t> parts(kernel_.parts * part);
    Workspace<float> result(row_tiles * kRowTile * ldc);
    for (std::int64_t i = 1; i <= kernel_.parts; ++i)
      std::fill_n(parts + i * part - kTileSlack * kPartRun, kTileSlack * kPartRun, std::uint16_t{0});
    std::vector<std::int64_t> offsets(slots.base);
    for (std::int64_t& offset : offsets) offset *= kPartRun;
    const bool gaps = slots.has_gaps();
    std::uint32_t largest = 0;
    for (std::int64_t c0 = 0; c0 < p_.x_channels; c0 += kPartRun) {
      const std::int64_t channels = std::min(kPartRun, p_.x_channels - c0);
      if (gaps || channels < kPartRun) std::fill_n(input.data(), slots.slots * kPartRun, 0.0F);
      slots.pack<S>(p_.x, phase_, transpose_, n, job.group * p_.x_channels + c0, channels, start, input, kPartRun, 1);
      largest = std::max(largest, kernel_.split(input, slots.slots * kPartRun, parts, part));
      const TileArgs args{parts,
                          part,
                          kPartRun,
                          offsets.data(),
                          taps_,
                          packed + c0 / kPartRun * taps_ * kernel_.parts * kPanelStep,
                          panel_size_,
                          result,
                          ldc,
                          row_tiles,
                          ceil_div(outputs, kPanelTile),
                          c0 > 0};
      kernel_.gemm(&args);
    }
    store_block<S>(p_, phase_, transpose_, n, job.group * p_.y_channels + y0, outputs, start, count, result, ldc,
                   slots.pitch);
    return largest;
  }

  const GatherProblem<S>& p_;
  const AxisPhase* phase_[kSpatial];
  const TileKernel& kernel_;
  const TransposeKernel& transpose_;
  std::vector<std::int64_t> weight_of_tap_;
  std::int64_t taps_, panels_, channel_blocks_, panel_size_;
  TilePlan plan_;
  Seen& seen_;
};

std::int64_t products_of_one_sum(const std::vector<AxisPhase> (&phases)[kSpatial], std::int64_t channels) {
  for (const std::vector<AxisPhase>& axis : phases) {
    std::size_t most = 0;
    for (const AxisPhase& phase : axis) most = std::max(most, phase.taps.size());
    channels *= static_cast<std::int64_t>(most);
  }
  return channels;
}

}  // namespace

template <class S>
const TileKernel* choose_tiles(const GatherProblem<S>& problem) {
  if constexpr (std::is_same_v<Compute<S>, float>) {
    bool forced = false;
    const TileKernel* kernel = find_tiles(DtypeOf<S>::value, problem.precision, active_isa_mask(), forced);
    if (!kernel || problem.x_channels == 0) return nullptr;
    if (!forced && problem.rows_are_samples) return nullptr;
    const TileWork work = work_of<S>(*kernel);
    // Few channels leave most of a tile's depth idle: before any plan, its products alone against multiply-adds.
    const auto depth = static_cast<double>(problem.x_channels);
    const auto steps = static_cast<double>(work.products * ceil_div(problem.x_channels, kPartRun));
    const bool idle = steps * kTileCycles > kLeastGain * depth * kRowTile * kPanelTile / kOtherRate;
    if (!forced && idle) return nullptr;
    const AxisPhase* phase[kSpatial];
    std::int64_t taps = 1, outputs = 1;
    for (int axis = 0; axis < kSpatial; ++axis) {
      phase[axis] = &problem.phases[axis][0];
      taps *= static_cast<std::int64_t>(phase[axis]->taps.size());
      outputs *= phase[axis]->out_count;
    }
    if (taps == 0) return forced ? kernel : nullptr;
    const std::int64_t panel =
        ceil_div(problem.x_channels, kPartRun) * products_of_one_sum(problem.phases, 1) * work.parts * kPanelStep;
    const TilePlan plan = plan_tiles(phase, tile_costs(problem, taps, work.products));
    if (panel > kMostElements<std::uint16_t> || !slots_fit(plan, kPartRun, work.parts)) return nullptr;
    if (forced) return kernel;
    // Weights count as if there were four samples; it takes more to pack them for tiles, and less to pack inputs for
    // others.
    // Few outputs are computed along rows, without idle lanes.
    const bool few = problem.y_channels <= kMostWindowRows;
    const auto columns = static_cast<double>(few ? problem.y_channels : rounded_up(problem.y_channels, kPanelTile));
    const double sum = depth * static_cast<double>(taps), positions = static_cast<double>(outputs);
    const double others = positions * (sum * columns / kOtherRate + 0.3 * depth) + 0.5 / 4 * sum * columns;
    const double tiles = plan.cycles + 2.0 / 4 * sum * columns;
    if (tiles >= kLeastGain * others) return nullptr;
    const WinogradChoice winograd = choose_winograd(problem, true);
    return winograd.kernel && winograd.cycles < tiles ? nullptr : kernel;
  }
  return nullptr;
}

template <class S>
void gather_tiles(const GatherProblem<S>& problem, const TileKernel& kernel,
                  void (*otherwise)(const GatherProblem<S>&)) {
  if constexpr (std::is_same_v<Compute<S>, float>) {
    count_kernel(kernel);
    const std::int64_t samples = problem.x.shape[0];
    Seen seen;
    seen.of_sample.resize(static_cast<std::size_t>(samples));
    for_each_phase(problem, Fill::around, [&](const AxisPhase* const(&phase)[kSpatial]) {
      TileDriver<S>(problem, phase, kernel, seen).run();
    });
    const std::int64_t length = products_of_one_sum(problem.phases, problem.x_channels);
    const auto again = [&](std::int64_t n) {
      return !parts_serve(seen.of_sample[static_cast<std::size_t>(n)], seen.of_weight, length);
    };
    for_sample_runs(problem, again, otherwise);
  }
}

#define FASTCONV_TILES_FOR(S)                                       \
  template const TileKernel* choose_tiles(const GatherProblem<S>&); \
  template void gather_tiles(const GatherProblem<S>&, const TileKernel&, void (*)(const GatherProblem<S>&));
FASTCONV_TILES_FOR(float)
FASTCONV_TILES_FOR(double)
FASTCONV_TILES_FOR(Float16)
FASTCONV_TILES_FOR(BFloat16)

}  // namespace fastconv
