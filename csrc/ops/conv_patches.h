// Windows that follow each other without gaps or overlap, as in the first layer of a vision transformer, between the
// stages of ConvNeXt, or the transposed convolutions of a U-Net: what an output reads, its patch, is read by no other,
// and the convolution is a product of the patches, laid out as the rows of a matrix, with the weights.
#pragma once

#include "ops/conv.h"

namespace fastconv {

// As conv_forward and conv_backward_input; false where the windows are not such, or a product would not pay.
bool forward_by_patches(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                        const ArrayView& output, const Epilogue& epilogue);
bool backward_input_by_patches(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                               const ArrayView& bias, const ArrayView& grad_input);

}  // namespace fastconv
