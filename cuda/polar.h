// polar: images and central slices on the rings of a polar Fourier grid, and slices put back, on the device.
#pragma once
#include <cstddef>

#include "cuda/grid.h"
#include "cuda/insert.h"
#include "cuda/polar_weighted.h"

namespace verglas::cuda {

/// Tables of the interpolation from the padded transform (math/polar_window.h), on the device. K = reach + 1.
struct PolarSampler {
  int reach;
  const float* waves_x;  ///< (box, 2 K): cos, -sin of kx = 0 .. reach by turns, over the window's transform
  const float* waves_y;  ///< (box, 2 K): all cosines of ky = 0 .. reach, then all sines
  const std::int32_t* first;  ///< (n_rings half, 2): first tap in x and y
  const float* weights;       ///< (n_rings half, 2, math::kPolarTaps)
  VG_HD int columns() const { return 2 * (reach + 1); }
};

/// Lent for the transforms along x, and then along both axes, of n images.
struct PolarScratch {
  float* along_x;  ///< (n, box, 2 K)
  float* plane;    ///< (n, 2 K, 2 K)
};

/// samples[i, ring, angle] of n real images (n, box, box), as cpu::polar.
///   method   the part of the 1.5 times padded transform that rings touch, as two matrix products with tables of
///            cosines and sines; then 6 x 6 taps a sample
///   cost     2 box 2K (box + 2K) operations and 4 box^2 bytes an image; 36 x 16 bytes, from cache, a sample.
///            One chain of sums per value: the result does not depend on the batch
void polar(const PolarTables& grid, const PolarSampler& sampler, const float* images, std::size_t n,
           const PolarScratch& scratch, float2* samples, Stream stream);

/// samples[i, ring, angle] of n central slices, as cpu::polar_slices; a slice whose matrix is no rotation is NaN.
///   cost     n_rings n_theta / 2 gathers of W^3 taps a slice
void polar_slices(const math::GridShape& volume, const math::WindowTable& window, const float2* spectrum,
                  const double* matrices, std::size_t n, const PolarTables& grid, float2* samples,
                  Stream stream);

/// n slices on a polar grid, device arrays; a null array is not inserted.
struct PolarSlices {
  std::size_t n;
  const double* matrices;  // (n, 9)
  const float2* values;    // (n, n_rings, n_theta / 2)
  const float* weights;    // (n, n_rings, n_theta / 2)
};

/// sums += P^T values, P^T weights, as cpu::polar_insert. `ordered`: bitwise repeatable for any batches, each
/// grid point looking for the samples that reach it (cuda/insert.h says what either way costs); else by atomics.
void polar_insert(const math::GridShape& volume, const math::WindowTable& window, const PolarSlices& slices,
                  const PolarTables& grid, bool ordered, const InsertSums& sums, Stream stream);

}  // namespace verglas::cuda
