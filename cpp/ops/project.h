// project: central slices of a map's gridded transform, as half transforms of images.
#pragma once
#include <cstddef>

#include "ops/grid.h"

namespace verglas::cpu {

/// What the images look like beside the orientation; null pointers mean "none".
struct SliceOptions {
  int max_radius;  // pixels with round(|k|) <= max_radius are computed, the rest is zero
  /// (n, 2) x, y: displacement of the particle from the centre (= minus the STAR origin)
  const double* shifts_px;
  const float* ctf;  // (n, box, box/2 + 1) factor of the slice
  /// (n) height of the slice above its plane at k, over k^2: per Fourier pixel. +-lambda / (2 box pixel size) is
  /// Ewald's sphere; the half transform is then that of one side band, which no real image has by itself
  const double* curvature = nullptr;
};

/// images[i, ky, kx] = ctf exp(-2 pi i k.shift / box) sum_taps window(z) window(y) window(x) spectrum[z, y, x]
/// at the grid point A^T (kx, ky, curvature k^2) padded / box; the conjugate of Friedel's mate where that point has x < 0.
///   spectrum   (rows, rows, columns) complex64, the transform of the map divided by the window's transform
///   matrices   (n, 9) rotation matrices, row-major, RELION's convention
///   images     (n, box, box/2 + 1) complex64, phase-centred half transforms, written
///   cost       about 0.8 max_radius^2 2 (W^3 + ...) complex multiply-adds per image; parallel over images,
///              independent of num_threads
void project(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
             const double* matrices, std::size_t n, const SliceOptions& options, Complex* images,
             int num_threads);

}  // namespace verglas::cpu
