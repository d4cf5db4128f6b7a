#include "ops/conv.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_matrices.h"
#include "ops/conv_patches.h"
#include "ops/conv_tiles.h"

namespace fastconv {

void check_conv(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& output) {
  require(shape.groups >= 1, "groups: must be at least 1");
  require(input.dtype == weight.dtype && input.dtype == output.dtype, "arrays of one call must share a dtype");
  require(input.shape[0] == output.shape[0], "input and output differ in N");
  require(output.shape[1] == weight.shape[0], "weight: output channels do not match");
  require(input.shape[1] % shape.groups == 0 && input.shape[1] / shape.groups == weight.shape[1],
          "weight: input channels do not match");
  require(output.shape[1] % shape.groups == 0, "groups: do not divide the output channels");
  for (int axis = 0; axis < kSpatial; ++axis) {
    const Window& window = shape.window[axis];
    require(window.stride >= 1 && window.dilation >= 1 && window.kernel >= 1,
            "stride, dilation and kernel must be positive");
    for (const std::int64_t number : {window.stride, window.dilation, window.pad_before, window.pad_after})
      require(number >= -kLargestWindow && number <= kLargestWindow, "stride, dilation and padding: beyond 2**60");
    require(window.kernel == weight.extent(axis), "weight: kernel size does not match");
    require(output.extent(axis) == output_size(input.extent(axis), window), "output: wrong spatial size");
    require(std::max(window.pad_before, window.pad_after) <= most_padding(input.extent(axis), window.mode),
            "padding: more than the input can fill");
  }
}

namespace {

template <class S>
GatherProblem<S> gather_problem(const ArrayView& x, const ArrayView& weight, const ArrayView& y, std::int64_t groups) {
  GatherProblem<S> problem;
  problem.x = x.as<const S>();
  problem.y_shape = y.as<const S>();
  problem.y = static_cast<S*>(y.data);
  problem.weight = static_cast<const S*>(weight.data);
  problem.groups = groups;
  problem.x_channels = x.shape[1] / groups;
  problem.y_channels = y.shape[1] / groups;
  for (int axis = 0; axis < kSpatial; ++axis) problem.weight_tap[axis] = weight.step(axis);
  return problem;
}

// The bias in the type of the sums: the caller's array, or a copy of 16-bit values.
template <class S>
const Compute<S>* wide_bias(const ArrayView& bias, std::vector<Compute<S>>& storage) {
  const S* values = static_cast<const S*>(bias.data);
  if constexpr (std::is_same_v<S, Compute<S>>) return values;
  if (!values) return nullptr;
  storage.resize(bias.size());
  std::transform(values, values + bias.size(), storage.begin(), [](S value) { return widen(value); });
  return storage.data();
}

// Whether sums along rows (conv_gather_rows.cpp) are faster than tiles whose columns are output channels. Tiles move
// all of x and y between channels-first memory and packed blocks, rows between channels-last memory and theirs. Tiles
// leave lanes idle where y has few channels, rows where they are not whole registers. Costs of one row of y, in
// multiply-adds of a register, fitted to 400 random problems from at most 48 channels to at most 24; see bench/LOG.md.
template <class S>
bool rows_are_faster(const GatherProblem<S>& problem) {
  using T = Compute<S>;
  if (problem.rows_are_samples) return false;  // how long a row is would be how many samples there are
  constexpr std::int64_t kFew = 4, kMostTerms = 1 << 15, kMostWeights = 1 << 15;
  if (problem.x_channels == 1 && problem.y_channels <= kFew) return true;
  const AxisPhase& row = problem.phases[2][0];
  std::int64_t taps = problem.x_channels;
  for (int axis = 0; axis < kSpatial; ++axis) taps *= static_cast<std::int64_t>(problem.phases[axis][0].taps.size());
  if (taps == 0 || taps > kMostTerms) return false;
  // A product of matrices where its rows lie evenly, and the same bits where they do not.
  if (problem.is_point() && problem.groups == 1 && problem.x.stride[1] == 1) return false;
  const DepthwiseKernel& rows = find_depthwise(DtypeOf<T>::value, row.out_count, active_isa_mask());
  const ConvKernel& tiles = find_conv(DtypeOf<T>::value, problem.y_channels, active_isa_mask());
  const std::string forced = forced_kernel();
  if (forced == rows.name || forced == tiles.name) return forced == rows.name;
  const std::int64_t width = row.out_count, lanes = rows.tile_cols, outputs = problem.y_channels;
  // Next to each other in memory, or turned as channels that are.
  const bool side_by_side = problem.y_shape.stride[1] == 1 || row.out_step * problem.y_shape.step(2) == 1;
  if (width < lanes || !side_by_side) return outputs <= kFew && width >= kFew * outputs;
  if (taps * outputs > kMostWeights) return false;
  const auto sum = static_cast<double>(taps), vectors = static_cast<double>(ceil_div(width, lanes));
  const auto blocks = static_cast<double>(ceil_div(outputs, kMostWindowRows));
  const auto columns = static_cast<double>(rounded_up(outputs, tiles.tile_cols));
  const double moved = problem.y_shape.stride[1] == 1 ? 1 : 6.5;  // tiles need not be turned
  const double by_rows =
      vectors * sum * (0.9 * static_cast<double>(outputs) + 2.3 * blocks) + blocks * (1.8 * sum + 340);
  const double by_tiles =
      static_cast<double>(width) * (sum * (1.1 * columns / static_cast<double>(lanes) + 0.6) + moved * columns) +
      160.0 * static_cast<double>(row.taps.size());
  return by_rows < by_tiles;
}

template <class S>
void gather_directly(const GatherProblem<S>& problem) {
  if (rows_are_faster(problem))
    gather_rows(problem);
  else
    gather_dense(problem);
}

template <class S>
void gather_on_vectors(const GatherProblem<S>& problem) {
  if (!gather_winograd(problem, false, gather_directly<S>)) gather_directly(problem);
}

// y from x over a set of phases, with the weight's axes of y's and x's channels.
struct Gather {
  const ConvShape& shape;
  const ArrayView &x, &weight, &bias, &y;
  int y_axis, x_axis;  // of the weight
};

// Whether it was done; with `on_tiles` it is only where tile registers are chosen.
template <class Phases>
bool gather(const Gather& g, const Epilogue& epilogue, bool on_tiles, Phases&& phases_of) {
  return dispatch_storage(g.x.dtype, [&](auto zero) {
    using S = decltype(zero);
    std::vector<Compute<S>> storage;
    GatherProblem<S> problem = gather_problem<S>(g.x, g.weight, g.y, g.shape.groups);
    problem.bias = wide_bias<S>(g.bias, storage);
    problem.weight_y = g.weight.stride[g.y_axis];
    problem.weight_x = g.weight.stride[g.x_axis];
    problem.weight_group = g.weight.stride[0] * (g.weight.shape[0] / g.shape.groups);
    problem.precision = g.shape.precision;
    problem.rows_are_samples = g.shape.rows_are_samples;
    for (int axis = 0; axis < kSpatial; ++axis) problem.phases[axis] = phases_of(axis);
    problem.fills_around = one_phase_has_taps(problem.phases);
    problem.finish = Finish<Compute<S>>(epilogue);
    if (problem.y_shape.size() == 0) return true;
    const TileKernel* tiles = choose_tiles(problem);
    if (!tiles && on_tiles) return false;
    if (!on_tiles && gather_by_scatter(problem, tiles)) return true;
    if (tiles)
      gather_tiles(problem, *tiles, gather_on_vectors<S>);
    else if (!gather_winograd(problem, true, gather_directly<S>))
      gather_directly(problem);
    return true;
  });
}

bool forward_inside(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                    const ArrayView& output, const Epilogue& epilogue, bool on_tiles) {
  return gather({shape, input, weight, bias, output, 0, 1}, epilogue, on_tiles,
                [&](int axis) { return forward_phases(shape.window[axis], output.extent(axis)); });
}

bool backward_input_inside(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                           const ArrayView& bias, const ArrayView& grad_input, bool on_tiles) {
  return gather({shape, grad_output, weight, bias, grad_input, 1, 0}, {}, on_tiles,
                [&](int axis) { return backward_phases(shape.window[axis], grad_input.extent(axis)); });
}

// Whether a product of matrices may be one for tile registers, which the convolution's own passes use.
bool tiles_may_serve(const ConvShape& shape) {
  return !shape.rows_are_samples && (active_isa_mask() & isa_bit(Isa::amx));
}

// One slab of the padded input along an axis: before the input, the input itself, or after it.
struct Slab {
  std::int64_t start, count;  // in the input's positions
};

// The gradient of what the padding holds, slab by slab and a few samples at a time, added to what it repeats.
template <class T>
void fold_padding(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                  const ArrayView& grad_input) {
  constexpr std::int64_t kFolded = std::int64_t{1} << 20;  // elements at a time, unless one sample has more
  const View<T> target = grad_input.as<T>();
  const std::int64_t channels = grad_input.shape[1];
  std::vector<Slab> slabs[kSpatial];
  for (int axis = 0; axis < kSpatial; ++axis) {
    const Window& window = shape.window[axis];
    const std::int64_t in = grad_input.extent(axis);
    slabs[axis] = {{0, in}};
    if (window.pad_before > 0) slabs[axis].push_back({-window.pad_before, window.pad_before});
    if (window.pad_after > 0) slabs[axis].push_back({in, window.pad_after});
  }
  const auto fold = [&](const Slab(&slab)[kSpatial]) {
    ConvShape part = shape;
    std::int64_t positions = 1;
    for (int axis = 0; axis < kSpatial; ++axis) {
      // The same windows seen from an input that begins at the slab.
      Window& window = part.window[axis];
      const std::int64_t padded = grad_input.extent(axis) + window.pad_before + window.pad_after;
      window.mode = PadMode::zeros;
      window.pad_before += slab[axis].start;
      window.pad_after = padded - slab[axis].count - window.pad_before;
      positions *= slab[axis].count;
    }
    const std::int64_t samples = grad_input.shape[0];
    const std::int64_t together = std::clamp<std::int64_t>(kFolded / (channels * positions), 1, samples);
    Workspace<T> scratch(together * channels * positions);
    for (std::int64_t first = 0; first < samples; first += together) {
      const std::int64_t count = std::min(together, samples - first);
      ArrayView result;
      result.dtype = grad_input.dtype;
      result.data = scratch.data();
      result.shape[0] = count;
      result.shape[1] = channels;
      for (int axis = 0; axis < kSpatial; ++axis) result.shape[2 + axis] = slab[axis].count;
      result.make_dense();
      backward_input_inside(part, grad_output.samples(first, count), weight, {}, result, false);
      const T* value = scratch.data();
      for (std::int64_t plane = 0; plane < count * channels; ++plane) {
        T* to = target.data + (first + plane / channels) * target.stride[0] + plane % channels * target.stride[1];
        std::int64_t at[kSpatial], source[kSpatial];
        const auto locate = [&](int axis) {
          source[axis] = padded_source(slab[axis].start + at[axis], target.extent(axis), shape.window[axis].mode);
        };
        for (at[0] = 0; at[0] < slab[0].count; ++at[0])
          for (at[1] = 0; at[1] < slab[1].count; ++at[1])
            for (at[2] = 0; at[2] < slab[2].count; ++at[2]) {
              for (int axis = 0; axis < kSpatial; ++axis) locate(axis);
              to[source[0] * target.step(0) + source[1] * target.step(1) + source[2] * target.step(2)] += *value++;
            }
      }
    }
  };
  for (const Slab& d : slabs[0])
    for (const Slab& h : slabs[1])
      for (const Slab& w : slabs[2])
        if (&d != &slabs[0][0] || &h != &slabs[1][0] || &w != &slabs[2][0]) fold({d, h, w});
}

}  // namespace

void conv_forward(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                  const ArrayView& output, const Epilogue& epilogue) {
  check_conv(shape, input, weight, output);
  if (output.size() == 0) return;  // an empty batch may have positions beyond counting
  if (std::int64_t together; as_matrices_of_planes(shape, input, weight, output, together)) {
    Planes planes(input, together);
    for (std::int64_t first = 0; first < input.shape[0]; first += together) {
      const std::int64_t count = std::min(together, input.shape[0] - first);
      planes.read(input.samples(first, count));
      conv_forward(shape, planes.of(count), weight, bias, output.samples(first, count), epilogue);
    }
    return;
  }
  if (forward_by_patches(shape, input, weight, bias, output, epilogue)) return;
  ConvMatrices matrices;
  const bool is_product = as_matrices(shape, input, weight, output, matrices);
  if (!is_product || tiles_may_serve(shape)) {
    ArrayView x = input, y = output;
    join_positions(shape, x, y);
    if (forward_inside(shape, x, weight, bias, y, epilogue, is_product)) return;
  }
  dispatch_storage(input.dtype, [&](auto zero) {
    using S = decltype(zero);
    std::vector<Compute<S>> storage;
    MatrixProduct<S> product = matrices.forward<S>(input, weight, output);
    product.bias = wide_bias<S>(bias, storage);
    product.finish = Finish<Compute<S>>(epilogue);
    multiply(product);
  });
}

void conv_backward_input(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                         const ArrayView& bias, const ArrayView& grad_input) {
  check_conv(shape, grad_input, weight, grad_output);
  if (grad_input.size() == 0) return;
  if (std::int64_t together; as_matrices_of_planes(shape, grad_input, weight, grad_output, together)) {
    Planes planes(grad_input, together);
    for (std::int64_t first = 0; first < grad_input.shape[0]; first += together) {
      const std::int64_t count = std::min(together, grad_input.shape[0] - first);
      conv_backward_input(shape, grad_output.samples(first, count), weight, bias, planes.of(count));
      planes.write(grad_input.samples(first, count));
    }
    return;
  }
  if (backward_input_by_patches(shape, grad_output, weight, bias, grad_input)) return;
  ConvMatrices matrices;
  const bool is_product = as_matrices(shape, grad_input, weight, grad_output, matrices);
  if (!is_product || tiles_may_serve(shape)) {
    ArrayView gx = grad_input, gy = grad_output;
    join_positions(shape, gx, gy);
    if (backward_input_inside(shape, gy, weight, bias, gx, is_product) && is_product) return;
  }
  if (is_product) {
    dispatch_storage(grad_input.dtype, [&](auto zero) {
      using S = decltype(zero);
      std::vector<Compute<S>> storage;
      MatrixProduct<S> product = matrices.backward_input<S>(grad_output, weight, grad_input);
      product.bias = wide_bias<S>(bias, storage);
      // A column is a channel, or with a window as large as the input a channel's tap.
      std::vector<Compute<S>> of_columns;
      const std::int64_t taps = matrices.inputs / grad_input.shape[1];
      for (std::int64_t i = 0; product.bias && taps > 1 && i < matrices.inputs; ++i)
        of_columns.push_back(product.bias[i / taps]);
      if (!of_columns.empty()) product.bias = of_columns.data();
      multiply(product);
    });
    return;
  }
  const bool repeats = std::any_of(shape.window, shape.window + kSpatial,
                                   [](const Window& window) { return window.mode != PadMode::zeros; });
  if (!repeats || grad_input.size() == 0 || grad_output.size() == 0) return;
  dispatch_dtype(grad_input.dtype,
                 [&](auto zero) { fold_padding<decltype(zero)>(shape, grad_output, weight, grad_input); });
}

}  // namespace fastconv
