#pragma once

#include <cstdint>

namespace fastconv {

// a / b rounded up, for any a and positive b.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

}  // namespace fastconv
