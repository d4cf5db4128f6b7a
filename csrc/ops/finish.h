// What happens to the sums of a forward pass before they are stored.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/map.h"
#include "cpu/eltwise/kernels.h"
#include "cpu/norm/kernels.h"
#include "ops/norm.h"

namespace fastconv {

struct Activation {
  Map map;
  double parameter;
};

// y = map((sum - mean) * scale + shift): a norm of the channels by known statistics, one number a channel, and an
// elementwise map. Each may be absent, the norm as empty vectors.
struct Epilogue {
  std::vector<double> mean, scale, shift;
  std::optional<Activation> activation;
};

// The same in the dtype of the sums. A norm's arithmetic is that of `normalise`, so a convolution that ends with one
// gives the same bits as the two one after the other.
template <class T>
class Finish {
 public:
  Finish() = default;

  explicit Finish(const Epilogue& epilogue) {
    rectifies_ = epilogue.activation && epilogue.activation->map == Map::relu;
    if (!epilogue.scale.empty() || rectifies_) kernel_ = &choose_batch_norm(DtypeOf<T>::value, active_isa_mask());
    if (!epilogue.scale.empty()) {
      const std::vector<double> shift = compensated_shift<T>(epilogue.mean, epilogue.scale, epilogue.shift);
      mean_.assign(epilogue.mean.begin(), epilogue.mean.end());
      scale_.assign(epilogue.scale.begin(), epilogue.scale.end());
      shift_.assign(shift.begin(), shift.end());
    }
    if (epilogue.activation && !rectifies_) {
      const ActivationKernel& kernel = choose_activation(DtypeOf<T>::value, active_isa_mask());
      map_ = kernel.maps[static_cast<int>(epilogue.activation->map)];
      parameter_ = epilogue.activation->parameter;
    }
  }

  // Whether it is more than adding a bias.
  bool changes() const { return kernel_ || map_; }

  // `positions` rows of `channels` values side by side, `ld` from row to row, from channel `channel` on. The bias is of
  // all channels, or null.
  void rows(T* values, std::int64_t ld, std::int64_t positions, std::int64_t channel, std::int64_t channels,
            const T* bias) const {
    if (kernel_)
      kernel_->row_finish(values, ld, positions, channels,
                          {bias ? bias + channel : nullptr, from(channel), rectifies_});
    for (std::int64_t p = 0; p < positions; ++p) {
      T* const row = values + p * ld;
      for (std::int64_t c = 0; bias && !kernel_ && c < channels; ++c) row[c] += bias[channel + c];
      if (map_) map_(row, nullptr, row, channels, parameter_);
    }
  }

  // `channels` planes of `positions` values side by side, which hold their bias.
  void planes(T* values, std::int64_t ld, std::int64_t channel, std::int64_t channels, std::int64_t positions) const {
    if (kernel_) kernel_->plane_finish(values, ld, channels, positions, {nullptr, from(channel), rectifies_});
    for (std::int64_t c = 0; map_ && c < channels; ++c)
      map_(values + c * ld, nullptr, values + c * ld, positions, parameter_);
  }

 private:
  NormCoefficients from(std::int64_t channel) const {
    if (scale_.empty()) return {};
    return {mean_.data() + channel, scale_.data() + channel, shift_.data() + channel, nullptr};
  }

  const BatchNormKernel* kernel_ = nullptr;  // where there is a norm or a ReLU
  std::vector<T> mean_, scale_, shift_;
  bool rectifies_ = false;
  MapFunction map_ = nullptr;
  double parameter_ = 0;
};

}  // namespace fastconv
