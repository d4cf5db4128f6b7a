#include "cuda/runtime.h"

#include <sstream>

#include "core/error.h"
#include "cuda/launch.h"

namespace fastconv {
namespace cuda {
namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) fail(std::string("CUDA: ") + cudaGetErrorString(status));
}

}  // namespace

Devices devices() {
  Devices result;
  const cudaError_t status = cudaGetDeviceCount(&result.count);
  if (status != cudaSuccess) {
    cudaGetLastError();  // not to be reported a second time
    result.count = 0;
    result.reason = cudaGetErrorString(status);
    int supported = 0;  // stays so without a driver
    if (cudaDriverGetVersion(&supported) == cudaSuccess && supported == 0) result.reason = "no NVIDIA driver is found";
  }
  return result;
}

std::string device_name(int device) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device));
  return std::string(properties.name) + ", sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
}

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  std::istringstream list(FASTCONV_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(list, name, ',');) names.push_back("sm_" + name);
  return names;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

OnDevice::OnDevice(int device) : before_(device) {
  check(cudaGetDevice(&before_));
  if (before_ == device)
    before_ = -1;
  else
    check(cudaSetDevice(device));
}

OnDevice::~OnDevice() {
  if (before_ >= 0) cudaSetDevice(before_);
}

void check_launch() { check(cudaGetLastError()); }

void allow_shared(const void* kernel, std::size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
}

int compute_capability() {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return 10 * major + minor;
}

}  // namespace cuda
}  // namespace fastconv
