#pragma once

#include <cstdint>

namespace fastconv {

// a / b rounded up, for any a and positive b.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// The least multiple of `unit` that is at least `count`.
constexpr std::int64_t rounded_up(std::int64_t count, std::int64_t unit) { return ceil_div(count, unit) * unit; }

// A size of at most `wanted`, and at least one, that cuts `whole` into as many parts, of nearly equal sizes.
constexpr std::int64_t balanced(std::int64_t whole, std::int64_t wanted) {
  const std::int64_t most = wanted < 1 ? 1 : wanted < whole ? wanted : whole;
  return ceil_div(whole, ceil_div(whole, most));
}

// Calls body(begin, end) for as few parts of [0, count) as none is longer than `most`, of nearly equal lengths.
template <class Body>
void in_equal_parts(std::int64_t count, std::int64_t most, Body&& body) {
  const std::int64_t parts = ceil_div(count, most);
  for (std::int64_t i = 0; i < parts; ++i) body(count * i / parts, count * (i + 1) / parts);
}

}  // namespace fastconv
