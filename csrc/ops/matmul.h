// Products of two matrices, on the kernels of convolution: fully connected layers, and convolutions that are one.
#pragma once

#include "core/array_view.h"
#include "ops/finish.h"

namespace fastconv {

// A matrix by the steps between its rows and between its columns.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::int64_t row = 0, column = 0;

  T* at(std::int64_t r, std::int64_t c) const { return data + r * row + c * column; }
};

// c = a b + bias: a of rows x depth, b of depth x columns; the bias has a contiguous value a column, or is null. The
// sum of one result runs along the depth in blocks, as a convolution's over its channels does, whatever the rows.
template <class S>
struct MatrixProduct {
  std::int64_t rows = 0, columns = 0, depth = 0;
  Matrix<const S> a, b;
  Matrix<S> c;
  const Compute<S>* bias = nullptr;
  Finish<Compute<S>> finish;
};

template <class S>
void multiply(const MatrixProduct<S>& product);

}  // namespace fastconv
