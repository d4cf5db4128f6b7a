// Memory of results. NumPy's begins anywhere in a cache line, so that every register of 64 bytes that is stored touches
// two lines: results that leave the fastest caches begin with a line of their own. The C library gives arrays beyond
// some 32 MB back to the system when they are freed, and the end of its heap; every page of fresh memory is a fault,
// and to write it can take half as long again as the work. So freed ones are kept for the next results of about their
// size.
#pragma once

#include <pybind11/numpy.h>

#include <vector>

namespace fastconv {

// Bytes from which on results begin with a cache line, and from which on they are kept when they are freed.
constexpr pybind11::ssize_t kAlignedResult = pybind11::ssize_t{64} << 10;
constexpr std::size_t kKeptResult = std::size_t{1} << 20;

// Gives the kept memory back to the system and returns its bytes.
std::size_t release_memory();

// An array of that shape, which has so many bytes; without values.
pybind11::array result_array(const pybind11::dtype& dtype, const std::vector<pybind11::ssize_t>& shape,
                             pybind11::ssize_t bytes);

}  // namespace fastconv
