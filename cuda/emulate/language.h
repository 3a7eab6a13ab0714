// CUDA C++ as ordinary C++17, so that the kernels of cuda/*.cu run on the host with the device's semantics:
// threads of a block meet at barriers and warp collectives, shared memory is one block's, atomics are atomic.
// For tests on machines without a GPU (VERGLAS_CUDA_EMULATE); scheduler.cpp runs it.
//
// What it finds: wrong indices, races that a missing barrier leaves (blocks with an odd number run their
// threads backwards), collectives that not all lanes of their mask reach, shared memory read before it is
// written (it starts as NaN) or written beyond its end, and with sanitizers any access outside an array. What
// it does not: speed, the rounding of fast intrinsics, races within one warp instruction.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "cuda/emulate/runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static
#define __shared__ static thread_local  // one block at a time runs on a thread of the host
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) float2 {
  float x, y;
};
struct float3 {
  float x, y, z;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) int2 {
  int x, y;
};
struct int3 {
  int x, y, z;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Those of the running CUDA thread; the scheduler sets them at every switch.
extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace verglas::emulate {

/// Every thread of every block of the grid calls body(context). Throws what a thread threw, and
/// std::logic_error where threads wait for each other in vain or dynamic shared memory was overrun.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* context);
/// The running block's dynamic shared memory.
unsigned char* dynamic_shared();
/// __syncthreads; returns how many of the block's threads came with `predicate`.
int barrier(bool predicate);
/// Waits for the lanes of `mask`, then writes what each of them deposited to values[32]. `complete`, if any,
/// is called once, with the deposits, before anyone goes on.
void collective(unsigned mask, std::uint64_t deposit, std::uint64_t* values,
                void (*complete)(const std::uint64_t*) = nullptr);
int lane();

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "warp collectives carry up to 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <class T, class Update>
T atomic_update(T* address, Update update) {
  T old, next;
  __atomic_load(address, &old, __ATOMIC_RELAXED);
  do {
    next = update(old);
  } while (!__atomic_compare_exchange(address, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

/// The lane that shfl reads from, within sub-warps of `width`; the own one where it would leave them.
template <class T>
T shuffle(unsigned mask, T value, int source) {
  std::uint64_t values[32];
  collective(mask, to_bits(value), values);
  return from_bits<T>(values[source]);
}

}  // namespace verglas::emulate

inline void __syncthreads() { (void)verglas::emulate::barrier(false); }
inline int __syncthreads_count(int predicate) { return verglas::emulate::barrier(predicate != 0); }
inline int __syncthreads_or(int predicate) { return verglas::emulate::barrier(predicate != 0) > 0; }
inline int __syncthreads_and(int predicate) { return verglas::emulate::barrier(predicate == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  std::uint64_t values[32];
  verglas::emulate::collective(mask, 0, values);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = verglas::emulate::lane(), base = lane - lane % width;
  return verglas::emulate::shuffle(mask, value, base + (source & (width - 1)));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = verglas::emulate::lane(), from = lane - static_cast<int>(delta);
  return verglas::emulate::shuffle(mask, value, from < lane - lane % width ? lane : from);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = verglas::emulate::lane(), from = lane + static_cast<int>(delta);
  return verglas::emulate::shuffle(mask, value, from >= lane - lane % width + width ? lane : from);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32) {
  const int lane = verglas::emulate::lane(), from = lane ^ flip;
  return verglas::emulate::shuffle(mask, value, from >= lane - lane % width + width ? lane : from);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  std::uint64_t values[32];
  verglas::emulate::collective(mask, predicate != 0, values);
  unsigned bits = 0;
  for (int l = 0; l < 32; ++l)
    if ((mask >> l & 1u) && values[l]) bits |= 1u << l;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T, class Combine>
T emulated_reduce(unsigned mask, T value, Combine combine) {
  std::uint64_t values[32];
  verglas::emulate::collective(mask, verglas::emulate::to_bits(value), values);
  bool first = true;
  T result = value;
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1u)) continue;
    const T other = verglas::emulate::from_bits<T>(values[l]);
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}
inline int __reduce_add_sync(unsigned mask, int v) {
  return emulated_reduce(mask, v, [](int a, int b) { return a + b; });
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v) {
  return emulated_reduce(mask, v, [](unsigned a, unsigned b) { return a + b; });
}
inline int __reduce_max_sync(unsigned mask, int v) {
  return emulated_reduce(mask, v, [](int a, int b) { return a > b ? a : b; });
}
inline int __reduce_min_sync(unsigned mask, int v) {
  return emulated_reduce(mask, v, [](int a, int b) { return a < b ? a : b; });
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}

template <class T>
T atomicAdd(T* address, T value) {
  return verglas::emulate::atomic_update(address, [value](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, T value) {
  return verglas::emulate::atomic_update(address, [value](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T* address, T value) {
  return verglas::emulate::atomic_update(address, [value](T old) { return old < value ? old : value; });
}
template <class T>
T atomicOr(T* address, T value) {
  return verglas::emulate::atomic_update(address, [value](T old) { return old | value; });
}
template <class T>
T atomicAnd(T* address, T value) {
  return verglas::emulate::atomic_update(address, [value](T old) { return old & value; });
}
template <class T>
T atomicExch(T* address, T value) {
  return verglas::emulate::atomic_update(address, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* address, T compare, T value) {
  return verglas::emulate::atomic_update(address, [=](T old) { return old == compare ? value : old; });
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}

// Intrinsics, exact where the device's are fast.
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline void __sincosf(float x, float* s, float* c) {
  *s = std::sin(x);
  *c = std::cos(x);
}
inline void sincospif(float x, float* s, float* c) {
  const double angle = 3.14159265358979323846 * std::remainder(static_cast<double>(x), 2.0);
  *s = static_cast<float>(std::sin(angle));
  *c = static_cast<float>(std::cos(angle));
}
inline void sincospi(double x, double* s, double* c) {
  const double angle = 3.14159265358979323846 * std::remainder(x, 2.0);
  *s = std::sin(angle);
  *c = std::cos(angle);
}
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline int __float_as_int(float x) { return verglas::emulate::from_bits<int>(verglas::emulate::to_bits(x)); }
inline unsigned __float_as_uint(float x) {
  return verglas::emulate::from_bits<unsigned>(verglas::emulate::to_bits(x));
}
inline float __int_as_float(int x) {
  return verglas::emulate::from_bits<float>(verglas::emulate::to_bits(x));
}
inline float __uint_as_float(unsigned x) {
  return verglas::emulate::from_bits<float>(verglas::emulate::to_bits(x));
}
inline long long __double_as_longlong(double x) {
  return verglas::emulate::from_bits<long long>(verglas::emulate::to_bits(x));
}
inline double __longlong_as_double(long long x) {
  return verglas::emulate::from_bits<double>(verglas::emulate::to_bits(x));
}
inline int __float2int_rn(float x) { return static_cast<int>(std::lrint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline int __double2int_rn(double x) { return static_cast<int>(std::lrint(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }

#define VG_EMULATED_MIN_MAX(T)                     \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
VG_EMULATED_MIN_MAX(int)
VG_EMULATED_MIN_MAX(unsigned)
VG_EMULATED_MIN_MAX(long)
VG_EMULATED_MIN_MAX(unsigned long)
VG_EMULATED_MIN_MAX(long long)
VG_EMULATED_MIN_MAX(unsigned long long)
VG_EMULATED_MIN_MAX(float)
VG_EMULATED_MIN_MAX(double)
#undef VG_EMULATED_MIN_MAX
