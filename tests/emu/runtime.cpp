// The emulator's device: always there, one, and in the host's memory.
#include "cuda/runtime.h"

#include "cuda/launch.h"

namespace fastconv {
namespace cuda {

Devices devices() { return {1, ""}; }
std::string device_name(int) { return "emulator"; }
std::vector<std::string> architectures() { return {"sm_emulated"}; }
int runtime_version() { return 0; }

OnDevice::OnDevice(int) : before_(-1) {}
OnDevice::~OnDevice() {}

void check_launch() {}
void allow_shared(const void*, std::size_t) {}
int compute_capability() { return 80; }

}  // namespace cuda
}  // namespace fastconv
