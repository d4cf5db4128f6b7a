// Reading an image batch as planes or as rows: in place where its strides allow it, else through a buffer, as 16-bit
// data always are, and widened there.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/array_view.h"
#include "cpu/eltwise/kernels.h"

namespace fastconv {

template <class S>
class ChannelImage {
 public:
  using T = Compute<S>;

  // A run of planes or rows: `count` of them, `stride` elements apart.
  struct Run {
    const T* data;
    std::int64_t stride;
  };

  explicit ChannelImage(const View<S>& view) : view_(view) {
    const std::int64_t* shape = view_.shape;
    const std::int64_t* stride = view_.stride;
    positions_ = shape[2] * shape[3] * shape[4];
    // The step between positions if one step serves all of them.
    bool uniform = true;
    step_ = 1;
    std::int64_t inside = 1;  // positions within one index of the axis at hand
    for (int i = kRank - 1; i >= 2; --i) {
      if (shape[i] == 1) continue;
      if (inside == 1) step_ = stride[i];
      uniform = uniform && stride[i] == inside * step_;
      inside *= shape[i];
    }
    uniform_ = uniform;
    planes_in_place_ = is_wide<S> && uniform && (positions_ == 1 || step_ == 1);
    const bool dense_channels = shape[1] == 1 || stride[1] == 1;
    // One step between rows, within and across samples.
    row_step_ = positions_ == 1 ? stride[0] : step_;
    dense_rows_ = dense_channels && uniform;
    samples_follow_ = positions_ == 1 || shape[0] == 1 || stride[0] == positions_ * step_;
  }

  // Of what is read, only values are left where `y`, an image of the same shape that is read in place, is positive:
  // the gradient of a ReLU whose result it is. `map`: Map::relu_backward.
  void rectify_by(const ChannelImage& y, MapFunction map) {
    rectified_ = &y;
    relu_backward_ = map;
  }

  std::int64_t samples() const { return view_.shape[0]; }
  std::int64_t channels() const { return view_.shape[1]; }
  std::int64_t positions() const { return positions_; }
  std::int64_t rows() const { return samples() * positions_; }
  bool planes_in_place() const { return planes_in_place_ && !rectified_; }
  // Whether rows can be read where they are; `packed` asks that nothing lies between them, `samples` that they are of
  // more than one sample.
  bool rows_in_place(bool packed, bool samples) const { return dense_rows(packed, samples) && !rectified_; }

  // The positions [begin, begin + length) of channel c of `count` samples from n on.
  Run sample_planes(std::int64_t n, std::int64_t count, std::int64_t c, std::int64_t begin, std::int64_t length,
                    T* buffer) const {
    const Run run = plain_planes(n, count, c, begin, length, buffer, 1, 0);
    if (!rectified_) return run;
    return rectified(run, rectified_->plain_planes(n, count, c, begin, length, nullptr, 1, 0), count, length, buffer);
  }

  // The positions [begin, begin + length) of `count` channels of sample n from c on.
  Run channel_planes(std::int64_t n, std::int64_t c, std::int64_t count, std::int64_t begin, std::int64_t length,
                     T* buffer) const {
    const Run run = plain_planes(n, count, c, begin, length, buffer, 0, 1);
    if (!rectified_) return run;
    return rectified(run, rectified_->plain_planes(n, count, c, begin, length, nullptr, 0, 1), count, length, buffer);
  }

  // The channels [c, c + columns) of `count` rows from `row` on; a row is a position of a sample.
  Run row_block(std::int64_t row, std::int64_t count, std::int64_t c, std::int64_t columns, bool packed,
                T* buffer) const {
    const Run run = plain_rows(row, count, c, columns, packed, buffer);
    if (!rectified_) return run;
    return rectified(run, rectified_->plain_rows(row, count, c, columns, false, nullptr), count, columns, buffer);
  }

 private:
  bool dense_rows(bool packed, bool samples) const {
    return is_wide<S> && dense_rows_ && (!packed || row_step_ == channels()) && (!samples || samples_follow_);
  }

  Run rectified(const Run& run, const Run& y, std::int64_t count, std::int64_t length, T* buffer) const {
    const bool joined = run.stride == length && y.stride == length;
    const std::int64_t pieces = joined ? 1 : count, piece = joined ? count * length : length;
    for (std::int64_t i = 0; i < pieces; ++i)
      relu_backward_(run.data + i * run.stride, y.data + i * y.stride, buffer + i * length, piece, 0);
    return {buffer, length};
  }

  // `count` planes: of samples from n on, or of channels from c on.
  Run plain_planes(std::int64_t n, std::int64_t count, std::int64_t c, std::int64_t begin, std::int64_t length,
                   T* buffer, std::int64_t next_sample, std::int64_t next_channel) const {
    if constexpr (is_wide<S>)
      if (planes_in_place_)
        return {plane(n, c) + begin, next_sample * view_.stride[0] + next_channel * view_.stride[1]};
    for (std::int64_t i = 0; i < count; ++i)
      gather(n + i * next_sample, c + i * next_channel, begin, length, buffer + i * length, 1);
    return {buffer, length};
  }

  Run plain_rows(std::int64_t row, std::int64_t count, std::int64_t c, std::int64_t columns, bool packed,
                 T* buffer) const {
    if constexpr (is_wide<S>)
      if (dense_rows(packed, row / positions_ != (row + count - 1) / positions_))
        return {row_at(row / positions_, c, row % positions_), row_step_};
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t n = (row + done) / positions_, begin = (row + done) % positions_;
      const std::int64_t some = std::min(positions_ - begin, count - done);
      if (dense_rows_) {
        for (std::int64_t i = 0; i < some; ++i)
          widen_run(row_at(n, c, begin + i), buffer + (done + i) * columns, columns);
      } else {
        for (std::int64_t i = 0; i < columns; ++i) gather(n, c + i, begin, some, buffer + done * columns + i, columns);
      }
      done += some;
    }
    return {buffer, columns};
  }

  const S* plane(std::int64_t n, std::int64_t c) const {
    return view_.data + n * view_.stride[0] + c * view_.stride[1];
  }
  const S* row_at(std::int64_t n, std::int64_t c, std::int64_t position) const {
    return plane(n, c) + (positions_ == 1 ? 0 : position * step_);
  }

  void gather(std::int64_t n, std::int64_t c, std::int64_t begin, std::int64_t length, T* to, std::int64_t step) const {
    const S* base = plane(n, c);
    if (uniform_) {
      copy_run(base + begin * step_, step_, to, step, length);
      return;
    }
    const std::int64_t height = view_.shape[3], width = view_.shape[4];
    std::int64_t w = begin % width, h = begin / width % height, d = begin / width / height;
    for (std::int64_t done = 0; done < length;) {
      const std::int64_t some = std::min(width - w, length - done);
      copy_run(base + d * view_.stride[2] + h * view_.stride[3] + w * view_.stride[4], view_.stride[4],
               to + done * step, step, some);
      done += some;
      w = 0;
      if (++h == height) {
        h = 0;
        ++d;
      }
    }
  }

  static void copy_run(const S* from, std::int64_t from_step, T* to, std::int64_t to_step, std::int64_t count) {
    if (from_step == 1 && to_step == 1) {
      widen_run(from, to, count);
    } else {
      for (std::int64_t i = 0; i < count; ++i) to[i * to_step] = widen(from[i * from_step]);
    }
  }

  View<S> view_;
  const ChannelImage* rectified_ = nullptr;
  MapFunction relu_backward_ = nullptr;
  std::int64_t positions_, step_, row_step_;
  bool uniform_, planes_in_place_, dense_rows_, samples_follow_;
};

}  // namespace fastconv
