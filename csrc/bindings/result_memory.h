// Memory of large results. The C library gives arrays beyond some 32 MB back to the system when they are freed, and
// every page of a fresh one is a fault: to write it can take half as long again as the work. So a few freed ones are
// kept for the next results of about their size.
#pragma once

#include <pybind11/numpy.h>

#include <vector>

namespace fastconv {

// From here on arrays are kept; smaller ones the C library keeps itself.
constexpr pybind11::ssize_t kLargeResult = pybind11::ssize_t{32} << 20;

// An array of that shape, which has so many bytes; without values.
pybind11::array large_array(const pybind11::dtype& dtype, const std::vector<pybind11::ssize_t>& shape,
                            pybind11::ssize_t bytes);

}  // namespace fastconv
