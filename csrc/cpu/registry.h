// Every op's kernel rows seen as one list: tests and benchmarks walk it, and can force any row by name.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/precision.h"
#include "cpu/isa.h"

namespace fastconv {

// What every kernel row starts with; an op's row type derives from it and adds its function pointers and tile.
struct KernelInfo {
  const char* op;
  const char* name;
  Isa isa;
  Dtype dtype;
  int tile_rows;
  int tile_cols;
  Precision level = Precision::highest;  // of float32 results
};

std::vector<KernelInfo> kernel_table();
void register_kernels(std::vector<KernelInfo> (*list)());

// The row every later choice must take if it is eligible by op and dtype; empty: free choice.
void force_kernel(const std::string& name);
std::string forced_kernel();

void count_kernel(const KernelInfo& kernel);
std::map<std::string, std::int64_t> kernel_counts();
void reset_kernel_counts();

// The first eligible row of `rows` from the best level in `mask` down. A forced row wins if its op and dtype fit.
template <class Row, class Eligible>
const Row& find_kernel(const std::vector<const Row*>& rows, Dtype dtype, IsaMask mask, Eligible&& eligible) {
  const std::string forced = forced_kernel();
  const Row* best = nullptr;
  for (const Row* row : rows) {
    if (row->dtype != dtype || !(mask & isa_bit(row->isa))) continue;
    if (!forced.empty() && forced == row->name) {
      best = row;
      break;
    }
    if (eligible(*row) && (!best || row->isa > best->isa)) best = row;
  }
  if (!best) fail("no kernel of the instruction sets in use serves this dtype");
  return *best;
}

// The same for a kernel that will run: tests ask which ones did.
template <class Row, class Eligible>
const Row& choose_kernel(const std::vector<const Row*>& rows, Dtype dtype, IsaMask mask, Eligible&& eligible) {
  const Row& row = find_kernel(rows, dtype, mask, eligible);
  count_kernel(row);
  return row;
}

}  // namespace fastconv
