// Batch norm over canonical views (N, C, D, H, W): statistics, the normalised values, and the gradients. Sums are cut
// into blocks by the shape alone and combined in one order, so the number of threads never shows.
#pragma once

#include "core/array_view.h"

namespace fastconv {

// How the result lies in memory: the positions of a channel together, or the channels of a position.
enum class ChannelLayout { planes, rows };

// Mean and sum of squares around it, per channel (`mean`, `squares` have C entries), over all samples and positions.
void channel_moments(const ArrayView& x, ChannelLayout layout, double* mean, double* squares);

// y = (x - mean) * scale + shift, all with C entries; y is dense in `layout`.
void normalise(const ArrayView& x, const ArrayView& y, ChannelLayout layout, const double* mean, const double* scale,
               const double* shift);

// Per channel the sums of grad_output and of grad_output * (x - mean).
void channel_products(const ArrayView& grad_output, const ArrayView& x, ChannelLayout layout, const double* mean,
                      double* sum, double* dot);

// grad_input = grad_output * scale + (x - mean) * slope + shift; with a null slope it is grad_output * scale.
void normalise_backward(const ArrayView& grad_output, const ArrayView& x, const ArrayView& grad_input,
                        ChannelLayout layout, const double* mean, const double* scale, const double* slope,
                        const double* shift);

}  // namespace fastconv
