// A gather the other way round: each input is multiplied by all weights that it meets, as a product of matrices, and
// what comes out, its contributions, is added to the outputs that they belong to. A gather multiplies by padding where
// windows lie far over the edge of what they read, as in the input gradients of large kernels on small maps, and leaves
// lanes idle where many channels become few.
#include <algorithm>
#include <vector>

#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_lanes.h"
#include "ops/conv_matrices.h"
#include "ops/conv_tiles.h"

namespace fastconv {
namespace {

constexpr std::int64_t kRows = 1024;           // inputs at a time, but those of a sample at least
constexpr std::int64_t kElements = 512 << 10;  // contributions at a time, about
constexpr std::int64_t kChannels = 16;         // of the outputs: what is computed at a time is a multiple, or all
constexpr std::int64_t kTogether = 32;         // channels that are added together
constexpr std::int64_t kPart = 4;              // the part of a call's memory that any of its arrays may take
constexpr std::int64_t kPlaces = 128 << 10;    // that are listed along a dimension, at most
constexpr std::int64_t kLeastInputs = 8;       // channels
constexpr std::int64_t kOrigin[kSpatial] = {};

// Where the product of one input with a tap belongs along a dimension, if it is an output's.
struct Place {
  std::int64_t tap, output;
};

template <class T>
class Scatter {
 public:
  explicit Scatter(const GatherProblem<T>& problem)
      : p_(problem),
        y_(problem.result()),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        in_place_(y_.stride[1] == 1) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      kernel_[axis] = p_.kernel_extent(axis);
      taps_ *= kernel_[axis];
      x_size_[axis] = p_.x.extent(axis);
      y_size_[axis] = y_.extent(axis);
      rows_ *= x_size_[axis];
      positions_ *= y_size_[axis];
    }
    const std::int64_t most = kMostElements<T> / kPart;
    if (taps_ == 0 || taps_ > most || rows_ > most) return;
    for (int axis = 0; axis < kSpatial; ++axis)
      if (kernel_[axis] > kPlaces / x_size_[axis]) return;
    // By the shape of a sample alone: a batch has the bits of its samples.
    const std::int64_t outputs = p_.y_channels, least = std::min(outputs, kChannels);
    serves_ = rows_ * taps_ <= most / least && p_.x_channels <= std::min(most / rows_, most / (taps_ * least)) &&
              (in_place_ || positions_ <= most / kTogether);
    if (!serves_) return;
    samples_ = std::clamp<std::int64_t>(
        std::min({kRows / rows_, most / (rows_ * taps_ * least), most / (rows_ * p_.x_channels)}), 1, p_.x.shape[0]);
    const std::int64_t sums = samples_ * rows_ * taps_, wanted = rounded_up(kElements / sums + 1, kChannels);
    channels_ = std::min({wanted, most / sums, most / (p_.x_channels * taps_)});
    channels_ = channels_ < outputs ? channels_ / kChannels * kChannels : outputs;
    turns_sums_ =
        p_.weight_y == taps_ && taps_in_a_row(kernel_, p_.weight_tap, 1) && p_.x.shape[0] * rows_ <= p_.x_channels;
  }

  bool serves() const { return serves_; }

  void run() {
    for (int axis = 0; axis < kSpatial; ++axis) list_places(axis);
    const std::int64_t rows = samples_ * rows_, inputs = p_.x_channels, samples = p_.x.shape[0];
    Workspace<T> sums(rows * channels_ * taps_), x(rows * inputs);
    Workspace<T> weights(turns_sums_ ? 0 : inputs * channels_ * taps_);
    ConvShape point;
    point.rows_are_samples = true;  // on vectors: how many rows and columns there are depends on the batch
    for (std::int64_t c = 0; c < p_.y_channels; c += channels_) {
      const std::int64_t channels = std::min(channels_, p_.y_channels - c), columns = channels * taps_;
      if (!turns_sums_) lay_out_weights(c, channels, weights);
      // Weights where they are: read, never written.
      const ArrayView of_channels =
          turns_sums_ ? matrix_view(const_cast<T*>(p_.weight) + c * taps_, columns, inputs, 1, p_.weight_x)
                      : matrix_view(weights.data(), columns, inputs, 1, columns);
      for (std::int64_t n = 0; n < samples; n += samples_) {
        const std::int64_t count = std::min(samples_, samples - n);
        if (c == 0 || count < samples) lay_out_inputs(n, count, x);
        conv_forward(point, matrix_view(x.data(), count * rows_, inputs, inputs, 1), of_channels, {},
                     matrix_view(sums.data(), count * rows_, columns, columns, 1), {});
        add(n, count, c, channels, sums);
      }
    }
  }

 private:
  // Of input i, a tap of a phase is for its output i - offset.
  void list_places(int axis) {
    places_[axis].resize(static_cast<std::size_t>(x_size_[axis]));
    for (const AxisPhase& phase : p_.phases[axis])
      for (const Tap& tap : phase.taps) {
        const std::int64_t end = std::min(x_size_[axis], phase.out_count + tap.offset);
        for (std::int64_t i = std::max<std::int64_t>(0, tap.offset); i < end; ++i)
          places_[axis][static_cast<std::size_t>(i)].push_back(
              {tap.index, phase.out_start + (i - tap.offset) * phase.out_step});
      }
  }

  // A row for each channel of x: the channels of y of one tap side by side.
  void lay_out_weights(std::int64_t c0, std::int64_t channels, T* packed) const {
    const View<const T> weights{p_.weight,
                                {p_.x_channels, p_.y_channels, kernel_[0], kernel_[1], kernel_[2]},
                                {p_.weight_x, p_.weight_y, p_.weight_tap[0], p_.weight_tap[1], p_.weight_tap[2]}};
    const Work work{p_.x_channels, static_cast<double>(p_.x_channels * channels * taps_)};
    parallel_for(work, Subnormals::keep, [&](std::int64_t k) {
      pack_lanes<T>(transpose_, weights, k, c0, channels, channels, kOrigin, kernel_, packed + k * channels * taps_);
    });
  }

  void lay_out_inputs(std::int64_t first, std::int64_t count, T* x) const {
    const std::int64_t inputs = p_.x_channels;
    const Work work{count, static_cast<double>(count * rows_ * inputs)};
    parallel_for(work, Subnormals::keep, [&](std::int64_t n) {
      pack_lanes<T>(transpose_, p_.x, first + n, 0, inputs, inputs, kOrigin, x_size_, x + n * rows_ * inputs);
    });
  }

  void add(std::int64_t first, std::int64_t count, std::int64_t c0, std::int64_t channels, const T* sums) const {
    const std::int64_t blocks = ceil_div(channels, kTogether);
    const Work work{count * blocks, 0.2 * static_cast<double>(count * rows_ * channels * taps_)};
    parallel_for(work, subnormals_of(DtypeOf<T>::value), [&](std::int64_t item) {
      const std::int64_t n = item / blocks, c = item % blocks * kTogether;
      add_sample(first + n, c0 + c, std::min(kTogether, channels - c),
                 sums + n * rows_ * channels * taps_ + c * (turns_sums_ ? taps_ : 1), channels);
    });
  }

  // The contributions of a sample, one input after the other; `all` channels of them lie side by side.
  void add_sample(std::int64_t n, std::int64_t c0, std::int64_t channels, const T* sums, std::int64_t all) const {
    Workspace<T> scratch(in_place_ ? 0 : positions_ * channels), turned(turns_sums_ ? channels * taps_ : 0);
    const Lanes<T> y = in_place_ ? Lanes<T>::of(y_, n, c0) : Lanes<T>::in(scratch, channels, kOrigin, y_size_);
    for (std::int64_t d = 0; d < y_size_[0]; ++d)
      for (std::int64_t h = 0; h < y_size_[1]; ++h)
        for (std::int64_t w = 0; w < y_size_[2]; ++w) std::fill_n(y.at(d, h, w), channels, T(0));
    for (const std::vector<Place>& d : places_[0])
      for (const std::vector<Place>& h : places_[1])
        for (const std::vector<Place>& w : places_[2]) {
          if (turns_sums_) transpose_.run(channels, taps_, sums, taps_, turned.data(), channels, nullptr);
          add_input(y, d, h, w, channels, turns_sums_ ? turned.data() : sums, turns_sums_ ? channels : all);
          sums += all * taps_;
        }
    // A bias is added to whole sums: each addition to a large one would round as roughly as it does.
    const bool finishes = p_.bias || p_.finish.changes();
    for (std::int64_t d = 0; finishes && d < y_size_[0]; ++d)
      for (std::int64_t h = 0; h < y_size_[1]; ++h)
        p_.finish.rows(y.at(d, h, 0), y.step[2], y_size_[2], c0, channels, p_.bias);
    if (!in_place_) unpack_lanes<T>(transpose_, y_, n, c0, channels, y, kOrigin, y_size_);
  }

  void add_input(const Lanes<T>& y, const std::vector<Place>& depth, const std::vector<Place>& height,
                 const std::vector<Place>& width, std::int64_t channels, const T* sums, std::int64_t all) const {
    for (const Place& d : depth)
      for (const Place& h : height)
        for (const Place& w : width) {
          const T* const from = sums + ((d.tap * kernel_[1] + h.tap) * kernel_[2] + w.tap) * all;
          T* const to = y.at(d.output, h.output, w.output);
          for (std::int64_t c = 0; c < channels; ++c) to[c] += from[c];
        }
  }

  const GatherProblem<T>& p_;
  const View<T> y_;
  const TransposeKernel& transpose_;
  const bool in_place_;
  std::int64_t kernel_[kSpatial], x_size_[kSpatial], y_size_[kSpatial], taps_ = 1;
  std::int64_t rows_ = 1, positions_ = 1;    // of a sample: inputs and outputs
  std::int64_t samples_ = 1, channels_ = 1;  // at a time
  std::vector<std::vector<Place>> places_[kSpatial];
  bool turns_sums_ = false;  // which have the weights' order, rather than the weights
  bool serves_ = false;
};

// Costs of a sample in multiply-adds, fitted to 1,120 random problems of up to 57 positions a side; see bench/LOG.md.
// Of a gather's taps, tiles leave out rows that lie in the padding, and hardly ever columns; short phases leave tiles
// partly empty, and rows of few channels only if they are shorter than a register. A contribution is written, read and
// added, twice as dearly where it does not stay in the cache.
template <class T>
bool pays(const GatherProblem<T>& problem, const TileKernel* tiles) {
  constexpr std::int64_t kWinogradChannels = 32, kRow = 16;
  constexpr double kWinograd = 1.5, kShortPhase = 7, kOutput = 16, kAdded = 25, kManyRows = 640;
  constexpr double kTileRate = 16;  // products of bfloat16 parts for one of float32
  const auto inputs = static_cast<double>(problem.x_channels), outputs = static_cast<double>(problem.y_channels);
  double gathered = inputs * outputs, rows = 1, taps = 1, positions = 1;
  bool winograd = std::min(problem.x_channels, problem.y_channels) >= kWinogradChannels;
  for (int axis = 0; axis < kSpatial; ++axis) {
    std::int64_t products = 0;
    std::size_t fewest = problem.phases[axis].front().taps.size();
    for (const AxisPhase& phase : problem.phases[axis]) {
      products += axis < 2 ? live_products(phase, problem.x.extent(axis))
                           : phase.out_count * static_cast<std::int64_t>(phase.taps.size());
      fewest = std::min(fewest, phase.taps.size());
    }
    gathered *= static_cast<double>(products);
    rows *= static_cast<double>(problem.x.extent(axis));
    taps *= static_cast<double>(problem.kernel_extent(axis));
    positions *= static_cast<double>(problem.y_shape.extent(axis));
    // Its planes are height by width, or a line.
    winograd = winograd && (axis == 0 || fewest > 1 || (axis == 1 && problem.y_shape.extent(1) == 1));
  }
  const double added = rows > kManyRows ? 2 * kAdded : kAdded;
  const double scattered = rows * taps * outputs * (inputs + added) - kOutput * positions * outputs;
  if (tiles) return scattered < gathered * static_cast<double>(tiles->products) / kTileRate;
  const std::int64_t width = problem.phases[2].front().out_count;
  const bool along_rows = problem.y_channels <= kMostWindowRows && width >= kRow;
  const double otherwise = along_rows ? gathered : gathered * (1 + kShortPhase / static_cast<double>(width));
  if (scattered >= otherwise) return false;
  // Of several phases some may be Winograd's, whose gain is known of one only: an average.
  if (!problem.has_one_phase()) return !winograd || scattered < otherwise / kWinograd;
  const WinogradChoice choice = choose_winograd(problem, false);
  return !choice.kernel || scattered < gathered / choice.gain;
}

// Zero padding, and neighbouring outputs that read neighbouring inputs: no forward pass with a stride. Neither products
// of matrices already, nor one phase between outputs without taps, which drivers of blocks fill on their way.
template <class T>
bool can_be_scattered(const GatherProblem<T>& problem) {
  if (problem.groups != 1 || problem.rows_are_samples || problem.fills_around || problem.x.size() == 0 ||
      problem.x_channels < kLeastInputs || problem.is_point() || !forced_kernel().empty())
    return false;
  for (const std::vector<AxisPhase>& phases : problem.phases)
    for (const AxisPhase& phase : phases)
      if (phase.mode != PadMode::zeros || phase.in_step != 1) return false;
  return true;
}

}  // namespace

template <class S>
bool gather_by_scatter(const GatherProblem<S>& problem, const TileKernel* tiles) {
  if constexpr (is_wide<S>) {
    if (!can_be_scattered(problem) || !pays(problem, tiles)) return false;
    Scatter<S> driver(problem);
    if (driver.serves()) driver.run();
    return driver.serves();
  }
  return false;
}

template bool gather_by_scatter<float>(const GatherProblem<float>&, const TileKernel*);
template bool gather_by_scatter<double>(const GatherProblem<double>&, const TileKernel*);
template bool gather_by_scatter<Float16>(const GatherProblem<Float16>&, const TileKernel*);
template bool gather_by_scatter<BFloat16>(const GatherProblem<BFloat16>&, const TileKernel*);

}  // namespace fastconv
