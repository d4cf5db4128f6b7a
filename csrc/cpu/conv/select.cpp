#include <algorithm>

#include "core/arithmetic.h"
#include "cpu/conv/kernels.h"
#include "cpu/conv/tile_kernels.h"

namespace fastconv {
namespace {

template <class Row>
void append(std::vector<const Row*>& rows, const Row* table, int count) {
  for (int i = 0; i < count; ++i) rows.push_back(table + i);
}

#if FASTCONV_HAVE_AVX2 && FASTCONV_HAVE_AVX512
#define FASTCONV_ALL_TABLES(Row, op)                               \
  append(rows, op##_kernels_baseline, op##_kernel_count_baseline); \
  append(rows, op##_kernels_avx2, op##_kernel_count_avx2);         \
  append(rows, op##_kernels_avx512, op##_kernel_count_avx512);
#else
#define FASTCONV_ALL_TABLES(Row, op) append(rows, op##_kernels_baseline, op##_kernel_count_baseline);
#endif

#if FASTCONV_HAVE_AMX
#define FASTCONV_TILE_TABLES(Row, op) append(rows, op##_kernels_amx, op##_kernel_count_amx);
#else
#define FASTCONV_TILE_TABLES(Row, op)
#endif

#define FASTCONV_ROWS(name, Row, op, TABLES)        \
  const std::vector<const Row*>& name() {           \
    static const std::vector<const Row*> all = [] { \
      std::vector<const Row*> rows;                 \
      TABLES(Row, op)                               \
      return rows;                                  \
    }();                                            \
    return all;                                     \
  }
FASTCONV_ROWS(conv_rows, ConvKernel, conv, FASTCONV_ALL_TABLES)
FASTCONV_ROWS(depthwise_rows, DepthwiseKernel, depthwise, FASTCONV_ALL_TABLES)
FASTCONV_ROWS(transpose_rows, TransposeKernel, transpose, FASTCONV_ALL_TABLES)
FASTCONV_ROWS(product_rows, ProductKernel, product, FASTCONV_ALL_TABLES)
FASTCONV_ROWS(winograd_rows, WinogradKernel, winograd, FASTCONV_ALL_TABLES)
FASTCONV_ROWS(tile_rows, TileKernel, tile, FASTCONV_TILE_TABLES)
FASTCONV_ROWS(winograd_tile_rows, WinogradKernel, winograd, FASTCONV_TILE_TABLES)

// Whether a name is one of the kernels that compete with tiles.
bool competes(const std::string& name) {
  const auto has = [&](const auto& rows) {
    return std::any_of(rows.begin(), rows.end(), [&](const auto* row) { return name == row->name; });
  };
  return has(conv_rows()) || has(depthwise_rows()) || has(transpose_rows()) || has(product_rows()) ||
         has(winograd_rows()) || has(winograd_tile_rows());
}

std::vector<KernelInfo> list() {
  std::vector<KernelInfo> rows;
  for (const auto* row : conv_rows()) rows.push_back(*row);
  for (const auto* row : depthwise_rows()) rows.push_back(*row);
  for (const auto* row : transpose_rows()) rows.push_back(*row);
  for (const auto* row : product_rows()) rows.push_back(*row);
  for (const auto* row : winograd_rows()) rows.push_back(*row);
  for (const auto* row : winograd_tile_rows()) rows.push_back(*row);
  for (const auto* row : tile_rows()) rows.push_back(*row);
  return rows;
}

const bool registered = (register_kernels(&list), true);

constexpr auto always = [](const KernelInfo&) { return true; };

}  // namespace

const ConvKernel& find_conv(Dtype dtype, std::int64_t cols, IsaMask mask) {
  // A narrower row leaves fewer lanes idle, and takes longer for the others, since it reads more for a product: a third
  // with AVX2, a seventh with AVX-512, whose products take as long as what they read.
  Isa best_isa = Isa::baseline;
  for (const ConvKernel* row : conv_rows())
    if (row->dtype == dtype && (mask & isa_bit(row->isa)) && row->isa > best_isa) best_isa = row->isa;
  // Where half a register of AVX-512 would be idle: no machine takes longer for one of AVX2, and some take half as
  // long.
  if (best_isa == Isa::avx512 && cols <= static_cast<std::int64_t>(32 / dtype_size(dtype))) best_isa = Isa::avx2;
  int widest = 0;
  for (const ConvKernel* row : conv_rows())
    if (row->dtype == dtype && row->isa == best_isa) widest = std::max(widest, row->tile_cols);
  const std::int64_t part = best_isa == Isa::avx512 ? 7 : 3;
  const auto cost = [&](const ConvKernel& row) {
    return rounded_up(cols, row.tile_cols) * (row.tile_cols < widest ? part + 1 : part);
  };
  std::int64_t least = INT64_MAX;
  for (const ConvKernel* row : conv_rows())
    if (row->dtype == dtype && row->isa == best_isa) least = std::min(least, cost(*row));
  return find_kernel(conv_rows(), dtype, mask, [&](const ConvKernel& row) {
    return row.isa < best_isa || (row.isa == best_isa && cost(row) == least);
  });
}

const ConvKernel& select_conv(Dtype dtype, std::int64_t cols, IsaMask mask) {
  const ConvKernel& row = find_conv(dtype, cols, mask);
  count_kernel(row);
  return row;
}

// Less than a register of AVX-512 fills one or two of AVX2.
const DepthwiseKernel& find_depthwise(Dtype dtype, std::int64_t along, IsaMask mask) {
  return find_kernel(depthwise_rows(), dtype, mask,
                     [&](const DepthwiseKernel& row) { return row.isa < Isa::avx512 || row.tile_cols <= along; });
}

const DepthwiseKernel& select_depthwise(Dtype dtype, std::int64_t along, IsaMask mask) {
  const DepthwiseKernel& row = find_depthwise(dtype, along, mask);
  count_kernel(row);
  return row;
}

const TransposeKernel& select_transpose(Dtype dtype, IsaMask mask) {
  return choose_kernel(transpose_rows(), dtype, mask, always);
}

const TileKernel* find_tiles(Dtype storage, Precision precision, IsaMask mask, bool& forced) {
  const std::string name = forced_kernel();
  forced = false;
  if (compute_dtype(storage) != Dtype::f32) return nullptr;
  // 16-bit numbers are one part or two, and so are their products without an error.
  const int products = storage == Dtype::bf16            ? 1
                       : storage == Dtype::f16           ? 4
                       : precision == Precision::highest ? 6
                       : precision == Precision::high    ? 3
                                                         : 1;
  const TileKernel* best = nullptr;
  for (const TileKernel* row : tile_rows()) {
    if (!(mask & isa_bit(row->isa))) continue;
    if (!name.empty() && name == row->name) {
      forced = true;
      return row;
    }
    if (row->products == products) best = row;
  }
  return name.empty() || !competes(name) ? best : nullptr;
}

const ProductKernel& select_product(Dtype dtype, IsaMask mask) {
  return choose_kernel(product_rows(), dtype, mask, always);
}

const WinogradKernel& find_winograd(Dtype dtype, IsaMask mask) {
  return find_kernel(winograd_rows(), dtype, mask, always);
}

const WinogradKernel* find_winograd_on_tiles(Dtype dtype, Precision precision, IsaMask mask) {
  for (const WinogradKernel* row : winograd_tile_rows())
    if (row->dtype == dtype && row->level == precision && (mask & isa_bit(row->isa))) return row;
  return nullptr;
}

}  // namespace fastconv
