// What every CUDA kernel of this folder shares: the error type, the check, the stream, the current device.
// No allocation: device memory belongs to the caller.
#pragma once
#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace verglas::cuda {

using Stream = cudaStream_t;

/// A CUDA call failed; the message holds the call, file:line, and CUDA's own name and text for the error.
class CudaError : public std::runtime_error {
 public:
  CudaError(cudaError_t code, const char* call, const char* file, int line)
      : std::runtime_error(std::string(call) + " failed at " + file + ":" + std::to_string(line) + ": " +
                           cudaGetErrorName(code) + " (" + cudaGetErrorString(code) + ")"),
        code_(code) {}
  cudaError_t code() const { return code_; }

 private:
  cudaError_t code_;
};

inline void check(cudaError_t code, const char* call, const char* file, int line) {
  if (code == cudaSuccess) return;
  (void)cudaGetLastError();  // a non-sticky error must not surface again at the next, innocent call
  throw CudaError(code, call, file, line);
}

/// __FILE__ without the build machine's folders.
constexpr const char* short_file(const char* path) {
  const char* from = path;
  for (const char* c = path; *c != '\0'; ++c) {
    if (c[0] == 'c' && c[1] == 'u' && c[2] == 'd' && c[3] == 'a' && c[4] == '/') from = c;
  }
  return from;
}

#define VG_CUDA_CHECK(call) \
  ::verglas::cuda::check((call), #call, ::verglas::cuda::short_file(__FILE__), __LINE__)

/// Makes `device` current for a scope and puts the former one back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    VG_CUDA_CHECK(cudaGetDevice(&former_));
    if (device != former_) VG_CUDA_CHECK(cudaSetDevice(device));
  }
  ~DeviceGuard() { (void)cudaSetDevice(former_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int former_ = 0;
};

}  // namespace verglas::cuda
