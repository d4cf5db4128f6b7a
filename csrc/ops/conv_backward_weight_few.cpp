// Weight gradient where there are few outputs: what the window of each reads, laid out as a row of weights, and a
// product of matrices, grad_weight[k][c, t] = sum over outputs o of grad_output[o][k] * row[o][c, t]. Blocks of sums
// that each of a few outputs is added to would pass through the memory again and again, and be brought into the
// weight's order at the end; this way they are written once, where they belong.
#include <cmath>
#include <limits>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/registry.h"
#include "cpu/workspace.h"
#include "ops/conv_gather.h"
#include "ops/conv_matrices.h"
#include "ops/conv_pack.h"
#include "ops/conv_tiles.h"

namespace fastconv {
namespace {

constexpr std::int64_t kPart = 4;            // the part of a call's memory that the rows may take
constexpr std::int64_t kLeastChannels = 16;  // of the output
constexpr std::int64_t kLeastRow = 64;
constexpr std::int64_t kMostOutputs = 256;
constexpr std::int64_t kTileOutputs = 32;  // that one product of tile registers sums

template <class S>
class FewOutputs {
  using T = Compute<S>;

 public:
  FewOutputs(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
             const View<S>& grad_weight)
      : gy_(grad_output),
        x_(input),
        dw_(grad_weight),
        transpose_(select_transpose(DtypeOf<T>::value, active_isa_mask())),
        outputs_(gy_.size() / gy_.shape[1]) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      phase_[axis] = forward_phases(shape.window[axis], gy_.extent(axis))[0];
      slots_[axis] = axis_slots(phase_[axis], 1, false);
      kernel_[axis] = slots_[axis].slots;
      taps_ *= kernel_[axis];
    }
    row_ = x_.shape[1] * taps_;
  }

  bool serves() const {
    const std::int64_t most = kMostElements<T> / kPart / outputs_;  // for 16-bit numbers as for float32
    return taps_ > 1 && row_ >= kLeastRow && row_ <= most && gy_.shape[1] >= kLeastChannels && gy_.shape[1] <= most &&
           (dw_.stride[1] == taps_ || dw_.shape[1] == 1) && taps_in_a_row(kernel_, dw_.stride + 2, 1);
  }

  // Laying out an output's number, beside what the other forms do with each sum: begin and store it, and read and write
  // it with each block, which has the outputs of a plane. Fitted to 490 random problems, on three instruction sets; see
  // bench/LOG.md.
  bool pays() const {
    constexpr std::int64_t kNumber = 20, kSum = 5, kAdded = 4;
    return outputs_ * kNumber < (kSum + kAdded * gy_.shape[0] * gy_.extent(0)) * gy_.shape[1];
  }

  // False where a gradient that is not finite would meet the zeros of the padding.
  bool run() const {
    const std::int64_t channels = gy_.shape[1];
    Matrix<const S> gradients{gy_.data, gy_.stride[1], 0};
    const bool in_line = one_line(gy_, kSamplesAndPositions, gradients.column);
    Workspace<S> own(in_line ? 0 : channels * outputs_), rows(outputs_ * row_);
    if (!in_line) {
      line_up_gradients(own);
      gradients = {own, outputs_, 1};
    }
    if (padded() && !finite(gradients)) return false;
    lay_out_rows(rows);
    multiply(MatrixProduct<S>{
        channels, row_, outputs_, gradients, {rows, row_, 1}, {dw_.data, dw_.stride[0], 1}, nullptr, {}});
    return true;
  }

 private:
  bool padded() const {
    for (int axis = 0; axis < kSpatial; ++axis)
      if (live_products(phase_[axis], x_.extent(axis)) < phase_[axis].out_count * kernel_[axis]) return true;
    return false;
  }

  // The outputs of each channel side by side.
  void line_up_gradients(S* to) const {
    const Work work{gy_.shape[1], static_cast<double>(outputs_ * gy_.shape[1])};
    parallel_for(work, Subnormals::keep, [&](std::int64_t k) {
      S* target = to + k * outputs_;
      for (std::int64_t n = 0; n < gy_.shape[0]; ++n)
        for (std::int64_t d = 0; d < gy_.extent(0); ++d)
          for (std::int64_t h = 0; h < gy_.extent(1); ++h) {
            const S* const row = gy_.data + n * gy_.stride[0] + k * gy_.stride[1] + d * gy_.step(0) + h * gy_.step(1);
            for (std::int64_t w = 0; w < gy_.extent(2); ++w) *target++ = row[w * gy_.step(2)];
          }
    });
  }

  void lay_out_rows(S* to) const {
    const BlockPacker<S> packer{
        x_, {&phase_[0], &phase_[1], &phase_[2]}, {&slots_[0], &slots_[1], &slots_[2]}, transpose_};
    const Work work{outputs_, static_cast<double>(outputs_ * row_)};
    parallel_for(work, Subnormals::keep, [&](std::int64_t index) {
      std::int64_t at[kSpatial], n = index;
      for (int axis = kSpatial - 1; axis >= 0; --axis) {
        at[axis] = n % gy_.extent(axis);
        n /= gy_.extent(axis);
      }
      S* const row = to + index * row_;
      if constexpr (is_wide<S>) {
        packer.pack(row, n, 0, x_.shape[1], at, 1, taps_);
      } else {
        Workspace<T> wide(row_);
        packer.pack(wide, n, 0, x_.shape[1], at, 1, taps_);
        for (std::int64_t i = 0; i < row_; ++i) row[i] = narrow(wide[i], S{});
      }
    });
  }

  bool finite(const Matrix<const S>& gradients) const {
    const bool by_channel = gradients.column == 1;  // else channels lie side by side, or one value after the other
    const std::int64_t runs = by_channel ? gy_.shape[1] : outputs_, length = by_channel ? outputs_ : gy_.shape[1];
    const std::int64_t next = by_channel ? gradients.row : gradients.column,
                       step = by_channel ? gradients.column : gradients.row;
    int bad = 0;
    for (std::int64_t i = 0; i < runs; ++i)
      for (std::int64_t j = 0; j < length; ++j)
        bad |= !(std::abs(widen(gradients.data[i * next + j * step])) <= std::numeric_limits<T>::max());
    return bad == 0;
  }

  View<const S> gy_, x_;
  View<S> dw_;
  const TransposeKernel& transpose_;
  AxisPhase phase_[kSpatial];
  AxisSlots slots_[kSpatial];
  std::int64_t kernel_[kSpatial], outputs_, taps_ = 1, row_ = 1;  // a row's numbers
};

}  // namespace

template <class S>
bool backward_weight_few(const ConvShape& shape, const View<const S>& grad_output, const View<const S>& input,
                         const View<S>& grad_weight) {
  const std::int64_t outputs = grad_output.size() / grad_output.shape[1];
  if (outputs > kMostOutputs || shape.groups != 1 || !forced_kernel().empty()) return false;
  bool forced = false;
  const bool tiles = find_tiles(DtypeOf<S>::value, shape.precision, active_isa_mask(), forced) != nullptr;
  if (tiles && outputs > kTileOutputs) return false;
  const FewOutputs<S> gradient(shape, grad_output, input, grad_weight);
  return gradient.serves() && gradient.pays() && gradient.run();
}

#define FASTCONV_FEW_FOR(S) \
  template bool backward_weight_few(const ConvShape&, const View<const S>&, const View<const S>&, const View<S>&);
FASTCONV_FEW_FOR(float)
FASTCONV_FEW_FOR(double)
FASTCONV_FEW_FOR(Float16)
FASTCONV_FEW_FOR(BFloat16)

}  // namespace fastconv
