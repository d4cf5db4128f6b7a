// Operands as tensor cores read them: 16-bit numbers, eight channels of one group to a piece of 16 bytes, zeros where a
// group has no such channel.
#pragma once

#include "cuda/conv/tiles.h"

namespace fastconv {
namespace cuda {

constexpr int kPiece = 8;  // channels

inline Index packed_channels(Index channels) { return (channels + kPiece - 1) / kPiece * kPiece; }

// An image whose groups have `packed_channels` channels each, next to each other in memory: x itself where it is so,
// otherwise scratch memory.
ArrayView pack_image(const Queue& queue, const ArrayView& x, Index groups);

// A number that is not 0 once an infinite or NaN number has been seen, in the device's memory.
int* new_flag(const Queue& queue);

// Weights as (group, output channel, tap, packed channel); `flag`, if any, is raised for such numbers among them.
const void* pack_filter(const Queue& queue, const TileSum& sum, Dtype dtype, int* flag);

// Raises the flag for such numbers in x.
void look_for_odd(const Queue& queue, const ArrayView& x, int* flag);

}  // namespace cuda
}  // namespace fastconv
