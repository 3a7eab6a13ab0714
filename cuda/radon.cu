#include <algorithm>

#include "cuda/radon.h"

namespace verglas::cuda {
namespace {

constexpr unsigned kThreads = 128, kMostBlocks = 65535;

__global__ void __launch_bounds__(kThreads)
    radon_kernel(RadonViews in, const float* __restrict__ volume, float* __restrict__ images) {
  const int t = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (t >= in.width) return;
  const std::size_t plane = static_cast<std::size_t>(in.ny) * in.nx;
  for (std::size_t task = blockIdx.y; task < static_cast<std::size_t>(in.n) * in.ny; task += gridDim.y) {
    const std::size_t y = task % in.ny;
    const math::RadonView view = in.views[task / in.ny];
    const int lines = view.by_rows ? in.nz : in.nx, n = view.by_rows ? in.nx : in.nz;
    const std::size_t next = view.by_rows ? 1 : plane, step = view.by_rows ? plane : 1;
    const double across = view.slope * (t - in.width / 2);
    const float* line = volume + y * in.nx;
    float sum = 0.0f;
    for (int l = 0; l < lines; ++l, line += step) {
      const double p = across + view.offset(l);
      if (!(p > -1.0 && p < n)) continue;
      const int below = static_cast<int>(floor(p));
      const float part = static_cast<float>(p - below);
      const float low = below >= 0 ? line[below * next] : 0.0f;
      const float high = below + 1 < n ? line[(below + 1) * next] : 0.0f;
      sum += low + part * (high - low);
    }
    images[task * in.width + t] = static_cast<float>(fabs(view.slope)) * sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    radon_adjoint_kernel(RadonViews in, const float* __restrict__ images, float* __restrict__ volume) {
  const int x = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (x >= in.nx) return;
  for (std::size_t row = blockIdx.y; row < static_cast<std::size_t>(in.nz) * in.ny; row += gridDim.y) {
    const int z = static_cast<int>(row / in.ny);
    const std::size_t y = row % in.ny;
    float sum = 0.0f;
    for (int i = 0; i < in.n; ++i) {
      const math::RadonView view = in.views[i];
      const int line = view.by_rows ? z : x, at = view.by_rows ? x : z;
      const double t = (at - view.offset(line)) / view.slope + in.width / 2;
      if (!(t > -1.0 && t < in.width)) continue;
      const int below = static_cast<int>(floor(t));
      const float part = static_cast<float>(t - below), steep = static_cast<float>(fabs(view.slope));
      // At most these two: neighbouring rays lie a pixel or more apart on a line.
      const float* image = images + (static_cast<std::size_t>(i) * in.ny + y) * in.width;
      const float low = below >= 0 ? image[below] : 0.0f;
      const float high = below + 1 < in.width ? image[below + 1] : 0.0f;
      sum +=
          steep * (fmaxf(0.0f, 1.0f - steep * part) * low + fmaxf(0.0f, 1.0f - steep * (1.0f - part)) * high);
    }
    volume[row * in.nx + x] += sum;
  }
}

dim3 blocks(int columns, std::size_t rows) {
  return dim3((static_cast<unsigned>(columns) + kThreads - 1) / kThreads,
              static_cast<unsigned>(std::min<std::size_t>(rows, kMostBlocks)));
}

}  // namespace

void radon(const RadonViews& in, const float* volume, float* images, Stream stream) {
  if (in.n == 0 || in.ny == 0) return;
  const dim3 grid = blocks(in.width, static_cast<std::size_t>(in.n) * in.ny);
  launch(radon_kernel, {grid, kThreads, 0, stream}, in, volume, images);
}

void radon_adjoint(const RadonViews& in, const float* images, float* volume, Stream stream) {
  if (in.n == 0 || in.ny == 0) return;
  const dim3 grid = blocks(in.nx, static_cast<std::size_t>(in.nz) * in.ny);
  launch(radon_adjoint_kernel, {grid, kThreads, 0, stream}, in, images, volume);
}

}  // namespace verglas::cuda
