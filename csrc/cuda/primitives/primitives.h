// One small kernel for each primitive of the dev_*.h files, so that a test can compare what it does with NumPy: on the
// emulator, and on a device, where it shows that the assembly does what the emulator says.
#pragma once

#include "cuda/operand.h"
#include "cuda/queue.h"

namespace fastconv {
namespace cuda {

// y = what the primitive makes of x; both contiguous, of the sizes and dtypes that the kernel's comment names.
void primitive(const Queue& queue, const std::string& name, const Operand& x, const Operand& y);

}  // namespace cuda
}  // namespace fastconv
