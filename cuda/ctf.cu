#include <limits>
#include <stdexcept>

#include "cuda/ctf.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxChunks = 64;  // blocks per image; each strides over the image's pixels

__global__ void __launch_bounds__(kThreads)
    ctf_kernel(const double* __restrict__ params, int box, double step, float* __restrict__ out) {
  const std::size_t image = blockIdx.x;
  __shared__ math::CtfCoefficients shared;
  if (threadIdx.x == 0) {
    const double* row = params + image * math::kOpticsColumns;
    shared = math::ctf_coefficients(math::optics_params(row));
  }
  __syncthreads();
  const math::CtfCoefficients c = shared;

  const int half = box / 2 + 1;
  const std::size_t pixels = static_cast<std::size_t>(box) * half;
  float* image_out = out + image * pixels;
  const std::size_t stride = static_cast<std::size_t>(gridDim.y) * kThreads;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.y) * kThreads + threadIdx.x; i < pixels;
       i += stride) {
    const int iy = static_cast<int>(i / half), ix = static_cast<int>(i % half);
    const double kx = step * ix, ky = step * (iy < (box + 1) / 2 ? iy : iy - box);
    float value = math::ctf_value(c, kx, ky);
    if (c.b_quarter != 0.0) value *= math::ctf_envelope(c, kx, ky);
    image_out[i] = value;
  }
}

}  // namespace

void ctf(const double* params, std::size_t n, int box, double pixel_size_A, float* ctf, Stream stream) {
  if (n == 0) return;  // an empty grid is an invalid launch
  if (n > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("params: more than 2^31 - 1 images in one call; split the batch");
  const std::size_t pixels = static_cast<std::size_t>(box) * (box / 2 + 1);
  const std::size_t wanted = (pixels + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(n), static_cast<unsigned>(wanted < kMaxChunks ? wanted : kMaxChunks));
  launch(ctf_kernel, {grid, kThreads, 0, stream}, params, box, 1.0 / (box * pixel_size_A), ctf);
}

}  // namespace verglas::cuda
