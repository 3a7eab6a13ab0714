// What project, insert, rotate and the polar slices share on the device: the window, the gather, tiles of pixels.
#pragma once
#include "cuda/device.h"
#include "math/slice.h"
#include "math/trig.h"
#include "math/window.h"

namespace verglas::cuda {

/// Window taps as a kernel argument: in constant memory, where one address for a whole warp costs nothing.
struct Window {
  int degree;
  float c[(math::kMaxDegree + 1) * math::kMaxWidth];  // c[d * W + j]
};

inline Window window_of(const math::WindowTable& table) {
  Window window{};
  window.degree = table.degree;
  for (int i = 0; i < (table.degree + 1) * table.width; ++i) window.c[i] = table.coefficients[i];
  return window;
}

using math::with_width;

#if defined(__CUDACC__) || defined(VERGLAS_CUDA_EMULATE)

/// Weight of tap j at the fractional coordinate t.
template <int W>
__device__ __forceinline__ float tap(const Window& window, int j, float t) {
  float value = window.c[window.degree * W + j];
  for (int d = window.degree - 1; d >= 0; --d) value = value * t + window.c[d * W + j];
  return value;
}

template <int W>
__device__ __forceinline__ void taps(const Window& window, float t, float (&w)[W]) {
#pragma unroll
  for (int j = 0; j < W; ++j) w[j] = window.c[window.degree * W + j];
  for (int d = window.degree - 1; d >= 0; --d) {
#pragma unroll
    for (int j = 0; j < W; ++j) w[j] = w[j] * t + window.c[d * W + j];
  }
}

/// Taps and their derivatives along the coordinate.
template <int W>
__device__ __forceinline__ void taps_slope(const Window& window, float t, float (&w)[W], float (&slope)[W]) {
#pragma unroll
  for (int j = 0; j < W; ++j) {
    w[j] = window.c[window.degree * W + j];
    slope[j] = 0.0f;
  }
  for (int d = window.degree - 1; d >= 0; --d) {
#pragma unroll
    for (int j = 0; j < W; ++j) {
      slope[j] = slope[j] * t + w[j];
      w[j] = w[j] * t + window.c[d * W + j];
    }
  }
}

/// Sum of W^3 taps around a point; the conjugate where Friedel's mate was taken.
template <int W>
__device__ __forceinline__ float2 gather(const Window& window, const math::GridShape& grid,
                                         const float2* __restrict__ spectrum, const math::SlicePoint& point) {
  const auto fz = math::footprint<W>(point.z), fy = math::footprint<W>(point.y),
             fx = math::footprint<W>(point.x);
  float wy[W], wx[W];
  taps<W>(window, fy.t, wy);
  taps<W>(window, fx.t, wx);
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const float2* corner = spectrum + fz.first * plane + fy.first * row + fx.first;
  float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll 1  // W^2 loads in flight are plenty; W^3 only cost registers and instruction cache
  for (int z = 0; z < W; ++z) {
    const float wz = tap<W>(window, z, fz.t);  // not an array: indexed by a variable it would live in memory
#pragma unroll
    for (int y = 0; y < W; ++y) {
      const float w = wz * wy[y];
      const float2* line = corner + z * plane + y * row;
      float2 part = make_float2(0.0f, 0.0f);
#pragma unroll
      for (int x = 0; x < W; ++x) {
        const float2 value = __ldg(line + x);
        part.x += wx[x] * value.x;
        part.y += wx[x] * value.y;
      }
      sum.x += w * part.x;
      sum.y += w * part.y;
    }
  }
  if (point.mate) sum.y = -sum.y;
  return sum;
}

__device__ __forceinline__ float2 multiply(float2 a, float2 b) {
  return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

/// exp(2 pi i turns); the reduction in float64.
__device__ __forceinline__ float2 phase_of(double turns) {
  return make_float2(math::cos_turns(turns), math::sin_turns(turns));
}

/// Images are worked on in tiles of 16 x 16 pixels, a warp in a patch of 8 x 4: its slice of the grid is compact.
constexpr int kTile = 16, kTileThreads = 256;

VG_HD unsigned tiles_along(int pixels) { return static_cast<unsigned>((pixels + kTile - 1) / kTile); }

struct TilePixel {
  int x, y;
};
__device__ __forceinline__ TilePixel tile_pixel(unsigned tile, unsigned tiles_x) {
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  return {static_cast<int>(tile % tiles_x) * kTile + (warp & 1) * 8 + (lane & 7),
          static_cast<int>(tile / tiles_x) * kTile + (warp >> 1) * 4 + (lane >> 3)};
}

#endif

}  // namespace verglas::cuda
