// Devices, as the CUDA runtime sees them. Nothing here throws where there is no driver.
#pragma once

#include <string>
#include <vector>

namespace fastconv {
namespace cuda {

struct Devices {
  int count = 0;
  std::string reason;  // why there is none
};

Devices devices();
std::string device_name(int device);
std::vector<std::string> architectures();  // compiled in, such as "sm_90"
int runtime_version();

// Makes a device the current one of this thread while it lives.
class OnDevice {
 public:
  explicit OnDevice(int device);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_;
};

}  // namespace cuda
}  // namespace fastconv
