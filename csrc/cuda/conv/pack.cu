#include "cuda/conv/pack.h"

#include "cuda/dev_half.h"
#include "cuda/index.h"
#include "cuda/launch.h"
#include "cuda/odometer.h"

namespace fastconv {
namespace cuda {
namespace {

template <class S>
struct alignas(sizeof(S) * kPiece) Piece {
  S channel[kPiece];
};

// `count` channels of a group, from `from` on.
template <class S>
FASTCONV_DEVICE Piece<S> gathered(const S* from, Index stride, Index count) {
  Piece<S> piece{};
  FASTCONV_UNROLL
  for (int i = 0; i < kPiece; ++i)
    if (i < count) piece.channel[i] = from[i * stride];
  return piece;
}

template <class S>
FASTCONV_DEVICE bool is_odd(S value) {
  const float wide = dev::wide(value);
  return !(wide - wide == 0);
}

// One thread a piece; `pieces` walks over them as if they were channels.
template <class S>
__global__ void image_kernel(View<const S> x, Walk pieces, Index count, Index group_pieces, Index group_channels,
                             View<Piece<S>> packed) {
  for (Index i = dev::first(); i < count; i += dev::step()) {
    Position at = pieces.at(i);
    Piece<S>* to = packed.data + offset_of(packed, at);
    const Index group = at.c / group_pieces, first = at.c % group_pieces * kPiece;
    at.c = group * group_channels + first;
    *to = gathered(x.data + offset_of(x, at), x.stride[1], group_channels - first);
  }
}

// `inner`: taps of two axes and pieces of a group's channels, below all taps and output channels.
template <class S>
__global__ void filter_kernel(TileSum sum, Odometer extent, Index count, Piece<S>* packed, int* flag) {
  const Filter& filter = sum.filter;
  bool odd = false;
  for (Index i = dev::first(); i < count; i += dev::step()) {
    const Odometer step = Odometer::at(i, extent.digit);
    const Index tap = step.high % sum.axis[0].taps, output = step.high / sum.axis[0].taps;
    const Index first = static_cast<Index>(step.digit[2]) * kPiece;
    const Index offset = output / sum.group_outputs * filter.group + output % sum.group_outputs * filter.output +
                         tap * filter.tap[0] + step.digit[0] * filter.tap[1] + step.digit[1] * filter.tap[2];
    const Piece<S> piece = gathered(static_cast<const S*>(filter.data) + offset + first * filter.input, filter.input,
                                    sum.group_inputs - first);
    FASTCONV_UNROLL
    for (int k = 0; k < kPiece; ++k) odd = odd || is_odd(piece.channel[k]);
    packed[i] = piece;
  }
  if (odd && flag) *flag = 1;
}

template <class S>
__global__ void odd_kernel(View<const S> x, Walk walk, Index count, int* flag) {
  bool odd = false;
  for (Index i = dev::first(); i < count; i += dev::step()) odd = odd || is_odd(x.data[offset_of(x, walk.at(i))]);
  if (odd) *flag = 1;
}

__global__ void lower_flag_kernel(int* flag) { *flag = 0; }

bool is_packed(const ArrayView& x, Index groups) {
  bool fits = x.stride[1] == 1 && x.shape[1] / groups % kPiece == 0;
  fits = fits && reinterpret_cast<std::uintptr_t>(x.data) % (2 * kPiece) == 0;
  for (int i = 0; i < kRank; ++i) fits = fits && (i == 1 || x.stride[i] % kPiece == 0);
  return fits;
}

// Calls f with a value of one of the two 16-bit types.
template <class F>
void dispatch_half(Dtype dtype, F&& f) {
  if (dtype == Dtype::f16)
    f(Float16{});
  else
    f(BFloat16{});
}

}  // namespace

ArrayView pack_image(const Queue& queue, const ArrayView& x, Index groups) {
  if (is_packed(x, groups)) return x;
  const Index group_channels = x.shape[1] / groups, group_pieces = packed_channels(group_channels) / kPiece;
  ArrayView packed = x;
  packed.shape[1] = groups * group_pieces;  // of pieces
  packed.stride[1] = 1;
  Index size = packed.shape[1];
  for (const int axis : {4, 3, 2, 0}) {
    packed.stride[axis] = size;
    size *= packed.shape[axis];
  }
  packed.data = queue.scratch(static_cast<std::size_t>(size) * 2 * kPiece);
  Walk pieces = walk_of(x);
  pieces.channels = packed.shape[1];
  dispatch_half(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(size), image_kernel<S>, x.as<const S>(), pieces, size, group_pieces, group_channels,
           packed.as<Piece<S>>());
  });
  packed.shape[1] *= kPiece;
  for (int axis = 0; axis < kRank; ++axis)
    if (axis != 1) packed.stride[axis] *= kPiece;
  return packed;
}

int* new_flag(const Queue& queue) {
  int* flag = static_cast<int*>(queue.scratch(sizeof(int)));
  launch(queue, {1, 32, 0}, lower_flag_kernel, flag);
  return flag;
}

const void* pack_filter(const Queue& queue, const TileSum& sum, Dtype dtype, int* flag) {
  const int pieces = static_cast<int>(packed_channels(sum.group_inputs) / kPiece);
  Odometer extent{0, {sum.axis[1].taps, sum.axis[2].taps, pieces}};
  const Index count = sum.groups * sum.group_outputs * sum.axis[0].taps * sum.axis[1].taps * sum.axis[2].taps * pieces;
  void* packed = queue.scratch(static_cast<std::size_t>(std::max<Index>(count, 1)) * 2 * kPiece);
  if (count == 0) return packed;  // a phase without taps
  dispatch_half(dtype, [&](auto zero) {
    using S = decltype(zero);
    launch(queue, grid_of(count), filter_kernel<S>, sum, extent, count, static_cast<Piece<S>*>(packed), flag);
  });
  return packed;
}

void look_for_odd(const Queue& queue, const ArrayView& x, int* flag) {
  const Index count = x.size();
  if (count == 0) return;
  dispatch_half(x.dtype, [&](auto zero) {
    using S = decltype(zero);
    const Index threads = std::min<Index>(count, Index{1} << 18);  // each looks at several
    launch(queue, grid_of(threads), odd_kernel<S>, x.as<const S>(), walk_of(x), count, flag);
  });
}

}  // namespace cuda
}  // namespace fastconv
