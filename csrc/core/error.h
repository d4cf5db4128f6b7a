// How an op refuses bad input. Everything here becomes ValueError in Python; nothing else is thrown by the engine.
#pragma once

#include <stdexcept>
#include <string>

namespace fastconv {

// Not inline: kernel files see this header, and are compiled without exceptions.
[[noreturn]] void fail(const std::string& message);

inline void require(bool condition, const char* message) {
  if (!condition) fail(message);
}

}  // namespace fastconv
