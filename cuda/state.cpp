#include "cuda/state.h"

#include "cuda/advice.h"
#include "cuda/device.h"

namespace verglas::cuda {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string why_none(cudaError_t code, const State& s) {
  if (s.driver == 0)
    return "no NVIDIA driver is installed (libcuda.so.1 was not found); install the driver, or use "
           "device='cpu'";
  if (code == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is too old: it offers CUDA " + version_text(s.driver) +
           ", this build needs CUDA " + version_text(s.runtime) + "; update the driver";
  if (code == cudaErrorNoDevice)
    return "the NVIDIA driver sees no device (is CUDA_VISIBLE_DEVICES empty, or a container without --gpus?)";
  return std::string("cudaGetDeviceCount failed: ") + cudaGetErrorName(code) + " (" +
         cudaGetErrorString(code) + "); " + advice(code);
}

}  // namespace

Memory memory(int device) {
  const DeviceGuard guard(device);
  Memory m;
  VG_CUDA_CHECK(cudaMemGetInfo(&m.free_bytes, &m.total_bytes));
  return m;
}

State state() {
  State s;
  VG_CUDA_CHECK(cudaRuntimeGetVersion(&s.runtime));
  if (cudaDriverGetVersion(&s.driver) != cudaSuccess) s.driver = 0;
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    s.reason = why_none(code == cudaSuccess ? cudaErrorNoDevice : code, s);
    return s;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    VG_CUDA_CHECK(cudaGetDeviceProperties(&p, i));
    s.devices.push_back({p.name, p.major, p.minor, p.totalGlobalMem});
  }
  return s;
}

}  // namespace verglas::cuda
