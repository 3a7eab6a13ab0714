#include "cuda/advice.h"

namespace verglas::cuda {

bool is_out_of_memory(cudaError_t code) { return code == cudaErrorMemoryAllocation; }

std::string advice(cudaError_t code) {
  switch (code) {
    case cudaErrorMemoryAllocation:
      return "the GPU has too little free memory; work on fewer images at a time (--memory), use a smaller "
             "box, or end other programs on this GPU";
    case cudaErrorInsufficientDriver:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorCallRequiresNewerDriver:
      return "the NVIDIA driver is too old for this build; update the driver";
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
      return "there is no such GPU in this process; look at CUDA_VISIBLE_DEVICES and at verglas doctor";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
    case cudaErrorJitCompilerNotFound:
      return "this build has no code for this GPU; install verglas again from source with "
             "CUDA_ARCHITECTURES of this GPU (pip install . "
             "--config-settings=cmake.define.VERGLAS_CUDA_ARCHITECTURES=native), or use device='cpu'";
    case cudaErrorDevicesUnavailable:
      return "another program holds this GPU for itself; wait for it, or name another device";
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return "the driver in the kernel and its library are of different versions; restart the machine after "
             "the driver's update";
    case cudaErrorSystemNotReady:
      return "the driver is not ready; start the services it needs (nvidia-fabricmanager, "
             "nvidia-persistenced)";
    case cudaErrorLaunchTimeout:
      return "the system stopped a kernel that ran too long beside a display; use a GPU without one";
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
      return "the GPU reports a fault of its hardware; nvidia-smi -q says more; use another device";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorAssert:
    case cudaErrorLaunchFailure:
      return "a kernel went wrong, and the device is lost to this process: start again (--resume), and "
             "please "
             "report this line";
    default:
      return "please report this line; device='cpu' works without the GPU";
  }
}

}  // namespace verglas::cuda
