#include <limits>

#include "cuda/block_product.h"
#include "cuda/polar.h"
#include "math/polar_window.h"
#include "math/rotation.h"

namespace verglas::cuda {
namespace {

constexpr int kPointThreads = 128;

/// along_x[row, c] = sum over x of image row times waves_x[x, c]; rows of all images.
__global__ void __launch_bounds__(kBlockThreads)
    along_x_kernel(int box, int columns, const float* __restrict__ images, std::size_t rows,
                   const float* __restrict__ waves, float* __restrict__ out) {
  __shared__ BlockOperands shared;
  const std::size_t first_row = static_cast<std::size_t>(blockIdx.x) * kBlockSide;
  const int first_column = static_cast<int>(blockIdx.y) * kBlockSide;
  float sum[4][4] = {};
  block_product<Along::depth, Along::side>(
      shared, box,
      [&](int r, int k) { return first_row + r < rows ? images[(first_row + r) * box + k] : 0.0f; },
      [&](int c, int k) { return first_column + c < columns ? waves[k * columns + first_column + c] : 0.0f; },
      sum);
  const int row = static_cast<int>(threadIdx.x) / 16 * 4,
            column = first_column + static_cast<int>(threadIdx.x) % 16 * 4;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      if (first_row + row + i < rows && column + j < columns)
        out[(first_row + row + i) * columns + column + j] = sum[i][j];
}

/// plane[i, q, c] = sum over y of waves_y[y, q] along_x[i, y, c].
__global__ void __launch_bounds__(kBlockThreads)
    along_y_kernel(int box, int columns, const float* __restrict__ along_x, const float* __restrict__ waves,
                   float* __restrict__ out) {
  __shared__ BlockOperands shared;
  const float* from = along_x + static_cast<std::size_t>(blockIdx.x) * box * columns;
  const int first_row = static_cast<int>(blockIdx.y) * kBlockSide,
            first_column = static_cast<int>(blockIdx.z) * kBlockSide;
  float sum[4][4] = {};
  block_product<Along::side, Along::side>(
      shared, box,
      [&](int r, int k) { return first_row + r < columns ? waves[k * columns + first_row + r] : 0.0f; },
      [&](int c, int k) { return first_column + c < columns ? from[k * columns + first_column + c] : 0.0f; },
      sum);
  const int row = first_row + static_cast<int>(threadIdx.x) / 16 * 4,
            column = first_column + static_cast<int>(threadIdx.x) % 16 * 4;
  float* to = out + static_cast<std::size_t>(blockIdx.x) * columns * columns;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      if (row + i < columns && column + j < columns) to[(row + i) * columns + column + j] = sum[i][j];
}

/// F(kx, ky) from the products with cosines (P) and sines (Q) in y, stored for kx, ky >= 0: F(+-ky) = P -+ i
/// Q; Friedel's mate supplies kx < 0.
__device__ __forceinline__ float2 plane_value(const float2* plane, int reach, int kx, int ky) {
  const bool mate = kx < 0;
  if (mate) {
    kx = -kx;
    ky = -ky;
  }
  const int rows = reach + 1, row = ky < 0 ? -ky : ky;
  const float2 p = plane[row * rows + kx], q = plane[(rows + row) * rows + kx];
  const float sign = ky < 0 ? -1.0f : 1.0f;
  const float re = p.x + sign * q.y, im = p.y - sign * q.x;
  return make_float2(re, mate ? -im : im);
}

__global__ void __launch_bounds__(kPointThreads)
    sample_kernel(PolarSampler sampler, int points, const float2* __restrict__ planes,
                  float2* __restrict__ samples) {
  const int point = static_cast<int>(blockIdx.y) * kPointThreads + static_cast<int>(threadIdx.x);
  if (point >= points) return;
  const std::size_t side = sampler.reach + 1;
  const float2* plane = planes + static_cast<std::size_t>(blockIdx.x) * 2 * side * side;
  const int x = sampler.first[2 * point], y = sampler.first[2 * point + 1];
  const float* wx = sampler.weights + static_cast<std::size_t>(point) * 2 * math::kPolarTaps;
  const float* wy = wx + math::kPolarTaps;
  float2 sum = make_float2(0.0f, 0.0f);
  for (int j = 0; j < math::kPolarTaps; ++j) {
    float2 line = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < math::kPolarTaps; ++i) {
      const float2 v = plane_value(plane, sampler.reach, x + i, y + j);
      line.x += wx[i] * v.x;
      line.y += wx[i] * v.y;
    }
    sum.x += wy[j] * line.x;
    sum.y += wy[j] * line.y;
  }
  samples[static_cast<std::size_t>(blockIdx.x) * points + point] = sum;
}

template <int W>
__global__ void __launch_bounds__(kPointThreads)
    slices_kernel(const __grid_constant__ Window window, math::GridShape volume,
                  const float2* __restrict__ spectrum, const double* __restrict__ matrices, PolarTables grid,
                  float2* __restrict__ samples) {
  __shared__ math::SliceAxes axes;
  __shared__ bool good;
  const double* matrix = matrices + 9 * static_cast<std::size_t>(blockIdx.x);
  if (threadIdx.x == 0) {
    axes = math::slice_axes(matrix, volume);
    good = math::is_rotation(matrix);
  }
  __syncthreads();
  const int half = grid.half(), points = grid.n_rings * half;
  const int i = static_cast<int>(blockIdx.y) * kPointThreads + static_cast<int>(threadIdx.x);
  if (i >= points) return;
  const double r = grid.radii[i / half];
  const auto point =
      math::slice_point(axes, volume, r * grid.cos_theta[i % half], r * grid.sin_theta[i % half]);
  samples[static_cast<std::size_t>(blockIdx.x) * points + i] =
      good ? gather<W>(window, volume, spectrum, point)
           : make_float2(__int_as_float(0x7fc00000), __int_as_float(0x7fc00000));  // NaN
}

}  // namespace

void polar(const PolarTables& grid, const PolarSampler& sampler, const float* images, std::size_t n,
           const PolarScratch& scratch, float2* samples, Stream stream) {
  if (n == 0) return;
  const int columns = sampler.columns(), points = grid.n_rings * grid.half();
  const std::size_t rows = n * grid.box;
  const unsigned tiles = blocks_along(columns);
  launch(along_x_kernel, {dim3(blocks_along(rows), tiles), kBlockThreads, 0, stream}, grid.box, columns,
         images, rows, sampler.waves_x, scratch.along_x);
  const auto images_n = static_cast<unsigned>(n);
  launch(along_y_kernel, {dim3(images_n, tiles, tiles), kBlockThreads, 0, stream}, grid.box, columns,
         scratch.along_x, sampler.waves_y, scratch.plane);
  const auto chunks = static_cast<unsigned>((points + kPointThreads - 1) / kPointThreads);
  launch(sample_kernel, {dim3(images_n, chunks), kPointThreads, 0, stream}, sampler, points,
         reinterpret_cast<const float2*>(scratch.plane), samples);
}

void polar_slices(const math::GridShape& volume, const math::WindowTable& window, const float2* spectrum,
                  const double* matrices, std::size_t n, const PolarTables& grid, float2* samples,
                  Stream stream) {
  if (n == 0) return;
  const int points = grid.n_rings * grid.half();
  const dim3 blocks(static_cast<unsigned>(n),
                    static_cast<unsigned>((points + kPointThreads - 1) / kPointThreads));
  with_width(window.width, [&](auto width) {
    launch(slices_kernel<decltype(width)::value>, {blocks, kPointThreads, 0, stream}, window_of(window),
           volume, spectrum, matrices, grid, samples);
  });
}

}  // namespace verglas::cuda
