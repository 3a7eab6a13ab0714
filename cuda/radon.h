// radon: sums along parallel rays through slices, and the transpose, on the device.
#pragma once
#include <cstddef>

#include "cuda/device.h"
#include "math/radon.h"

namespace verglas::cuda {

/// Views of slices: as cpp/ops/radon.h has them, but made on the host beforehand (math::radon_view).
struct RadonViews {
  const math::RadonView* views;  // (n), on the device
  int n, width;
  int nz, ny, nx;  // of the volume, (z, y, x); rays lie in planes of one y
};

/// images[i, y, t] = sum over the ray of volume[z, y, x]
///   volume  (nz, ny, nx) float32; images (n, ny, width) float32, written
///   method  a thread a ray: its samples in the order of the lines, positions in float64
///   cost    4 flops and 2 loads a sample; neighbouring rays read neighbouring voxels where they go by rows
void radon(const RadonViews& in, const float* volume, float* images, Stream stream);

/// volume[z, y, x] += transpose of radon applied to images; a thread a voxel, in the order of the views: no atomics
void radon_adjoint(const RadonViews& in, const float* images, float* volume, Stream stream);

}  // namespace verglas::cuda
