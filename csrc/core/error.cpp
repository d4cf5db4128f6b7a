#include "core/error.h"

namespace fastconv {

void fail(const std::string& message) { throw std::invalid_argument(message); }

}  // namespace fastconv
