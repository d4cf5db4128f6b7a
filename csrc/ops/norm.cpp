#include "ops/norm.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/norm/kernels.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/channel_image.h"
#include "ops/rounded_writes.h"

namespace fastconv {
namespace {

constexpr std::int64_t kBlock = 4096;       // values of one channel that are summed together: they stay in the cache
constexpr std::int64_t kItem = 16384;       // values of one work item, about
constexpr std::int64_t kRowBlock = 16384;   // values of a block of rows that is summed together
constexpr std::int64_t kRowChunk = 32768;   // values of a chunk of rows, whose sums are kept apart
constexpr std::int64_t kColumnGroup = 512;  // channels of a chunk
constexpr std::int64_t kMaxChunks = 64;

// Rows of few channels are taken several at a time, as one row of `count` times as many columns, so that registers
// are full; the columns of one channel are added up afterwards. 1: one row at a time.
std::int64_t rows_at_once(std::int64_t channels) {
  constexpr std::int64_t widest = 16, enough = 64;
  if (channels < 1 || channels >= 256) return 1;
  std::int64_t count = widest / std::gcd(channels, widest);
  while (channels * count < enough) count *= 2;
  return count;
}

// The two sums of a channel over some of its values.
struct Sums {
  std::int64_t count;
  double first, second;
};

// How many problems of their own a batch has, each with a set of sums and coefficients for every channel.
template <class S>
std::int64_t sets_of(const ChannelImage<S>& x, Scope scope) {
  return scope == Scope::sample ? x.samples() : 1;
}

// Squared deviations are around the mean of their own block, so merging two blocks adds the distance of the means
// (T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance", 1983).
struct Merge {
  double a, b, weight;

  Merge(double count, double more) : a(1 / count), b(1 / more), weight(count * more / (count + more)) {}

  void add(double& sum, double& squares, double more_sum, double more_squares) const {
    const double distance = more_sum * b - sum * a;
    sum += more_sum;
    squares += more_squares + distance * distance * weight;
  }
};

// Sum and squared deviations.
template <class S>
struct Moments {
  using T = Compute<S>;
  const BatchNormKernel& kernel;
  const ChannelImage<S>& x;

  // The positions [begin, begin + length) of channel c of `count` samples from n on, which belong to `set`.
  void planes(std::int64_t /*set*/, std::int64_t n, std::int64_t count, std::int64_t c, std::int64_t begin,
              std::int64_t length, T* buffer, Sums& sums) const {
    const auto run = x.sample_planes(n, count, c, begin, length, buffer);
    kernel.plane_moments(run.data, run.stride, count, length, &sums.first, &sums.second);
  }

  // `at_once` rows are one row of `columns` * `at_once` values.
  void rows(std::int64_t /*set*/, std::int64_t row, std::int64_t count, std::int64_t c, std::int64_t columns,
            std::int64_t at_once, T* buffer, double* first, double* second) const {
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
      const Merge merge(static_cast<double>(count), static_cast<double>(more));
      for (std::int64_t c = 0; c < channels; ++c) merge.add(first[c], second[c], more_first[c], more_second[c]);
    }
    count += more;
  }
};

// Plain sums: of grad_output, and of its products with x - mean.
template <class S>
struct Products {
  using T = Compute<S>;
  const BatchNormKernel& kernel;
  const ChannelImage<S>& x;
  const ChannelImage<S>& grad_output;
  const double* mean;           // C entries a set
  const double* repeated_mean;  // the same for several rows at once

  void planes(std::int64_t set, std::int64_t n, std::int64_t count, std::int64_t c, std::int64_t begin,
              std::int64_t length, T* buffer, Sums& sums) const {
    const auto g = grad_output.sample_planes(n, count, c, begin, length, buffer);
    const auto run = x.sample_planes(n, count, c, begin, length, buffer + count * length);
    kernel.plane_products(g.data, g.stride, run.data, run.stride, count, length, mean[set * x.channels() + c],
                          &sums.first, &sums.second);
  }

  void rows(std::int64_t set, std::int64_t row, std::int64_t count, std::int64_t c, std::int64_t columns,
            std::int64_t at_once, T* buffer, double* first, double* second) const {
    const bool packed = at_once > 1 || x.channels() < 256;
    const std::int64_t own = set * x.channels();
    const auto g = grad_output.row_block(row, count, c, columns, packed, buffer);
    const auto run = x.row_block(row, count, c, columns, packed, buffer + count * columns);
    kernel.row_products(g.data, g.stride * at_once, run.data, run.stride * at_once, count / at_once, columns * at_once,
                        at_once > 1 ? repeated_mean + own * at_once : mean + own + c, first, second);
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
void reduce_planes(const Reduction& reduction, Dtype dtype, Scope scope, double* first, double* second) {
  const auto& x = reduction.x;
  const std::int64_t sets = sets_of(x, scope), all = sets * x.channels();
  const std::int64_t samples = x.samples() / sets, channels = x.channels(), positions = x.positions();
  const std::int64_t pieces = ceil_div(positions, kBlock), length = rounded_up(ceil_div(positions, pieces), 16);
  const std::int64_t together = std::min(samples, std::max<std::int64_t>(1, kBlock / positions));
  const std::int64_t blocks = ceil_div(samples, together) * pieces;
  const std::int64_t per_item = std::max<std::int64_t>(1, kItem / (together * std::min(length, positions)));
  const std::int64_t buffered = std::min(length, positions) * together;
  Workspace<Sums> sums(all * blocks);
  const Work work{ceil_div(all * blocks, per_item), 0.5 * static_cast<double>(samples * all * positions)};
  parallel_for(work, subnormals_of(dtype), [&](std::int64_t item) {
    Workspace<T> buffer(2 * buffered);
    const std::int64_t last = std::min(all * blocks, (item + 1) * per_item);
    for (std::int64_t i = item * per_item; i < last; ++i) {
      const std::int64_t set = i / blocks / channels, c = i / blocks % channels;
      const std::int64_t n = i % blocks / pieces * together, begin = i % pieces * length;
      const std::int64_t count = std::min(together, samples - n), some = std::min(length, positions - begin);
      sums[i].count = count * std::max<std::int64_t>(some, 0);
      if (sums[i].count > 0) reduction.planes(set, set * samples + n, count, c, begin, some, buffer, sums[i]);
    }
  });
  parallel_for({ceil_div(all, 256), 10.0 * static_cast<double>(all * blocks)}, Subnormals::keep,
               [&](std::int64_t item) {
                 for (std::int64_t c = item * 256; c < std::min(all, item * 256 + 256); ++c) {
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
void reduce_rows(const Reduction& reduction, Dtype dtype, Scope scope, double* first, double* second) {
  const auto& x = reduction.x;
  const std::int64_t sets = sets_of(x, scope), rows = x.rows() / sets;
  const std::int64_t channels = x.channels(), at_once = rows_at_once(channels);
  const std::int64_t group = std::min(channels, kColumnGroup), groups = ceil_div(channels, group);
  const std::int64_t block = std::max<std::int64_t>(1, kRowBlock / (group * at_once)) * at_once;
  const std::int64_t wanted = std::clamp<std::int64_t>(rows * group / kRowChunk, 1, kMaxChunks);
  const std::int64_t chunk = rounded_up(ceil_div(rows, wanted), block), chunks = ceil_div(rows, chunk);
  Workspace<double> parts(2 * sets * chunks * channels);
  const Work work{sets * chunks * groups, 0.5 * static_cast<double>(x.rows() * channels)};
  parallel_for(work, subnormals_of(dtype), [&](std::int64_t item) {
    const std::int64_t set = item / groups / chunks, c = item % groups * group;
    const std::int64_t columns = std::min(group, channels - c);
    const std::int64_t begin = item / groups % chunks * chunk, end = std::min(rows, begin + chunk);
    double* own_first = parts + 2 * (item / groups) * channels + c;
    double* own_second = own_first + channels;
    Workspace<T> buffer(2 * std::min(block, end - begin) * columns);
    Workspace<double> sums(2 * columns * at_once);
    std::int64_t count = 0;
    const auto add = [&](std::int64_t row, std::int64_t some, std::int64_t repeat) {
      double* more_second = sums + columns * repeat;
      reduction.rows(set, set * rows + row, some, c, columns, repeat, buffer, sums, more_second);
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
  for (std::int64_t set = 0; set < sets; ++set) {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < chunks; ++i) {
      const double* part = parts + 2 * (set * chunks + i) * channels;
      Reduction::merge(count, first + set * channels, second + set * channels, std::min(chunk, rows - i * chunk), part,
                       part + channels, channels);
    }
  }
}

template <class T, class Reduction>
void reduce(const Reduction& reduction, Dtype dtype, ChannelLayout layout, Scope scope, double* first, double* second) {
  const std::int64_t sums = (scope == Scope::sample ? reduction.x.samples() : 1) * reduction.x.channels();
  std::fill_n(first, sums, 0.0);
  std::fill_n(second, sums, 0.0);
  if (reduction.x.rows() == 0 || reduction.x.channels() == 0) return;
  if (layout == ChannelLayout::planes) {
    reduce_planes<T>(reduction, dtype, scope, first, second);
  } else {
    reduce_rows<T>(reduction, dtype, scope, first, second);
  }
}

// The numbers of each set in the data's dtype, repeated for the rows taken at once.
template <class T>
std::vector<T> repeated(const double* values, std::int64_t sets, std::int64_t channels, std::int64_t times) {
  std::vector<T> result;
  if (!values) return result;
  result.reserve(static_cast<std::size_t>(sets * channels * times));
  for (std::int64_t set = 0; set < sets; ++set)
    for (std::int64_t i = 0; i < times; ++i)
      for (std::int64_t c = 0; c < channels; ++c) result.push_back(static_cast<T>(values[set * channels + c]));
  return result;
}

template <class T>
struct Affine {
  std::vector<T> mean, scale, shift, slope;

  NormCoefficients from(std::int64_t channel) const {
    const auto at = [&](const std::vector<T>& values) -> const void* {
      return values.empty() ? nullptr : values.data() + channel;
    };
    return {at(mean), at(scale), at(shift), at(slope)};
  }
};

// The coefficients of a transformation in float64, as NormCoefficients has them; a forward one has no slope.
struct Maps {
  const double *mean, *scale, *shift, *slope;
};

// Calls body(input runs, output, its stride, count, length, coefficients) over fixed pieces of a dense result.
template <class S, int K, class Body>
void transform(const ChannelImage<S>* const (&inputs)[K], S* result, ChannelLayout layout, Scope scope,
               const Maps& maps, Dtype dtype, Body&& body) {
  using T = Compute<S>;
  const ChannelImage<S>& x = *inputs[0];
  const std::int64_t channels = x.channels(), positions = x.positions();
  if (x.rows() == 0 || channels == 0) return;
  const std::int64_t sets = sets_of(x, scope);
  const std::int64_t at_once = layout == ChannelLayout::rows ? rows_at_once(channels) : 1;
  const auto values = [&](const double* numbers) { return repeated<T>(numbers, sets, channels, at_once); };
  const Affine<T> affine{values(maps.mean), values(maps.scale), values(maps.shift), values(maps.slope)};
  using Run = typename ChannelImage<S>::Run;
  if (layout == ChannelLayout::rows) {
    const std::int64_t rows = x.rows() / sets;
    const std::int64_t some = std::max<std::int64_t>(1, kItem / (channels * at_once)) * at_once;
    const std::int64_t chunks = ceil_div(rows, some);
    bool direct = true;
    for (const ChannelImage<S>* input : inputs) direct &= input->rows_in_place(channels<256, rows> x.positions());
    parallel_for({sets * chunks, 0.5 * static_cast<double>(x.rows() * channels)}, subnormals_of(dtype),
                 [&](std::int64_t item) {
                   const std::int64_t set = item / chunks, row = set * rows + item % chunks * some;
                   const std::int64_t count = std::min(some, (set + 1) * rows - row), whole = count / at_once;
                   Workspace<T> buffer(direct ? 0 : K * count * channels);
                   Run tall[K], rest[K];
                   for (int k = 0; k < K; ++k) {
                     const Run run =
                         inputs[k]->row_block(row, count, 0, channels, channels < 256, buffer + k * count * channels);
                     tall[k] = {run.data, run.stride * at_once};
                     rest[k] = {run.data + whole * at_once * run.stride, run.stride};
                   }
                   const NormCoefficients own = affine.from(set * channels * at_once);
                   write_runs(result + row * channels, 0, 1, count * channels, [&](T* out, std::int64_t) {
                     body(tall, out, channels * at_once, whole, channels * at_once, own);
                     body(rest, out + whole * at_once * channels, channels, count - whole * at_once, channels, own);
                   });
                 });
    return;
  }
  const std::int64_t pieces = ceil_div(positions, kItem), length = rounded_up(ceil_div(positions, pieces), 16);
  const std::int64_t together = std::max<std::int64_t>(1, kItem / positions), planes = x.samples() * channels;
  parallel_for({ceil_div(planes, together) * pieces, 0.5 * static_cast<double>(planes * positions)},
               subnormals_of(dtype), [&](std::int64_t item) {
                 const std::int64_t begin = item % pieces * length, some = std::min(length, positions - begin);
                 if (some <= 0) return;
                 const std::int64_t last = std::min(planes, (item / pieces + 1) * together);
                 bool direct = true;
                 for (const ChannelImage<S>* input : inputs) direct &= input->planes_in_place();
                 Workspace<T> buffer(direct ? 0 : K * together * some);
                 for (std::int64_t plane = item / pieces * together; plane < last;) {
                   const std::int64_t n = plane / channels, c = plane % channels,
                                      count = std::min(last - plane, channels - c);
                   Run runs[K];
                   for (int k = 0; k < K; ++k)
                     runs[k] = inputs[k]->channel_planes(n, c, count, begin, some, buffer + k * together * some);
                   const NormCoefficients own = affine.from(scope == Scope::sample ? plane : c);
                   write_runs(result + plane * positions + begin, positions, count, some,
                              [&](T* out, std::int64_t stride) { body(runs, out, stride, count, some, own); });
                   plane += count;
                 }
               });
}

// `result`: the image of what the ReLU gave, if there is one.
template <class S>
ChannelImage<S> gradient_image(const NormGradient& from, const ChannelImage<S>& result) {
  ChannelImage<S> gradient(from.grad.as<S>());
  if (!from.rectified) return gradient;
  require(is_wide<S>, "rectified: expected float32 or float64");
  const ActivationKernel& kernel = choose_activation(compute_dtype(from.grad.dtype), active_isa_mask());
  gradient.rectify_by(result, kernel.maps[static_cast<int>(Map::relu_backward)]);
  return gradient;
}

std::int64_t entries(const ArrayView& x, Scope scope) { return (scope == Scope::sample ? x.shape[0] : 1) * x.shape[1]; }

}  // namespace

void merge_moments(double count, double& sum, double& squares, double more, double more_sum, double more_squares) {
  if (count == 0) {
    sum = more_sum;
    squares = more_squares;
  } else {
    Merge(count, more).add(sum, squares, more_sum, more_squares);
  }
}

void channel_moments(const ArrayView& x, ChannelLayout layout, Scope scope, double* mean, double* squares) {
  const BatchNormKernel& kernel = choose_batch_norm(compute_dtype(x.dtype), active_isa_mask());
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    const ChannelImage<S> image(x.as<S>());
    reduce<Compute<S>>(Moments<S>{kernel, image}, x.dtype, layout, scope, mean, squares);
    const double count = static_cast<double>(image.rows()) / static_cast<double>(sets_of(image, scope));
    for (std::int64_t i = 0; i < entries(x, scope) && count > 0; ++i) mean[i] /= count;
  });
}

void normalise(const ArrayView& x, const ArrayView& y, ChannelLayout layout, Scope scope,
               const std::vector<double>& mean, const std::vector<double>& scale, const std::vector<double>& shift,
               bool rectify) {
  const BatchNormKernel& kernel = choose_batch_norm(compute_dtype(x.dtype), active_isa_mask());
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ChannelImage<S> image(x.as<S>());
    const std::vector<double> shifts = compensated_shift<T>(mean, scale, shift);
    const Maps maps{mean.data(), scale.data(), shifts.data(), nullptr};
    transform<S, 1>({&image}, static_cast<S*>(y.data), layout, scope, maps, x.dtype,
                    [&](const auto& runs, T* out, std::int64_t stride, std::int64_t count, std::int64_t length,
                        const NormCoefficients& coefficients) {
                      const bool planes = layout == ChannelLayout::planes;
                      const auto function = planes ? kernel.plane_forward : kernel.row_forward;
                      function(runs[0].data, runs[0].stride, out, stride, count, length, coefficients);
                      if (rectify)  // while it is in the cache
                        (planes ? kernel.plane_finish : kernel.row_finish)(out, stride, count, length,
                                                                           {nullptr, {}, true});
                    });
  });
}

void channel_products(const NormGradient& from, const ArrayView& x, ChannelLayout layout, Scope scope,
                      const double* mean, double* sum, double* dot) {
  const BatchNormKernel& kernel = choose_batch_norm(compute_dtype(x.dtype), active_isa_mask());
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    const ChannelImage<S> image(x.as<S>()), result(from.rectified.as<S>());
    const ChannelImage<S> gradient = gradient_image(from, result);
    const std::vector<double> means =
        repeated<double>(layout == ChannelLayout::rows ? mean : nullptr, sets_of(image, scope), image.channels(),
                         rows_at_once(image.channels()));
    reduce<Compute<S>>(Products<S>{kernel, image, gradient, mean, means.data()}, x.dtype, layout, scope, sum, dot);
  });
}

void normalise_backward(const NormGradient& from, const ArrayView& x, const ArrayView& grad_input, ChannelLayout layout,
                        Scope scope, const double* mean, const double* scale, const double* slope,
                        const double* shift) {
  const BatchNormKernel& kernel = choose_batch_norm(compute_dtype(x.dtype), active_isa_mask());
  dispatch_storage(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const ChannelImage<S> image(x.as<S>()), result(from.rectified.as<S>());
    const ChannelImage<S> gradient = gradient_image(from, result);
    transform<S, 2>(
        {&gradient, &image}, static_cast<S*>(grad_input.data), layout, scope, {mean, scale, shift, slope}, x.dtype,
        [&](const auto& runs, T* out, std::int64_t stride, std::int64_t count, std::int64_t length,
            const NormCoefficients& coefficients) {
          const auto function = layout == ChannelLayout::planes ? kernel.plane_backward : kernel.row_backward;
          function(runs[0].data, runs[0].stride, runs[1].data, runs[1].stride, out, stride, count, length,
                   coefficients);
        });
  });
}

}  // namespace fastconv
