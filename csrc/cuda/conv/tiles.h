// Convolution as a product of matrices that are never built: tiles of outputs (positions by channels), summed over taps
// and channels. Forward and, phase by phase, the input's gradient are this sum.
#pragma once

#include "cuda/conv/conv.h"

namespace fastconv {
namespace cuda {

// One axis of the sum: output o and tap t meet input o * stride + t * dilation - pad, or nothing outside [0, in).
struct SumAxis {
  int in, out, taps, stride, dilation, pad;
};

// Weights by strides of any sign: tap t of input channel c for output channel k of group g.
struct Filter {
  const void* data;
  Index group, output, input, tap[kSpatial];
};

struct TileSum {
  SumAxis axis[kSpatial];
  Filter filter;
  Index groups, group_inputs, group_outputs, samples;
  FusedMap map;

  Index positions() const { return samples * axis[0].out * axis[1].out * axis[2].out; }  // of all samples
};

// Whether a problem has zero padding and sizes of 32 bits.
bool fits_tiles(const ConvProblem& problem);
// Whether tiles serve it: there is enough of each for one to pay. It does not depend on the number of samples, so
// neither do a sample's bits.
bool tiles_serve(const ConvProblem& problem, Index inputs, Index outputs);

// The sum of a forward pass, but for its weights.
TileSum forward_sum(const ConvProblem& problem);

// Whether some output's sum has a tap in the padding.
bool reads_padding(const TileSum& sum);

// The input of one or several sums: as it is, and for tensor cores, where they serve.
struct TileInput {
  ArrayView plain, packed;
};
TileInput tile_input(const Queue& queue, const ArrayView& x, Index groups);

// y = map(sum + bias); views are canonical, y may be every so many elements of an array.
void conv_tiles(const Queue& queue, const TileSum& sum, const TileInput& x, const ArrayView& bias, const ArrayView& y);

// The same without tiles, where channels are few.
void conv_strips(const Queue& queue, const TileSum& sum, const ArrayView& x, const ArrayView& bias, const ArrayView& y);

// The weight's gradient, in tiles of weights: sums over the positions, which are split into runs, each in one order.
void conv_weight_tiles(const Queue& queue, const TileSum& sum, const ArrayView& grad_output, const ArrayView& x,
                       const ArrayView& grad_weight);

// The same of a depthwise convolution.
bool depthwise_weight_serves(const ConvProblem& problem);
void conv_depthwise_weight(const Queue& queue, const TileSum& sum, const ArrayView& grad_output, const ArrayView& x,
                           const ArrayView& grad_weight);

}  // namespace cuda
}  // namespace fastconv
