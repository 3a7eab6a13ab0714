// state: which driver, runtime and devices this process sees, or why it sees none.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace verglas::cuda {

struct Device {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  std::size_t memory_bytes = 0;
};

struct State {
  int driver = 0, runtime = 0;  // 1000 major + 10 minor, as CUDA gives them; driver 0 = none installed
  std::vector<Device> devices;
  std::string reason;  // empty when there is a device
};

struct Memory {
  std::size_t free_bytes = 0, total_bytes = 0;
};

/// Of one device, now; makes a context there if there is none yet.
Memory memory(int device);

/// Never throws for a missing driver or device: that is an answer, not an error.
State state();

}  // namespace verglas::cuda
