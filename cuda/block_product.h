// The matrix product that a thread block makes: C (64 x 64) = sum over k of A(., k) B(k, .), float32. Each
// element is one chain of multiply-adds in rising k, whatever the tile: results do not depend on how work is
// cut into blocks.
#pragma once
#include "cuda/device.h"

#if defined(__CUDACC__) || defined(VERGLAS_CUDA_EMULATE)

namespace verglas::cuda {

constexpr int kBlockSide = 64, kBlockDepth = 16, kBlockThreads = 256;

struct alignas(16) BlockOperands {
  float a[kBlockDepth][kBlockSide + 4];  // + 4: rows start at other banks
  float b[kBlockDepth][kBlockSide + 4];
};

/// Which index of an operand neighbouring threads should take, so that they read neighbouring addresses.
enum class Along { depth, side };

template <Along along, class Load>
__device__ __forceinline__ void load_operand(float (&to)[kBlockDepth][kBlockSide + 4], int first, int depth,
                                             const Load& load) {
  for (int i = static_cast<int>(threadIdx.x); i < kBlockDepth * kBlockSide; i += kBlockThreads) {
    const int k = along == Along::depth ? i % kBlockDepth : i / kBlockSide;
    const int s = along == Along::depth ? i / kBlockDepth : i % kBlockSide;
    to[k][s] = first + k < depth ? load(s, first + k) : 0.0f;
  }
}

/// sum[i][j] += for rows 4 (t / 16) + i and columns 4 (t % 16) + j of thread t; a(row, k) and b(column, k)
/// give the operands, zero outside. All threads of the block must come.
template <Along along_a, Along along_b, class A, class B>
__device__ __forceinline__ void block_product(BlockOperands& shared, int depth, const A& a, const B& b,
                                              float (&sum)[4][4]) {
  const int row = static_cast<int>(threadIdx.x) / 16 * 4, column = static_cast<int>(threadIdx.x) % 16 * 4;
  for (int first = 0; first < depth; first += kBlockDepth) {
    load_operand<along_a>(shared.a, first, depth, a);
    load_operand<along_b>(shared.b, first, depth, b);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kBlockDepth; ++k) {
      const float4 x = *reinterpret_cast<const float4*>(&shared.a[k][row]);
      const float4 y = *reinterpret_cast<const float4*>(&shared.b[k][column]);
      const float left[4] = {x.x, x.y, x.z, x.w}, right[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += left[i] * right[j];
      }
    }
    __syncthreads();
  }
}

inline unsigned blocks_along(std::size_t n) {
  return static_cast<unsigned>((n + kBlockSide - 1) / kBlockSide);
}

}  // namespace verglas::cuda

#endif
