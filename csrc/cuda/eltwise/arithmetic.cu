// Arithmetic between arrays of any dtypes, which the statistics of norms and the optimizers are made of, and casts. The
// dtypes are looked at when an element is read: memory is the bound, and there is one kernel for all pairs.
#include "cuda/eltwise/eltwise.h"
#include "cuda/nest.h"

namespace fastconv {
namespace cuda {
namespace {

enum class Op : std::uint8_t {
  positive,
  negative,
  absolute,
  sign,
  sqrt,
  exp,
  add,
  subtract,
  multiply,
  divide,
  maximum,
  minimum,
  power,
  where_nonzero
};
constexpr const char* kNames[] = {"positive", "negative", "absolute", "sign",    "sqrt",    "exp",   "add",
                                  "subtract", "multiply", "divide",   "maximum", "minimum", "power", "where_nonzero"};

// An array's memory, or one number.
struct Cell {
  void* data;
  Element element;
  double number;

  template <class T>
  FASTCONV_DEVICE T read(Index i) const {
    if (!data) return static_cast<T>(number);
    switch (element) {
      case Element::f64:
        return static_cast<T>(static_cast<const double*>(data)[i]);
      case Element::f16:
        return static_cast<T>(dev::load(static_cast<const Float16*>(data) + i));
      case Element::bf16:
        return static_cast<T>(dev::load(static_cast<const BFloat16*>(data) + i));
      case Element::boolean:
        return static_cast<T>(static_cast<const std::uint8_t*>(data)[i]);
      case Element::int64:
        return static_cast<T>(static_cast<const std::int64_t*>(data)[i]);
      default:
        return static_cast<T>(static_cast<const float*>(data)[i]);
    }
  }
  template <class T>
  FASTCONV_DEVICE void write(Index i, T value) const {
    switch (element) {
      case Element::f64:
        static_cast<double*>(data)[i] = static_cast<double>(value);
        break;
      case Element::f16:
        dev::store(static_cast<Float16*>(data) + i, static_cast<float>(value));
        break;
      case Element::bf16:
        dev::store(static_cast<BFloat16*>(data) + i, static_cast<float>(value));
        break;
      default:
        static_cast<float*>(data)[i] = static_cast<float>(value);
    }
  }
};

template <class T>
FASTCONV_DEVICE T result_of(Op op, T a, T b) {
  switch (op) {
    case Op::negative:
      return -a;
    case Op::absolute:
      return std::fabs(a);
    case Op::sign:
      return a > T(0) ? T(1) : a < T(0) ? T(-1) : a;
    case Op::sqrt:
      return std::sqrt(a);
    case Op::exp:
      return std::exp(a);
    case Op::add:
      return a + b;
    case Op::subtract:
      return a - b;
    case Op::multiply:
      return a * b;
    case Op::divide:
      return a / b;
    case Op::maximum:
      return a > b || a != a ? a : b;
    case Op::minimum:
      return a < b || a != a ? a : b;
    case Op::power:
      return std::pow(a, b);
    case Op::where_nonzero:
      return b == T(0) ? T(0) : a;
    default:
      return a;
  }
}

template <class T>
__global__ void arithmetic_kernel(Op op, Nest<3> nest, Cell a, Cell b, Cell y) {
  for (Index i = dev::first(); i < nest.size; i += dev::step()) {
    Index at[3];
    nest.offsets(i, at);
    y.write<T>(at[2], result_of(op, a.read<T>(at[0]), b.read<T>(at[1])));
  }
}

// One thread a result, the entries in their order, in float64.
__global__ void reduce_kernel(bool largest, Nest<2> nest, Cell x, Index length, Index step, Cell y) {
  for (Index i = dev::first(); i < nest.size; i += dev::step()) {
    Index at[2];
    nest.offsets(i, at);
    double total = length > 0 && largest ? x.read<double>(at[0]) : 0;
    for (Index k = largest ? 1 : 0; k < length; ++k) {
      const double value = x.read<double>(at[0] + k * step);
      total = !largest ? total + value : value > total || value != value ? value : total;
    }
    y.write<double>(at[1], total);
  }
}

Cell cell_of(const Operand& operand) { return {operand.data, operand.element, operand.number}; }

}  // namespace

void arithmetic(const Queue& queue, const std::string& name, const Operand& a, const Operand& b, const Operand& y) {
  int number = 0;
  const int count = static_cast<int>(sizeof kNames / sizeof kNames[0]);
  while (number < count && name != kNames[number]) ++number;
  if (number == count) fail("name: there is no arithmetic called '" + name + "'");
  require_shape(a, y.shape, "a");
  require_shape(b, y.shape, "b");
  if (!is_number(y.element)) fail("y: expected a floating-point dtype");
  const Operand* const arrays[] = {&a, &b, &y};
  const Nest<3> nest = nest_of<3>(y.shape, arrays);
  if (nest.size == 0) return;
  const auto wide = [](const Operand& operand) {
    return operand.data && (operand.element == Element::f64 || operand.element == Element::int64);
  };
  const auto op = static_cast<Op>(number);
  if (wide(a) || wide(b) || wide(y))
    launch(queue, grid_of(nest.size), arithmetic_kernel<double>, op, nest, cell_of(a), cell_of(b), cell_of(y));
  else
    launch(queue, grid_of(nest.size), arithmetic_kernel<float>, op, nest, cell_of(a), cell_of(b), cell_of(y));
}

void reduce(const Queue& queue, const std::string& name, const Operand& x, int axis, const Operand& y) {
  if (name != "sum" && name != "max") fail("name: expected 'sum' or 'max'");
  if (axis < 0 || axis >= static_cast<int>(x.shape.size())) fail("axis: out of range");
  Operand kept = x;
  const Index length = x.shape[static_cast<std::size_t>(axis)], step = x.stride[static_cast<std::size_t>(axis)];
  kept.shape.erase(kept.shape.begin() + axis);
  kept.stride.erase(kept.stride.begin() + axis);
  require_shape(y, kept.shape, "y");
  const Operand* const arrays[] = {&kept, &y};
  const Nest<2> nest = nest_of<2>(kept.shape, arrays);
  if (nest.size == 0) return;
  launch(queue, grid_of(nest.size), reduce_kernel, name == "max", nest, cell_of(x), length, step, cell_of(y));
}

}  // namespace cuda
}  // namespace fastconv
