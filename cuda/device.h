// What every CUDA kernel of this folder shares: the error type, the check, the stream, the launch, the
// current device. No allocation: device memory belongs to the caller.
#pragma once
#if defined(VERGLAS_CUDA_EMULATE)
#include "cuda/emulate/language.h"
#else
#include <cuda_runtime_api.h>
#endif

#include <cstddef>
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

#if defined(__CUDACC__) || defined(VERGLAS_CUDA_EMULATE)

constexpr std::size_t kSharedDefault = 48 * 1024;  // what a kernel may use unasked
constexpr std::size_t kSharedMost = 163 * 1024;    // what sm_80 offers a block; sm_90 has more

/// Shape, dynamic shared memory and stream of a launch, and the line that asked for it.
struct Launch {
  dim3 grid, block;
  std::size_t shared_bytes;
  Stream stream;
  const char* file;
  int line;

  Launch(dim3 grid_, dim3 block_, std::size_t shared_bytes_, Stream stream_,
         const char* file_ = __builtin_FILE(), int line_ = __builtin_LINE())
      : grid(grid_), block(block_), shared_bytes(shared_bytes_), stream(stream_), file(file_), line(line_) {}

  void check(cudaError_t code) const { cuda::check(code, "the launch of a kernel", short_file(file), line); }
};

/// Names the block's dynamic shared memory, aligned to 16 bytes, as an array of T. One per kernel.
#if defined(VERGLAS_CUDA_EMULATE)
#define VG_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::verglas::emulate::dynamic_shared())
#else
#define VG_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char vg_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(vg_dynamic_shared)
#endif

/// kernel<<<grid, block, shared, stream>>>(arguments...), checked; the same line runs on the host under emulation:
///   launch(score_kernel<4>, {grid, block, shared_bytes, stream}, a, b, n);
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Launch& how, Arguments... arguments) {
#if defined(VERGLAS_CUDA_EMULATE)
  const auto beyond = [](const dim3& d, unsigned x, unsigned yz) {
    return d.x == 0 || d.y == 0 || d.z == 0 || d.x > x || d.y > yz || d.z > yz;
  };
  if (beyond(how.grid, 0x7fffffffu, 65535u) || beyond(how.block, 1024u, 1024u) || how.block.z > 64u ||
      how.block.x * how.block.y * how.block.z > 1024u || how.shared_bytes > kSharedMost)
    how.check(cudaErrorInvalidConfiguration);
  auto body = [&] { kernel(static_cast<Parameters>(arguments)...); };
  emulate::run(
      how.grid, how.block, how.shared_bytes, [](void* b) { (*static_cast<decltype(body)*>(b))(); }, &body);
#else
  if (how.shared_bytes > kSharedDefault)
    how.check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(how.shared_bytes)));
  const auto pass = [&](Parameters... values) {  // converts, and gives each argument an address
    void* addresses[] = {static_cast<void*>(&values)..., nullptr};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), how.grid, how.block, addresses,
                            how.shared_bytes, how.stream);
  };
  how.check(pass(static_cast<Parameters>(arguments)...));
#endif
}

#endif

}  // namespace verglas::cuda
