#include <limits>

#include "cuda/project.h"
#include "math/rotation.h"

namespace verglas::cuda {
namespace {

/// `point_of(axes, kx, ky)` is where a pixel of the slice lies: planes have a kernel of their own, for the curved slice's
/// height costs registers.
template <int W, class PointOf>
__device__ void project_pixel(const Window& window, const math::GridShape& grid,
                              const float2* __restrict__ spectrum, const double* __restrict__ matrices,
                              const SliceOptions& options, float2* __restrict__ images, PointOf point_of) {
  const std::size_t image = blockIdx.x;
  __shared__ math::SliceAxes shared_axes;
  __shared__ bool good;
  if (threadIdx.x == 0) {
    shared_axes = math::slice_axes(matrices + 9 * image, grid);
    good = math::is_rotation(matrices + 9 * image);
  }
  __syncthreads();
  const math::SliceAxes axes = shared_axes;

  const int half = grid.box / 2 + 1;
  const TilePixel pixel = tile_pixel(blockIdx.y, tiles_along(half));
  if (pixel.x >= half || pixel.y >= grid.box) return;
  const std::size_t at = (image * grid.box + pixel.y) * half + pixel.x;
  const int kx = pixel.x, ky = math::frequency(pixel.y, grid.box);
  if (!good) {
    images[at] = make_float2(__int_as_float(0x7fc00000), __int_as_float(0x7fc00000));  // NaN
    return;
  }
  float2 value = make_float2(0.0f, 0.0f);
  if (kx <= (grid.box - 1) / 2 && math::in_disc(kx, ky, options.max_radius)) {
    value = gather<W>(window, grid, spectrum, point_of(axes, kx, ky));
    if (options.shifts_px) {
      const double dx = options.shifts_px[2 * image], dy = options.shifts_px[2 * image + 1];
      value = multiply(value, phase_of(-(kx * dx + ky * dy) / grid.box));
    }
    if (options.ctf) {
      const float c = options.ctf[at];
      value = make_float2(c * value.x, c * value.y);
    }
  }
  images[at] = value;
}

template <int W>
__global__ void __launch_bounds__(kTileThreads)
    project_kernel(const __grid_constant__ Window window, math::GridShape grid,
                   const float2* __restrict__ spectrum, const double* __restrict__ matrices,
                   SliceOptions options, float2* __restrict__ images) {
  project_pixel<W>(
      window, grid, spectrum, matrices, options, images,
      [&](const math::SliceAxes& axes, int kx, int ky) { return math::slice_point(axes, grid, kx, ky); });
}

template <int W>
__global__ void __launch_bounds__(kTileThreads)
    curved_project_kernel(const __grid_constant__ Window window, math::GridShape grid,
                          const float2* __restrict__ spectrum, const double* __restrict__ matrices,
                          SliceOptions options, float2* __restrict__ images) {
  project_pixel<W>(window, grid, spectrum, matrices, options, images,
                   [&](const math::SliceAxes& axes, int kx, int ky) {
                     return math::curved_point(axes, grid, kx, ky, options.curvature[blockIdx.x]);
                   });
}

template <int W>
__global__ void __launch_bounds__(kTileThreads)
    rotate_kernel(const __grid_constant__ Window window, math::GridShape grid,
                  const float2* __restrict__ spectrum, math::SliceAxes axes, int max_radius,
                  float2* __restrict__ rotated) {
  const int half = grid.box / 2 + 1;
  const TilePixel pixel = tile_pixel(blockIdx.y, tiles_along(half));
  if (pixel.x >= half || pixel.y >= grid.box) return;
  const int kx = pixel.x, ky = math::frequency(pixel.y, grid.box),
            kz = math::frequency(static_cast<int>(blockIdx.x), grid.box);
  const long long k2 =
      static_cast<long long>(kx) * kx + static_cast<long long>(ky) * ky + static_cast<long long>(kz) * kz;
  const bool used =
      kx <= (grid.box - 1) / 2 && k2 <= static_cast<long long>(max_radius) * max_radius + max_radius;
  rotated[(static_cast<std::size_t>(blockIdx.x) * grid.box + pixel.y) * half + pixel.x] =
      used ? gather<W>(window, grid, spectrum, math::space_point(axes, grid, kx, ky, kz))
           : make_float2(0.0f, 0.0f);
}

}  // namespace

void project(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
             const double* matrices, std::size_t n, const SliceOptions& options, float2* images,
             Stream stream) {
  if (n == 0) return;  // an empty grid is an invalid launch
  if (n > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("matrices: more than 2^31 - 1 images in one call; split the batch");
  const dim3 blocks(static_cast<unsigned>(n), tiles_along(grid.box / 2 + 1) * tiles_along(grid.box));
  with_width(window.width, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch(options.curvature ? curved_project_kernel<kWidth> : project_kernel<kWidth>,
           {blocks, kTileThreads, 0, stream}, window_of(window), grid, spectrum, matrices, options, images);
  });
}

void rotate(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
            const double* matrix, int max_radius, float2* rotated, Stream stream) {
  const dim3 blocks(static_cast<unsigned>(grid.box), tiles_along(grid.box / 2 + 1) * tiles_along(grid.box));
  with_width(window.width, [&](auto width) {
    launch(rotate_kernel<decltype(width)::value>, {blocks, kTileThreads, 0, stream}, window_of(window), grid,
           spectrum, math::slice_axes(matrix, grid), max_radius, rotated);
  });
}

}  // namespace verglas::cuda
