// What the lanes of a warp do together with matrices in shared memory and in each other's registers, as the PTX ISA
// defines the fragments of ldmatrix and of mma.m16n8k16.
#pragma once

#include "core/half.h"

namespace fastconv {
namespace emu {

inline std::uint16_t half_of(unsigned word, int number) {
  return static_cast<std::uint16_t>(number == 0 ? word & 0xffffU : word >> 16);
}

inline void load_matrices(const void* row, bool turned, unsigned (&words)[4], const char* file, int line) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) stop("a matrix row that is not aligned to 16 bytes");
  const unsigned char* all = exchange(&row, sizeof row, file, line);
  for (int matrix = 0; matrix < 4; ++matrix) {
    unsigned pair[2];
    for (int i = 0; i < 2; ++i) {
      int at = lane() / 4, element = lane() % 4 * 2 + i;
      if (turned) std::swap(at, element);
      const unsigned char* begin;
      std::memcpy(&begin, all + static_cast<std::size_t>(matrix * 8 + at) * kExchange, sizeof begin);
      std::uint16_t bits;
      std::memcpy(&bits, begin + element * 2, sizeof bits);
      pair[i] = bits;
    }
    words[matrix] = pair[0] | pair[1] << 16;
  }
}

template <class S>
void multiply(S, const unsigned (&a)[4], const unsigned (&b)[2], float (&sum)[4], const char* file, int line) {
  struct Fragments {
    unsigned a[4], b[2];
  };
  Fragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, all[kWarp];
  const unsigned char* bytes = exchange(&mine, sizeof mine, file, line);
  for (int i = 0; i < kWarp; ++i) std::memcpy(all + i, bytes + static_cast<std::size_t>(i) * kExchange, sizeof mine);
  // Element k of a row or a column is with the lane k / 2 % 4 of its four: half k % 2 of a word for each eight.
  float left[2][16], right[2][16];
  for (int k = 0; k < 16; ++k)
    for (int i = 0; i < 2; ++i) {
      const Fragments& row = all[lane() / 4 * 4 + k / 2 % 4];
      const Fragments& column = all[(lane() % 4 * 2 + i) * 4 + k / 2 % 4];
      left[i][k] = widen(S{half_of(row.a[k / 8 * 2 + i], k % 2)});
      right[i][k] = widen(S{half_of(column.b[k / 8], k % 2)});
    }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j)
      for (int k = 0; k < 16; ++k) sum[i * 2 + j] += left[i][k] * right[j][k];
}

}  // namespace emu
}  // namespace fastconv
