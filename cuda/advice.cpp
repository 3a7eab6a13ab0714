#include "cuda/advice.h"

#include <initializer_list>

namespace verglas::cuda {
namespace {

struct Advice {
  std::initializer_list<int> codes;
  const char* text;
};

// The numbers have names in driver_types.h; a table by number needs no particular version of it.
const Advice kAdvice[] = {
    {{2},  // MemoryAllocation
     "the GPU has too little free memory; work on fewer images at a time (--memory), use a smaller box, or "
     "end other programs on this GPU"},
    {{35, 36, 222},  // InsufficientDriver, CallRequiresNewerDriver, UnsupportedPtxVersion
     "the NVIDIA driver is too old for this build; update the driver"},
    {{100, 101},  // NoDevice, InvalidDevice
     "there is no such GPU in this process; look at CUDA_VISIBLE_DEVICES and at verglas doctor"},
    {{200, 209, 218, 221},  // InvalidKernelImage, NoKernelImageForDevice, InvalidPtx, JitCompilerNotFound
     "this build has no code for this GPU; install verglas from source for it (pip install . "
     "--config-settings=cmake.define.VERGLAS_CUDA_ARCHITECTURES=native), or use device='cpu'"},
    {{46},  // DevicesUnavailable
     "another program holds this GPU for itself; wait for it, or name another device"},
    {{803, 804},  // SystemDriverMismatch, CompatNotSupportedOnDevice
     "the driver in the kernel and its library are of different versions; restart the machine after the "
     "driver's update"},
    {{802},  // SystemNotReady
     "the driver is not ready; start the services it needs (nvidia-fabricmanager, nvidia-persistenced)"},
    {{702},  // LaunchTimeout
     "the system stopped a kernel that ran too long beside a display; use a GPU without one"},
    {{214, 220, 714},  // ECCUncorrectable, NvlinkUncorrectable, HardwareStackError
     "the GPU reports a fault of its hardware; nvidia-smi -q says more; use another device"},
    // Assert, IllegalAddress, IllegalInstruction, MisalignedAddress, InvalidAddressSpace, InvalidPc, LaunchFailure
    {{700, 710, 715, 716, 717, 718, 719},
     "a kernel went wrong, and the device is lost to this process: start again (--resume), and please report "
     "this line"},
};

}  // namespace

bool is_out_of_memory(int code) { return code == 2; }

std::string advice(int code) {
  for (const Advice& entry : kAdvice) {
    for (const int known : entry.codes) {
      if (known == code) return entry.text;
    }
  }
  return "please report this line; device='cpu' works without the GPU";
}

}  // namespace verglas::cuda
