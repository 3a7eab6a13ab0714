#include "cuda/block_product.h"
#include "cuda/match.h"

namespace verglas::cuda {
namespace {

/// Whether (value, row) is better than what is held: larger, or equal and earlier.
__device__ __forceinline__ bool better(float value, int row, float held, int held_row) {
  return value > held || (value == held && row < held_row);
}

__global__ void __launch_bounds__(kBlockThreads)
    match_kernel(const float* __restrict__ maps, const float* __restrict__ mix, int rows, int depth,
                 std::size_t pixels, float* __restrict__ best, std::int32_t* __restrict__ which) {
  __shared__ BlockOperands shared;
  __shared__ float tops[16][kBlockSide];
  __shared__ int numbers[16][kBlockSide];
  __shared__ bool first_is_nan[kBlockSide];
  const std::size_t first_pixel = static_cast<std::size_t>(blockIdx.x) * kBlockSide;
  const int group = static_cast<int>(threadIdx.x) / 16, column = static_cast<int>(threadIdx.x) % 16 * 4;
  float top[4];
  int number[4];
  for (int j = 0; j < 4; ++j) {
    top[j] = __int_as_float(static_cast<int>(0xff800000u));  // -infinity
    number[j] = rows;
  }
  for (int first = 0; first < rows; first += kBlockSide) {
    float sum[4][4] = {};
    block_product<Along::depth, Along::side>(
        shared, depth,
        [&](int r, int k) {
          return first + r < rows ? mix[static_cast<std::size_t>(first + r) * depth + k] : 0.0f;
        },
        [&](int c, int k) { return first_pixel + c < pixels ? maps[k * pixels + first_pixel + c] : 0.0f; },
        sum);
    for (int i = 0; i < 4; ++i) {
      const int row = first + 4 * group + i;
      if (row >= rows) break;
      for (int j = 0; j < 4; ++j) {
        if (row == 0) first_is_nan[column + j] = !(sum[i][j] == sum[i][j]);
        if (better(sum[i][j], row, top[j], number[j])) top[j] = sum[i][j], number[j] = row;
      }
    }
  }
  for (int j = 0; j < 4; ++j) tops[group][column + j] = top[j], numbers[group][column + j] = number[j];
  __syncthreads();
  const int pixel = static_cast<int>(threadIdx.x);
  if (pixel >= kBlockSide || first_pixel + pixel >= pixels) return;
  float value = tops[0][pixel];
  int row = numbers[0][pixel];
  for (int g = 1; g < 16; ++g)
    if (better(tops[g][pixel], numbers[g][pixel], value, row))
      value = tops[g][pixel], row = numbers[g][pixel];
  // As on the host, where the first combination stands until another is larger: none is larger than NaN.
  const bool nan = first_is_nan[pixel];
  best[first_pixel + pixel] = nan ? __int_as_float(0x7fc00000) : value;
  which[first_pixel + pixel] = nan || row == rows ? 0 : row;
}

}  // namespace

void match(const float* maps, const float* mix, std::size_t rows, std::size_t depth, std::size_t pixels,
           float* best, std::int32_t* which, Stream stream) {
  if (pixels == 0) return;
  launch(match_kernel, {dim3(blocks_along(pixels)), kBlockThreads, 0, stream}, maps, mix,
         static_cast<int>(rows), static_cast<int>(depth), pixels, best, which);
}

}  // namespace verglas::cuda
