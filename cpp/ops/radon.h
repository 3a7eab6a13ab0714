// radon: sums along parallel rays through slices, and the transpose (tilt series, 2D tomography).
#pragma once
#include <cstddef>

namespace verglas::cpu {

struct RadonShape {
  int nz, ny, nx;  // of the volume, (z, y, x); rays lie in planes of one y
  int n_angles, width;
};

/// images[i, y, t] = sum over the ray x cos a_i - z sin a_i = t of volume[z, y, x]
///   volume     (nz, ny, nx) float32; images (n_angles, ny, width) float32, written
///   method     one sample a row where abs(cos) >= abs(sin), else one a column, interpolated linearly (Joseph 1982)
///   cost       4 flops a sample, n_angles * ny * width * max(nz, nx) samples
///   order      each output is one sum in the order of the lines: threads change nothing
void radon(const RadonShape& shape, const float* volume, const double* angles_rad, float* images,
           int num_threads);

/// volume[z, y, x] += transpose of radon applied to images; the same weights, gathered per voxel in the order of angles
void radon_adjoint(const RadonShape& shape, const float* images, const double* angles_rad, float* volume,
                   int num_threads);

}  // namespace verglas::cpu
