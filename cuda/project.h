// project: central slices of a map's gridded transform, as half transforms of images, on the device.
#pragma once
#include <cstddef>

#include "cuda/grid.h"

namespace verglas::cuda {

/// What the images look like beside the orientation; device arrays, null pointers mean "none".
struct SliceOptions {
  int max_radius;           // pixels with round(|k|) <= max_radius are computed, the rest is zero
  const double* shifts_px;  // (n, 2) x, y: displacement of the particle from the centre
  const float* ctf;         // (n, box, box/2 + 1) factor of the slice
  const double* curvature;  // (n) height of the slice above its plane over k^2, as in cpu::project
};

/// The images of cpu::project (same formula, same taps), asynchronously on `stream`.
///   spectrum   (rows, rows, columns) complex64;  matrices  (n, 9) float64
///   images     (n, box, box/2 + 1) complex64, written; an image whose matrix is no rotation is NaN
///   cost       per pixel in use W^3 taps: 8 W^3 bytes (from cache, mostly), 4 W^3 + 2 W^2 multiply-adds;
///              0.8 max_radius^2 2 pixels an image
void project(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
             const double* matrices, std::size_t n, const SliceOptions& options, float2* images,
             Stream stream);

/// rotated[kz, ky, kx] = V^(A^T k), the transform of the map A V (cpu::rotate): written,
/// (box, box, box/2 + 1) complex64.
///   matrix  9 doubles on the host, a rotation;  cost  2 max_radius^3 gathers of W^3 taps
void rotate(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
            const double* matrix, int max_radius, float2* rotated, Stream stream);

}  // namespace verglas::cuda
