// The loop of cpu/peak/kernels.h over a register type; included by ISA files only.
#pragma once

#include "cpu/peak/kernels.h"

namespace fastconv {
namespace {

// x <- a x + b with |a| < 1 goes to b / (1 - a): no chain overflows or becomes subnormal, however long it runs.
template <class T>
double multiply_add_chains(int64_t steps) {
  using V = Reg<T>;
  volatile T factors[2] = {T(0.75), T(0.25)};  // values that the compiler cannot compute with
  const V a = V::broadcast(factors[0]), b = V::broadcast(factors[1]);
  V chain[kPeakChains];
  for (int i = 0; i < kPeakChains; ++i) chain[i] = V::broadcast(T(i));
  for (int64_t step = 0; step < steps; ++step)
    for (int i = 0; i < kPeakChains; ++i) chain[i] = V::fma(chain[i], a, b);
  double sum = 0;
  for (int i = 0; i < kPeakChains; ++i) sum += double(chain[i].sum());
  return sum;
}

template <class T>
constexpr PeakKernel peak_row(const char* name, Isa isa) {
  return PeakKernel{{"peak", name, isa, DtypeOf<T>::value, kPeakChains, Reg<T>::width}, &multiply_add_chains<T>};
}

}  // namespace
}  // namespace fastconv
