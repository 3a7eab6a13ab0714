// C = T X for a small table T (rows x depth, any alignment) and a lane-aligned X (depth x columns): the
// kernel of every short transform that is cheaper as a matrix product than as an FFT. Each element of C is
// one fused multiply-add chain over depth in rising order, whatever the tile: results do not depend on the shape.
#pragma once
#include "math/simd.h"

namespace verglas::math {

/// Shapes in floats; columns and all X and C strides are multiples of kLanes.
struct GemmShape {
  int rows, depth, columns;
  std::size_t t_stride, x_stride, c_stride;
};

template <int R, int V>
inline void gemm_tile(const float* t, const float* x, float* c, const GemmShape& s) {
  Lanes acc[R][V] = {};
  for (int k = 0; k < s.depth; ++k) {
    Lanes xv[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) xv[v] = load(x + k * s.x_stride + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Lanes tr = broadcast(t[r * s.t_stride + k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) acc[r][v] += tr * xv[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * s.c_stride + v * kLanes, acc[r][v]);
}

template <int V>
inline void gemm_columns(const float* t, const float* x, float* c, const GemmShape& s) {
  constexpr int R = 6;
  int r = 0;
  for (; r + R <= s.rows; r += R) gemm_tile<R, V>(t + r * s.t_stride, x, c + r * s.c_stride, s);
  for (; r + 2 <= s.rows; r += 2) gemm_tile<2, V>(t + r * s.t_stride, x, c + r * s.c_stride, s);
  for (; r < s.rows; ++r) gemm_tile<1, V>(t + r * s.t_stride, x, c + r * s.c_stride, s);
}

inline void small_gemm(const float* t, const float* x, float* c, const GemmShape& s) {
  constexpr int V = kVectorRegisters >= 32 ? 4 : 2;
  const int vectors = s.columns / kLanes;
  int v = 0;
  for (; v + V <= vectors; v += V) gemm_columns<V>(t, x + v * kLanes, c + v * kLanes, s);
  for (; v < vectors; ++v) gemm_columns<1>(t, x + v * kLanes, c + v * kLanes, s);
}

}  // namespace verglas::math
