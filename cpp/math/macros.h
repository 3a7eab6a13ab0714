// VG_HD marks a formula that both the host and the device compile; the only macro of its kind.
#pragma once
#if defined(__CUDACC__)
#define VG_HD __host__ __device__ __forceinline__
#else
#define VG_HD inline
#endif
