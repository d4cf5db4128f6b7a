// Writing what is computed in Compute<S> to an array of S: in place, or through a buffer that is then rounded.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "cpu/workspace.h"

namespace fastconv {

// Calls write(pointer, stride) for `count` runs of a result, `stride` elements apart: for the result itself where
// nothing is rounded, else for a dense buffer.
template <class S, class Write>
void write_runs(S* result, std::int64_t stride, std::int64_t count, std::int64_t length, Write&& write) {
  if constexpr (is_wide<S>) {
    write(result, stride);
  } else {
    Workspace<Compute<S>> buffer(count * length);
    write(buffer.data(), length);
    if (stride == length) {
      length *= count;
      count = 1;
    }
    for (std::int64_t i = 0; i < count; ++i) narrow_run(buffer + i * length, result + i * stride, length);
  }
}

}  // namespace fastconv
