#include "ops/norm.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/norm/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/channel_image.h"

namespace fastconv {
namespace {

constexpr std::int64_t kBlock = 4096;       // values of one channel that are summed together: they stay in the cache
constexpr std::int64_t kItem = 16384;       // values of one work item, about
constexpr std::int64_t kRowBlock = 16384;   // values of a block of rows that is summed together
constexpr std::int64_t kRowChunk = 32768;   // values of a chunk of rows, whose sums are kept apart
constexpr std::int64_t kColumnGroup = 512;  // channels of a chunk
constexpr std::int64_t kMaxChunks = 64;

std::int64_t up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Subnormals mode_of(Dtype dtype) { return dtype == Dtype::f64 ? Subnormals::keep : Subnormals::flush; }

// Rows of few channels are taken several at a time, as one row of `count` times as many columns, so that registers
// are full; the columns of one channel are added up afterwards. 1: one row at a time.
std::int64_t rows_at_once(std::int64_t channels) {
  constexpr std::int64_t widest = 16, enough = 64;
  if (channels >= 256) return 1;
  std::int64_t count = widest / std::gcd(channels, widest);
  while (channels * count < enough) count *= 2;
  return count;
}

// The two sums of a channel over some of its values.
struct Sums {
  std::int64_t count;
  double first, second;
};

// Sum and squared deviations: `second` is around the mean of the block, so merging adds the distance of the means
// (T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance", 1983).
template <class T>
struct Moments {
  const BatchNormKernel& kernel;
  const ChannelImage<T>& x;

  void planes(std::int64_t n, std::int64_t count, std::int64_t c, std::int64_t begin, std::int64_t length, T* buffer,
              Sums& sums) const {
    const auto run = x.sample_planes(n, count, c, begin, length, buffer);
    kernel.plane_moments(run.data, run.stride, count, length, &sums.first, &sums.second);
  }

  // `at_once` rows are one row of `columns` * `at_once` values.
  void rows(std::int64_t row, std::int64_t count, std::int64_t c, std::int64_t columns, std::int64_t at_once, T* buffer,
            double* first, double* second) const {
    const bool packed = at_once > 1 || x.channels() < 256;
    const auto run = x.row_block(row, count, c, columns, packed, buffer);
    kernel.row_moments(run.data, run.stride * at_once, count / at_once, columns * at_once, first, second);
  }

  static void merge(std::int64_t& count, double* first, double* second, std::int64_t more, const double* more_first,
                    const double* more_second, std::int64_t channels) {
    if (count == 0) {
      std::copy_n(more_first, channels, first);
      std::copy_n(more_second, channels, second);
    } else {
      const double a = 1 / static_cast<double>(count), b = 1 / static_cast<double>(more);
      const double weight = static_cast<double>(count) * static_cast<double>(more) / static_cast<double>(count + more);
      for (std::int64_t c = 0; c < channels; ++c) {
        const double distance = more_first[c] * b - first[c] * a;
        first[c] += more_first[c];
        second[c] += more_second[c] + distance * distance * weight;
      }
    }
    count += more;
  }
};

// Plain sums: of grad_output, and of its products with x - mean.
template <class T>
struct Products {
  const BatchNormKernel& kernel;
  const ChannelImage<T>& x;
  const ChannelImage<T>& grad_output;
  const double* mean;
  const double* repeated_mean;  // for several rows at once

  void planes(std::int64_t n, std::int64_t count, std::int64_t c, std::int64_t begin, std::int64_t length, T* buffer,
              Sums& sums) const {
    const auto g = grad_output.sample_planes(n, count, c, begin, length, buffer);
    const auto run = x.sample_planes(n, count, c, begin, length, buffer + count * length);
    kernel.plane_products(g.data, g.stride, run.data, run.stride, count, length, mean[c], &sums.first, &sums.second);
  }

  void rows(std::int64_t row, std::int64_t count, std::int64_t c, std::int64_t columns, std::int64_t at_once, T* buffer,
            double* first, double* second) const {
    const bool packed = at_once > 1 || x.channels() < 256;
    const auto g = grad_output.row_block(row, count, c, columns, packed, buffer);
    const auto run = x.row_block(row, count, c, columns, packed, buffer + count * columns);
    kernel.row_products(g.data, g.stride * at_once, run.data, run.stride * at_once, count / at_once, columns * at_once,
                        at_once > 1 ? repeated_mean : mean + c, first, second);
  }

  static void merge(std::int64_t& count, double* first, double* second, std::int64_t more, const double* more_first,
                    const double* more_second, std::int64_t channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      first[c] = count ? first[c] + more_first[c] : more_first[c];
      second[c] = count ? second[c] + more_second[c] : more_second[c];
    }
    count += more;
  }
};

// Sums over planes: each channel's values in blocks, a block being a piece of one plane or several whole planes.
template <class T, class Reduction>
void reduce_planes(const Reduction& reduction, Dtype dtype, double* first, double* second) {
  const auto& x = reduction.x;
  const std::int64_t samples = x.samples(), channels = x.channels(), positions = x.positions();
  const std::int64_t pieces = up(positions, kBlock), length = up(up(positions, pieces), 16) * 16;
  const std::int64_t together = std::min(samples, std::max<std::int64_t>(1, kBlock / positions));
  const std::int64_t blocks = up(samples, together) * pieces;
  const std::int64_t per_item = std::max<std::int64_t>(1, kItem / (together * std::min(length, positions)));
  const std::int64_t buffered = std::min(length, positions) * together;
  Workspace<Sums> sums(channels * blocks);
  const Work work{up(channels * blocks, per_item), 0.5 * static_cast<double>(samples * channels * positions)};
  parallel_for(work, mode_of(dtype), [&](std::int64_t item) {
    Workspace<T> buffer(2 * buffered);
    const std::int64_t last = std::min(channels * blocks, (item + 1) * per_item);
    for (std::int64_t i = item * per_item; i < last; ++i) {
      const std::int64_t c = i / blocks, n = i % blocks / pieces * together, begin = i % pieces * length;
      const std::int64_t count = std::min(together, samples - n), some = std::min(length, positions - begin);
      sums[i].count = count * std::max<std::int64_t>(some, 0);
      if (sums[i].count > 0) reduction.planes(n, count, c, begin, some, buffer, sums[i]);
    }
  });
  parallel_for({up(channels, 256), 10.0 * static_cast<double>(channels * blocks)}, Subnormals::keep,
               [&](std::int64_t item) {
                 for (std::int64_t c = item * 256; c < std::min(channels, item * 256 + 256); ++c) {
                   std::int64_t count = 0;
                   for (std::int64_t b = 0; b < blocks; ++b) {
                     const Sums& part = sums[c * blocks + b];
                     if (part.count > 0)
                       Reduction::merge(count, first + c, second + c, part.count, &part.first, &part.second, 1);
                   }
                 }
               });
}

// Sums over rows: chunks of rows by groups of columns; inside a chunk, blocks that stay in the cache.
template <class T, class Reduction>
void reduce_rows(const Reduction& reduction, Dtype dtype, double* first, double* second) {
  const auto& x = reduction.x;
  const std::int64_t rows = x.rows(), channels = x.channels(), at_once = rows_at_once(channels);
  const std::int64_t group = std::min(channels, kColumnGroup), groups = up(channels, group);
  const std::int64_t block = std::max<std::int64_t>(1, kRowBlock / (group * at_once)) * at_once;
  const std::int64_t wanted = std::clamp<std::int64_t>(rows * group / kRowChunk, 1, kMaxChunks);
  const std::int64_t chunk = up(up(rows, wanted), block) * block, chunks = up(rows, chunk);
  Workspace<double> parts(2 * chunks * channels);
  parallel_for({chunks * groups, 0.5 * static_cast<double>(rows * channels)}, mode_of(dtype), [&](std::int64_t item) {
    const std::int64_t c = item % groups * group, columns = std::min(group, channels - c);
    const std::int64_t begin = item / groups * chunk, end = std::min(rows, begin + chunk);
    double* own_first = parts + 2 * (item / groups) * channels + c;
    double* own_second = own_first + channels;
    Workspace<T> buffer(2 * std::min(block, end - begin) * columns);
    Workspace<double> sums(2 * columns * at_once);
    std::int64_t count = 0;
    const auto add = [&](std::int64_t row, std::int64_t some, std::int64_t repeat) {
      double* more_second = sums + columns * repeat;
      reduction.rows(row, some, c, columns, repeat, buffer, sums, more_second);
      for (std::int64_t r = 0; r < repeat; ++r)
        Reduction::merge(count, own_first, own_second, some / repeat, sums + r * columns, more_second + r * columns,
                         columns);
    };
    for (std::int64_t row = begin; row < end; row += block) {
      const std::int64_t some = std::min(block, end - row), whole = some / at_once * at_once;
      if (whole > 0) add(row, whole, at_once);
      if (some > whole) add(row + whole, some - whole, 1);
    }
  });
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < chunks; ++i)
    Reduction::merge(count, first, second, std::min(chunk, rows - i * chunk), parts + 2 * i * channels,
                     parts + (2 * i + 1) * channels, channels);
}

template <class T, class Reduction>
void reduce(const Reduction& reduction, Dtype dtype, ChannelLayout layout, double* first, double* second) {
  std::fill_n(first, reduction.x.channels(), 0.0);
  std::fill_n(second, reduction.x.channels(), 0.0);
  if (reduction.x.rows() == 0 || reduction.x.channels() == 0) return;
  if (layout == ChannelLayout::planes) {
    reduce_planes<T>(reduction, dtype, first, second);
  } else {
    reduce_rows<T>(reduction, dtype, first, second);
  }
}

// Per-channel numbers in the data's dtype, each repeated for the rows taken at once.
template <class T>
std::vector<T> repeated(const double* values, std::int64_t channels, std::int64_t times) {
  std::vector<T> result(static_cast<std::size_t>(values ? channels * times : 0));
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = static_cast<T>(values[i % static_cast<std::size_t>(channels)]);
  return result;
}

template <class T>
struct Affine {
  std::vector<T> mean, scale, shift, slope;

  Affine(std::int64_t channels, std::int64_t times, const double* mean_, const double* scale_, const double* shift_,
         const double* slope_)
      : mean(repeated<T>(mean_, channels, times)),
        scale(repeated<T>(scale_, channels, times)),
        shift(repeated<T>(shift_, channels, times)),
        slope(repeated<T>(slope_, channels, times)) {}

  NormCoefficients from(std::int64_t channel) const {
    const auto at = [&](const std::vector<T>& values) -> const void* {
      return values.empty() ? nullptr : values.data() + channel;
    };
    return {at(mean), at(scale), at(shift), at(slope)};
  }
};

// Calls body(input runs, output, its stride, count, length, coefficients) over fixed pieces of a dense result.
template <class T, int K, class Body>
void transform(const ChannelImage<T>* const (&inputs)[K], T* result, ChannelLayout layout, const double* mean,
               const double* scale, const double* shift, const double* slope, Dtype dtype, Body&& body) {
  const ChannelImage<T>& x = *inputs[0];
  const std::int64_t channels = x.channels(), positions = x.positions();
  if (x.rows() == 0 || channels == 0) return;
  using Run = typename ChannelImage<T>::Run;
  if (layout == ChannelLayout::rows) {
    const std::int64_t at_once = rows_at_once(channels), rows = x.rows();
    const std::int64_t some = std::max<std::int64_t>(1, kItem / (channels * at_once)) * at_once;
    const Affine<T> affine(channels, at_once, mean, scale, shift, slope);
    parallel_for({up(rows, some), 0.5 * static_cast<double>(rows * channels)}, mode_of(dtype), [&](std::int64_t item) {
      const std::int64_t row = item * some, count = std::min(some, rows - row), whole = count / at_once;
      Run runs[K];
      bool direct = true;
      for (const ChannelImage<T>* input : inputs) direct &= input->rows_in_place(channels < 256);
      Workspace<T> buffer(direct ? 0 : K * count * channels);
      for (int k = 0; k < K; ++k)
        runs[k] = inputs[k]->row_block(row, count, 0, channels, channels < 256, buffer + k * count * channels);
      T* out = result + row * channels;
      Run tall[K], rest[K];
      for (int k = 0; k < K; ++k) {
        tall[k] = {runs[k].data, runs[k].stride * at_once};
        rest[k] = {runs[k].data + whole * at_once * runs[k].stride, runs[k].stride};
      }
      body(tall, out, channels * at_once, whole, channels * at_once, affine.from(0));
      body(rest, out + whole * at_once * channels, channels, count - whole * at_once, channels, affine.from(0));
    });
    return;
  }
  const Affine<T> affine(channels, 1, mean, scale, shift, slope);
  const std::int64_t pieces = up(positions, kItem), length = up(up(positions, pieces), 16) * 16;
  const std::int64_t together = std::max<std::int64_t>(1, kItem / positions), planes = x.samples() * channels;
  parallel_for({up(planes, together) * pieces, 0.5 * static_cast<double>(planes * positions)}, mode_of(dtype),
               [&](std::int64_t item) {
                 const std::int64_t begin = item % pieces * length, some = std::min(length, positions - begin);
                 if (some <= 0) return;
                 const std::int64_t last = std::min(planes, (item / pieces + 1) * together);
                 bool direct = true;
                 for (const ChannelImage<T>* input : inputs) direct &= input->planes_in_place();
                 Workspace<T> buffer(direct ? 0 : K * together * some);
                 for (std::int64_t plane = item / pieces * together; plane < last;) {
                   const std::int64_t n = plane / channels, c = plane % channels,
                                      count = std::min(last - plane, channels - c);
                   Run runs[K];
                   for (int k = 0; k < K; ++k)
                     runs[k] = inputs[k]->channel_planes(n, c, count, begin, some, buffer + k * together * some);
                   body(runs, result + plane * positions + begin, positions, count, some, affine.from(c));
                   plane += count;
                 }
               });
}

}  // namespace

void channel_moments(const ArrayView& x, ChannelLayout layout, double* mean, double* squares) {
  const BatchNormKernel& kernel = choose_batch_norm(x.dtype, active_isa_mask());
  dispatch_dtype(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const ChannelImage<T> image(x.as<T>());
    reduce<T>(Moments<T>{kernel, image}, x.dtype, layout, mean, squares);
    for (std::int64_t c = 0; c < image.channels() && image.rows() > 0; ++c)
      mean[c] /= static_cast<double>(image.rows());
  });
}

void normalise(const ArrayView& x, const ArrayView& y, ChannelLayout layout, const double* mean, const double* scale,
               const double* shift) {
  const BatchNormKernel& kernel = choose_batch_norm(x.dtype, active_isa_mask());
  dispatch_dtype(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const ChannelImage<T> image(x.as<T>());
    transform<T, 1>({&image}, static_cast<T*>(y.data), layout, mean, scale, shift, nullptr, x.dtype,
                    [&](const auto& runs, T* out, std::int64_t stride, std::int64_t count, std::int64_t length,
                        const NormCoefficients& coefficients) {
                      const auto function = layout == ChannelLayout::planes ? kernel.plane_forward : kernel.row_forward;
                      function(runs[0].data, runs[0].stride, out, stride, count, length, coefficients);
                    });
  });
}

void channel_products(const ArrayView& grad_output, const ArrayView& x, ChannelLayout layout, const double* mean,
                      double* sum, double* dot) {
  const BatchNormKernel& kernel = choose_batch_norm(x.dtype, active_isa_mask());
  dispatch_dtype(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const ChannelImage<T> image(x.as<T>()), gradient(grad_output.as<T>());
    const std::vector<double> means = repeated<double>(mean, image.channels(), rows_at_once(image.channels()));
    reduce<T>(Products<T>{kernel, image, gradient, mean, means.data()}, x.dtype, layout, sum, dot);
  });
}

void normalise_backward(const ArrayView& grad_output, const ArrayView& x, const ArrayView& grad_input,
                        ChannelLayout layout, const double* mean, const double* scale, const double* slope,
                        const double* shift) {
  const BatchNormKernel& kernel = choose_batch_norm(x.dtype, active_isa_mask());
  dispatch_dtype(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const ChannelImage<T> image(x.as<T>()), gradient(grad_output.as<T>());
    transform<T, 2>({&gradient, &image}, static_cast<T*>(grad_input.data), layout, mean, scale, shift, slope, x.dtype,
                    [&](const auto& runs, T* out, std::int64_t stride, std::int64_t count, std::int64_t length,
                        const NormCoefficients& coefficients) {
                      const auto function =
                          layout == ChannelLayout::planes ? kernel.plane_backward : kernel.row_backward;
                      function(runs[0].data, runs[0].stride, runs[1].data, runs[1].stride, out, stride, count, length,
                               coefficients);
                    });
  });
}

}  // namespace fastconv
