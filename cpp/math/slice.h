// Geometry of central slices: where a pixel of an image's transform lies in the half volume of a map's transform.
#pragma once
#include <cmath>

#include "math/macros.h"

namespace verglas::math {

/// The gridded transform of a cubic map: coordinates -extent .. extent in z and y, -halo .. extent in x (kx
/// >= 0; the rest is Friedel's mate). One step is one Fourier pixel of the padded box. C order (z, y, x).
struct GridShape {
  int box;      // side of the images, pixels
  int padded;   // side of the padded box the grid belongs to
  int extent;   // outermost grid coordinate, interpolation margin included
  int halo;     // grid columns stored at x < 0, so that no tap needs wrapping
  int columns;  // stored row length: halo + 1 + extent, plus what a SIMD row may over-read

  VG_HD int rows() const { return 2 * extent + 1; }
};

/// Pixels in use are round(|k|) <= max_radius: k^2 < (max_radius + 1/2)^2, in whole numbers.
VG_HD bool in_disc(int kx, int ky, int max_radius) {
  return static_cast<long long>(kx) * kx + static_cast<long long>(ky) * ky <=
         static_cast<long long>(max_radius) * max_radius + max_radius;
}

/// The largest kx in use on the row ky of an image, or -1.
VG_HD int last_column(int ky, int max_radius, int box) {
  if (!in_disc(0, ky, max_radius)) return -1;
  int kx =
      static_cast<int>(std::sqrt((max_radius + 0.5) * (max_radius + 0.5) - static_cast<double>(ky) * ky));
  while (!in_disc(kx, ky, max_radius)) --kx;
  return kx < (box - 1) / 2 ? kx : (box - 1) / 2;
}

/// Frequency of element `index` of an axis of rfft2's output.
VG_HD int frequency(int index, int box) { return index < (box + 1) / 2 ? index : index - box; }

/// Shell of a Fourier pixel: its distance from the origin, rounded.
VG_HD int shell_of(int kx, int ky) {
  return static_cast<int>(std::lrint(std::sqrt(static_cast<double>(kx) * kx + static_cast<double>(ky) * ky)));
}

/// A slice: k3 = A^T (kx, ky, 0) in units of the padded grid. RELION's convention: V^(A^T k) is the slice, so
/// the rows of A, scaled by padded / box, are the images of the x, y and z axes.
struct SliceAxes {
  double x[3], y[3], z[3];
};

VG_HD SliceAxes slice_axes(const double* matrix, const GridShape& grid) {
  const double scale = static_cast<double>(grid.padded) / grid.box;
  SliceAxes axes;
  for (int i = 0; i < 3; ++i) {
    axes.x[i] = matrix[i] * scale;
    axes.y[i] = matrix[3 + i] * scale;
    axes.z[i] = matrix[6 + i] * scale;
  }
  return axes;
}

/// Array coordinates (all >= 0) of a Fourier pixel in the half volume; `mate` says that Friedel's mate -k was
/// taken, so the value is the complex conjugate.
struct SlicePoint {
  double z, y, x;
  bool mate;
};

VG_HD SlicePoint to_half_volume(const GridShape& grid, double x, double y, double z) {
  const bool mate = x < 0.0;
  if (mate) {
    x = -x;
    y = -y;
    z = -z;
  }
  return {z + grid.extent, y + grid.extent, x + grid.halo, mate};
}

/// The pixel (kx, ky) of a slice.
VG_HD SlicePoint slice_point(const SliceAxes& axes, const GridShape& grid, double kx, double ky) {
  return to_half_volume(grid, axes.x[0] * kx + axes.y[0] * ky, axes.x[1] * kx + axes.y[1] * ky,
                        axes.x[2] * kx + axes.y[2] * ky);
}

/// The voxel (kx, ky, kz) of a rotated map.
VG_HD SlicePoint space_point(const SliceAxes& axes, const GridShape& grid, double kx, double ky, double kz) {
  return to_half_volume(grid, axes.x[0] * kx + axes.y[0] * ky + axes.z[0] * kz,
                        axes.x[1] * kx + axes.y[1] * ky + axes.z[1] * kz,
                        axes.x[2] * kx + axes.y[2] * ky + axes.z[2] * kz);
}

/// The pixel (kx, ky) of a slice on a paraboloid, `curvature` k^2 above its plane (Ewald's sphere). Its own branch for a
/// plane: the sum of three terms may round otherwise than that of two.
VG_HD SlicePoint curved_point(const SliceAxes& axes, const GridShape& grid, double kx, double ky,
                              double curvature) {
  if (curvature == 0.0) return slice_point(axes, grid, kx, ky);
  return space_point(axes, grid, kx, ky, curvature * (kx * kx + ky * ky));
}

}  // namespace verglas::math
