#include "ops/conv_patches.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "core/arithmetic.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/conv_matrices.h"

namespace fastconv {
namespace {

constexpr std::int64_t kElements = 256 << 10;  // of the patches that are laid out at a time,
constexpr std::int64_t kRows = 512;            // but as many rows as make packing the weights cheap,
constexpr std::int64_t kPart = 4;              // in such a part of the memory of a call,
constexpr std::int64_t kWeightPart = 2;        // while weights may take this one
constexpr std::int64_t kLeastOutputs = 8, kLeastPatch = 8;
constexpr std::int64_t kFewChannels = 8;  // of which tiles of each tap would be packed for little work
constexpr std::int64_t kLongRun = 4;      // taps of a channel that are worth a copy

bool windows_are_patches(const ConvShape& shape, const ArrayView& image, const ArrayView& output) {
  std::int64_t taps = 1;
  for (int axis = 0; axis < kSpatial; ++axis) {
    const Window& window = shape.window[axis];
    if (window.stride != window.kernel || (window.dilation != 1 && window.kernel > 1) || window.pad_before != 0 ||
        window.pad_after != 0 || image.extent(axis) != output.extent(axis) * window.kernel)
      return false;
    taps *= window.kernel;
  }
  return shape.groups == 1 && taps > 1 && output.shape[1] >= kLeastOutputs && image.shape[1] * taps >= kLeastPatch;
}

// Patches of an image of elements of type S. Their numbers are in the order that is the cheaper to copy, the weights
// are brought into the same.
template <class S>
class Patches {
 public:
  Patches(const ConvShape& shape, const ArrayView& image, const ArrayView& weight, const ArrayView& output)
      : image_(image), output_(output), by_taps_(image.stride[1] == 1 && image.shape[1] > 1) {
    for (int axis = 0; axis < kSpatial; ++axis) {
      kernel_[axis] = shape.window[axis].kernel;
      taps_ *= kernel_[axis];
    }
    channels_ = image.shape[1];
    patch_ = channels_ * taps_;
    point_.precision = shape.precision;
    width_ = output.extent(2);
    lines_ = output.shape[0] * output.extent(0) * output.extent(1);
    // Positions in one line, through all samples or those of one.
    together_ = one_line(output, kSamplesAndPositions, step_);
    serves_ = together_ || one_line(output, kPositions, step_);
    const std::int64_t most = std::min(std::max(kRows, kElements / patch_), kMostElements<S> / kPart / patch_);
    at_once_ = most / width_;
    serves_ = serves_ && at_once_ > 0 && lay_out(weight);
  }

  bool serves() const { return serves_; }

  // Calls body(patches, weight, outputs) for some rows after the others, of a convolution with windows of one element.
  // The patches are those of the image before it is called, or become those of the image after it.
  template <class Body>
  void for_each_run(bool reads, Body&& body) const {
    const std::int64_t run = together_ ? lines_ : output_.extent(0) * output_.extent(1);
    Workspace<S> memory(std::min(run, at_once_) * width_ * patch_);
    for (std::int64_t first = 0; first < lines_;) {
      const std::int64_t count = std::min(at_once_, run - first % run), rows = count * width_;
      const ArrayView patches = matrix_view(memory.data(), rows, patch_, patch_, 1);
      const std::int64_t at =
          together_ ? first * width_ * step_ : first / run * output_.stride[0] + first % run * width_ * step_;
      const ArrayView outputs =
          matrix_view(static_cast<S*>(output_.data) + at, rows, output_.shape[1], step_, output_.stride[1]);
      if (reads) copy(first, count, memory, [](S* patch, const S* own, std::int64_t n) { move(own, patch, n); });
      body(point_, patches, weight_, outputs);
      if (!reads) copy(first, count, memory, [](const S* patch, S* own, std::int64_t n) { move(patch, own, n); });
      first += count;
    }
  }

  // A number of each channel for each of a patch.
  std::vector<S> of_patch(const S* of_channel) const {
    std::vector<S> values;
    for (std::int64_t i = 0; i < patch_; ++i) values.push_back(of_channel[by_taps_ ? i % channels_ : i / taps_]);
    return values;
  }

 private:
  static void move(const S* from, S* to, std::int64_t count) {
    std::memcpy(to, from, sizeof(S) * static_cast<std::size_t>(count));
  }

  // The weights of an output as a row, in place if they lie so; false where a copy would be too large.
  bool lay_out(const ArrayView& weight) {
    const View<S> w = weight.as<S>();
    const std::int64_t plane = kernel_[1] * kernel_[2], element = by_taps_ ? channels_ : 1;
    const bool lies = w.stride[1] == (by_taps_ ? 1 : taps_) && taps_in_a_row(kernel_, w.stride + 2, element);
    if (!lies && w.shape[0] * patch_ > kMostElements<S> / kWeightPart) return false;
    if (!lies) own_.emplace(w.shape[0] * patch_);
    weight_ = matrix_view(lies ? w.data : own_->data(), w.shape[0], patch_, lies ? w.stride[0] : patch_, 1);
    if (lies) return true;
    parallel_for({w.shape[0], static_cast<double>(w.shape[0] * patch_)}, Subnormals::keep, [&](std::int64_t k) {
      S* const row = own_->data() + k * patch_;
      for (std::int64_t t = 0; t < taps_; ++t) {
        const S* from = w.data + k * w.stride[0] + t / plane * w.step(0) + t / kernel_[2] % kernel_[1] * w.step(1) +
                        t % kernel_[2] * w.step(2);
        for (std::int64_t c = 0; c < channels_; ++c)
          row[by_taps_ ? t * channels_ + c : c * taps_ + t] = from[c * w.stride[1]];
      }
    });
    return true;
  }

  // Calls run(in the patch, in the image, numbers) for the runs of all patches of `count` lines of outputs.
  template <class Run>
  void copy(std::int64_t first, std::int64_t count, S* memory, Run&& run) const {
    const View<S> image = image_.as<S>();
    const std::int64_t heights = output_.extent(1), depths = output_.extent(0);
    const bool dense = image.step(2) == (by_taps_ ? channels_ : 1);
    parallel_for({count, 0.5 * static_cast<double>(count * width_ * patch_)}, Subnormals::keep, [&](std::int64_t i) {
      const std::int64_t line = first + i, h = line % heights, d = line / heights % depths, n = line / heights / depths;
      S* const patches = memory + i * width_ * patch_;
      for (std::int64_t a = 0; a < kernel_[0]; ++a)
        for (std::int64_t b = 0; b < kernel_[1]; ++b) {
          S* const row = image.data + n * image.stride[0] + (d * kernel_[0] + a) * image.step(0) +
                         (h * kernel_[1] + b) * image.step(1);
          const std::int64_t tap = (a * kernel_[1] + b) * kernel_[2];
          if (by_taps_) copy_row(patches + tap * channels_, row, kernel_[2], channels_, image.step(2), dense, run);
          for (std::int64_t c = 0; c < channels_ && !by_taps_; ++c)
            copy_row(patches + c * taps_ + tap, row + c * image.stride[1], kernel_[2], 1, image.step(2), dense, run);
        }
    });
  }

  // A row of the image: `taps` elements of `length` numbers for each patch.
  template <class Run>
  void copy_row(S* patch, S* row, std::int64_t taps, std::int64_t length, std::int64_t step, bool dense,
                Run&& run) const {
    for (std::int64_t w = 0; w < width_; ++w, patch += patch_)
      if (dense)
        run(patch, row + w * taps * length, taps * length);
      else
        for (std::int64_t j = 0; j < taps; ++j) run(patch + j * length, row + (w * taps + j) * step, length);
  }

  const ArrayView &image_, &output_;
  const bool by_taps_;  // the channels of a tap side by side, not the taps of a channel
  ConvShape point_;
  std::int64_t kernel_[kSpatial], taps_ = 1, channels_ = 1, patch_ = 1;
  std::optional<Workspace<S>> own_;  // of weights that are brought into order
  ArrayView weight_;
  std::int64_t width_ = 1, lines_ = 1, step_ = 1, at_once_ = 1;
  bool together_ = false, serves_ = false;
};

}  // namespace

bool forward_by_patches(const ConvShape& shape, const ArrayView& input, const ArrayView& weight, const ArrayView& bias,
                        const ArrayView& output, const Epilogue& epilogue) {
  const bool pays = input.stride[1] == 1 && input.shape[1] <= kFewChannels;
  if (!pays || !windows_are_patches(shape, input, output)) return false;
  return dispatch_storage(input.dtype, [&](auto zero) {
    const Patches<decltype(zero)> patches(shape, input, weight, output);
    if (!patches.serves()) return false;
    patches.for_each_run(true, [&](const ConvShape& point, const ArrayView& x, const ArrayView& w, const ArrayView& y) {
      conv_forward(point, x, w, bias, y, epilogue);
    });
    return true;
  });
}

bool backward_input_by_patches(const ConvShape& shape, const ArrayView& grad_output, const ArrayView& weight,
                               const ArrayView& bias, const ArrayView& grad_input) {
  const bool pays =
      grad_input.stride[1] == 1 || (grad_input.shape[1] <= kFewChannels && shape.window[2].kernel >= kLongRun);
  if (!pays || !windows_are_patches(shape, grad_input, grad_output)) return false;
  return dispatch_storage(grad_input.dtype, [&](auto zero) {
    using S = decltype(zero);
    const Patches<S> patches(shape, grad_input, weight, grad_output);
    if (!patches.serves()) return false;
    std::vector<S> biases;
    ArrayView of_patch = bias;
    if (bias) {
      biases = patches.of_patch(static_cast<const S*>(bias.data));
      of_patch.data = biases.data();
      of_patch.shape[1] = static_cast<std::int64_t>(biases.size());
    }
    patches.for_each_run(false, [&](const ConvShape& point, const ArrayView& gx, const ArrayView& w,
                                    const ArrayView& gy) { conv_backward_input(point, gy, w, of_patch, gx); });
    return true;
  });
}

}  // namespace fastconv
