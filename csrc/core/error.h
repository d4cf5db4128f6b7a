// How an op refuses bad input. Everything here becomes ValueError in Python; nothing else is thrown by the engine.
#pragma once

#include <stdexcept>
#include <string>

namespace fastconv {

[[noreturn]] inline void fail(const std::string& message) { throw std::invalid_argument(message); }

inline void require(bool condition, const char* message) {
  if (!condition) fail(message);
}

}  // namespace fastconv
