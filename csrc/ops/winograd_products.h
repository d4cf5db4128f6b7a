// The matrix products of Winograd's algorithm (conv_winograd.cpp), one a point, in two ways: by the gather_gemm
// kernels, and on tile registers with each number in parts. Each way knows how its weights and a block's transformed
// inputs lie.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/conv/kernels.h"
#include "cpu/conv/tile_kernels.h"
#include "cpu/workspace.h"
#include "ops/conv_tiles.h"
#include "ops/winograd_plan.h"

namespace fastconv {

constexpr std::int64_t kWinogradPad = 16;  // elements that keep rows and points off powers of two

// The sums of one group: `taps` along the depth, each with all runs.
struct WinogradSums {
  std::int64_t points, taps, channels, outputs;
  std::vector<WinogradRun> runs;

  std::int64_t run_count() const { return static_cast<std::int64_t>(runs.size()); }
};

// The rows of a block's matrices, a tile each: some images (samples, or lattices of them), planes of `area` tiles. Tap
// t of an output's plane d is in the input's plane d * step + base[t].
struct WinogradRows {
  std::int64_t first_image, images, area, input_planes, output_planes, step;
  const std::vector<std::int64_t>& base;

  std::int64_t inputs() const { return images * input_planes * area; }
  std::int64_t outputs() const { return images * output_planes * area; }
  // The first input row of the tiles of an output's plane.
  std::int64_t input_row(std::int64_t image, std::int64_t plane) const {
    return (image * input_planes + plane * step) * area;
  }
};

template <class T>
class VectorProducts {
 public:
  using Weight = T;
  static constexpr std::int64_t kChannelRun = 16;  // transformed inputs come in whole cache lines
  // What a block is cut to: tiles, and bytes of transformed inputs that stay in the second-level cache; rows are
  // computed so many at a time, and reading the weights takes as long as so many more.
  static constexpr std::int64_t kFewTiles = 30, kManyTiles = 48, kInputBytes = std::int64_t{384} << 10, kRows = 6;
  static constexpr double kWeightRows = 3;

  VectorProducts(const WinogradKernel& kernel, const WinogradSums& sums, std::int64_t /*images*/)
      : winograd_(kernel),
        gemm_(find_conv(DtypeOf<T>::value, winograd_columns<T>(kernel, sums.outputs), active_isa_mask())),
        sums_(sums),
        run_(rounded_up(sums.channels, kChannelRun)),
        row_(sums.run_count() * run_ + kWinogradPad) {
    list_parts();
  }

  void count() const { count_kernel(gemm_); }
  std::int64_t cols() const { return gemm_.tile_cols; }
  // Elements from the weights of a point to those of the next, [tap][run][channel][column].
  std::int64_t weight_step() const { return sums_.taps * sums_.run_count() * sums_.channels * cols() + kWinogradPad; }
  // Of a tile's transformed inputs, at one point.
  std::int64_t row_bytes() const { return row_ * static_cast<std::int64_t>(sizeof(T)); }
  // Rows for the results of that many.
  static std::int64_t whole_rows(std::int64_t rows) { return rows; }

  // The weights of some channels from c0 on, transformed to their place in a panel.
  void pack(WinogradWeightArgs<T> args, std::int64_t tap, std::int64_t run, std::int64_t c0, T* panel) const {
    args.u = panel + ((tap * sums_.run_count() + run) * sums_.channels + c0) * cols();
    args.point_step = weight_step();
    const WinogradRun& of = sums_.runs[static_cast<std::size_t>(run)];
    winograd_.weight[of.down][of.across - 1](&args);
  }

  // Whether an image's values are such that its products are exact enough.
  bool serves(std::int64_t) const { return true; }

  class Block {
   public:
    Block(VectorProducts& products, const WinogradRows& rows)
        : p_(products), point_(rows.inputs() * p_.row_ + kWinogradPad), v_(p_.sums_.points * point_) {
      for (std::int64_t s = 0; s < rows.images; ++s)
        for (std::int64_t d = 0; d < rows.output_planes; ++d)
          for (std::int64_t t = 0; t < rows.area; ++t) row_of_.push_back((rows.input_row(s, d) + t) * p_.row_);
      for (std::int64_t point = 0; point < p_.sums_.points; ++point)
        for (const std::vector<Part>& parts : p_.parts_[point]) {
          segments_[point].emplace_back();
          for (const Part& part : parts)
            segments_[point].back().push_back(
                {rows.base[static_cast<std::size_t>(part.tap)] * rows.area * p_.row_ + part.segment.a, part.segment.b,
                 part.segment.length});
        }
    }

    // Transforms some channels from c0 on of the input rows from `row` on, for a run of taps.
    void transform(WinogradInputArgs<T> args, std::int64_t row, std::int64_t run, std::int64_t c0) {
      args.v = v_ + row * p_.row_ + run * p_.run_ + c0;
      args.tile_step = p_.row_;
      args.point_step = point_;
      const WinogradRun& of = p_.sums_.runs[static_cast<std::size_t>(run)];
      p_.winograd_.input[of.down][of.across - 1](&args);
    }
    void finish_channels(std::int64_t) {}

    // One point's products of all rows with some panels, in calls of nearly equal numbers of rows; none where no run
    // has the point.
    void multiply(std::int64_t point, const T* panel, std::int64_t panel_step, std::int64_t panels, T* c,
                  std::int64_t ldc) {
      const auto rows = static_cast<std::int64_t>(row_of_.size());
      const T* const v = v_ + point * point_;
      for (std::int64_t j = 0; j < panels; ++j)
        for (std::size_t k = 0; k < segments_[point].size(); ++k)
          in_equal_parts(rows, p_.gemm_.tile_rows, [&](std::int64_t begin, std::int64_t end) {
            const std::int64_t count = end - begin;
            const T* a[kMaxTileRows];
            for (std::int64_t m = 0; m < count; ++m) a[m] = v + row_of_[static_cast<std::size_t>(begin + m)];
            T* const to = c + begin * ldc + j * p_.cols();
            const GemmArgs<T> args{a,
                                   panel + j * panel_step + point * p_.weight_step(),
                                   segments_[point][k].data(),
                                   static_cast<std::int64_t>(segments_[point][k].size()),
                                   to,
                                   ldc,
                                   k > 0 ? to : nullptr,
                                   ldc};
            p_.gemm_.gemm[count - 1](&args);
          });
    }

   private:
    VectorProducts& p_;
    std::int64_t point_;
    Workspace<T> v_;  // [point][row][channel]
    std::vector<std::int64_t> row_of_;
    std::vector<std::vector<Segment>> segments_[kWinogradPoints];
  };

 private:
  struct Part {
    std::int64_t tap;
    Segment segment;
  };

  // Each sum in stretches, which are added to each other: with shorter ones the error is smaller, with stretches of
  // half as many about a tenth of the time is lost.
  void list_parts() {
    constexpr std::int64_t kLongest = 64;
    const std::int64_t channels = sums_.channels, size = balanced(channels, kLongest), runs = sums_.run_count();
    for (std::int64_t point = 0; point < sums_.points; ++point) {
      std::vector<std::vector<Part>>& parts = parts_[point];
      std::int64_t length = 0;
      for (std::int64_t i = 0; i < sums_.taps * runs; ++i) {
        if (!sums_.runs[static_cast<std::size_t>(i % runs)].has(point)) continue;
        for (std::int64_t c = 0; c < channels; c += size) {
          const Segment next{i % runs * run_ + c, i * channels + c, std::min(size, channels - c)};
          if (parts.empty() || length + next.length > kLongest) {
            parts.emplace_back();
            length = 0;
          }
          parts.back().push_back({i / runs, next});
          length += next.length;
        }
      }
    }
  }

  const WinogradKernel& winograd_;
  const ConvKernel& gemm_;
  WinogradSums sums_;
  std::int64_t run_, row_;  // elements of a run's channels, and of all
  std::vector<std::vector<Part>> parts_[kWinogradPoints];
};

// Of one run of 3x3 taps: never a line, all 16 points.
class TileProducts {
 public:
  using Weight = std::uint16_t;
  static constexpr std::int64_t kChannelRun = kPartRun;
  static constexpr std::int64_t kFewTiles = 32, kManyTiles = 64, kInputBytes = std::int64_t{1} << 20, kRows = kRowTile;
  static constexpr double kWeightRows = 6;

  TileProducts(const WinogradKernel& kernel, const WinogradSums& sums, std::int64_t images)
      : winograd_(kernel),
        tiles_(*kernel.tiles),
        sums_(sums),
        blocks_(ceil_div(sums.channels, kPartRun)),
        largest_x_(static_cast<std::size_t>(images)) {}

  void count() const { count_kernel(tiles_); }
  static std::int64_t cols() { return kPanelCols; }
  // [tap][channel block][part][kPanelStep].
  std::int64_t weight_step() const { return sums_.taps * blocks_ * tiles_.parts * kPanelStep; }
  std::int64_t row_bytes() const { return blocks_ * kPartRun * tiles_.parts * 2; }
  static std::int64_t whole_rows(std::int64_t rows) { return rows + kRowTile - 1; }

  void pack(WinogradWeightArgs<float> args, std::int64_t tap, std::int64_t /*run*/, std::int64_t c0,
            std::uint16_t* panel) {
    Workspace<float> u(kWinogradPoints * kPanelStep);
    if (args.channels < kPartRun) std::fill_n(u.data(), kWinogradPoints * kPanelStep, 0.0F);
    args.u = u;
    args.point_step = kPanelStep;
    winograd_.weight[kWinogradTaps][kWinogradTaps - 1](&args);
    std::uint32_t largest = 0;
    std::uint16_t* to = panel + (tap * blocks_ + c0 / kPartRun) * tiles_.parts * kPanelStep;
    for (std::int64_t point = 0; point < kWinogradPoints; ++point, to += weight_step())
      largest = std::max(largest, tiles_.split_panel(u + point * kPanelStep, to));
    raise(largest_w_, largest);
  }

  // The products are summed to 16 and these added with signs: a result is a sum of as many times more.
  bool serves(std::int64_t image) const {
    return parts_serve(largest_x_[static_cast<std::size_t>(image)].load(std::memory_order_relaxed),
                       largest_w_.load(std::memory_order_relaxed), sums_.taps * sums_.channels * kWinogradPoints);
  }

  class Block {
   public:
    Block(TileProducts& products, const WinogradRows& rows)
        : p_(products),
          rows_(rows),
          point_(rows.inputs() * kPartRun),
          part_(p_.blocks_ * kWinogradPoints * point_ + kRowTile * kPartRun),
          transformed_(kWinogradPoints * point_),
          parts_(p_.tiles_.parts * part_) {
      // The last tile of rows may reach behind the last row.
      for (std::int64_t i = 1; i <= p_.tiles_.parts; ++i)
        std::fill_n(parts_ + i * part_ - kRowTile * kPartRun, kRowTile * kPartRun, std::uint16_t{0});
      for (const std::int64_t base : rows.base)
        for (std::int64_t block = 0; block < p_.blocks_; ++block)
          offsets_.push_back(base * rows.area * kPartRun + block * kWinogradPoints * point_);
    }

    void transform(WinogradInputArgs<float> args, std::int64_t row, std::int64_t /*run*/, std::int64_t /*c0*/) {
      args.v = transformed_ + row * kPartRun;
      args.tile_step = kPartRun;
      args.point_step = point_;
      p_.winograd_.input[kWinogradTaps][kWinogradTaps - 1](&args);
    }

    // Image by image, since a sample's own values decide how it is computed.
    void finish_channels(std::int64_t c0) {
      const std::int64_t size = rows_.input_planes * rows_.area * kPartRun;
      std::uint16_t* const to = parts_ + c0 / kPartRun * kWinogradPoints * point_;
      for (std::int64_t s = 0; s < rows_.images; ++s) {
        std::uint32_t largest = 0;
        for (std::int64_t at = s * size; at < kWinogradPoints * point_; at += point_)
          largest = std::max(largest, p_.tiles_.split(transformed_ + at, size, to + at, part_));
        raise(p_.largest_x_[static_cast<std::size_t>(rows_.first_image + s)], largest);
      }
    }

    // Runs of rows that lie side by side one after the other: what a run's last tile writes behind it is the next's.
    void multiply(std::int64_t point, const std::uint16_t* panel, std::int64_t panel_step, std::int64_t panels,
                  float* c, std::int64_t ldc) {
      const bool one_run = rows_.input_planes == rows_.output_planes && rows_.step == 1;
      const std::int64_t runs = one_run ? 1 : rows_.images * rows_.output_planes, rows = rows_.outputs() / runs;
      for (std::int64_t i = 0; i < runs; ++i) {
        const std::int64_t row = one_run ? 0 : rows_.input_row(i / rows_.output_planes, i % rows_.output_planes);
        const TileArgs args{parts_ + point * point_ + row * kPartRun,
                            part_,
                            kPartRun,
                            offsets_.data(),
                            static_cast<std::int64_t>(offsets_.size()),
                            panel + point * p_.weight_step(),
                            panel_step,
                            c + i * rows * ldc,
                            ldc,
                            ceil_div(rows, kRowTile),
                            panels * (kPanelCols / kPanelTile),
                            false};
        p_.tiles_.gemm(&args);
      }
    }

   private:
    TileProducts& p_;
    const WinogradRows rows_;
    std::int64_t point_, part_;
    Workspace<float> transformed_;    // [point][row][channel of a block]
    Workspace<std::uint16_t> parts_;  // [part][channel block], each the same
    std::vector<std::int64_t> offsets_;
  };

 private:
  static void raise(std::atomic<std::uint32_t>& largest, std::uint32_t value) {
    std::uint32_t before = largest.load(std::memory_order_relaxed);
    while (before < value && !largest.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
  }

  const WinogradKernel& winograd_;
  const TileKernel& tiles_;
  WinogradSums sums_;
  std::int64_t blocks_;
  std::vector<std::atomic<std::uint32_t>> largest_x_;
  std::atomic<std::uint32_t> largest_w_{0};
};

}  // namespace fastconv
