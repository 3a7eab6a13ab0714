// polar_insert: the adjoint of polar_slices. Puts polar samples of slices, and their weights, back into the
// half volume.
#pragma once
#include <cstddef>

#include "ops/insert.h"
#include "ops/polar.h"

namespace verglas::cpu {

/// n slices on a polar grid; a null array is not inserted.
struct PolarSlices {
  std::size_t n;
  const double* matrices;  // (n, 9) rotation matrices, row-major, RELION's convention
  const cfloat* values;    // (n, n_rings, n_theta / 2)
  const float* weights;    // (n, n_rings, n_theta / 2)
};

/// sums.values += P^T values, sums.weights += P^T weights, P = polar_slices: same points, same taps.
/// Samples of the half circle go to the half volume once; `fold_friedel` (ops/insert.h) adds their mates. A sum
/// over the plane needs the ring weights w_r in `values` and `weights`.
///   determinism  every grid point receives its samples in order, whatever num_threads and the blocks of slices
///   cost         n_rings n_theta / 2 samples of 3 W^3 multiply-adds per slice; parallel over slabs of z
void polar_insert(const math::GridShape& volume, const WindowTable& window, const PolarSlices& slices,
                  const PolarGrid& grid, const InsertSums& sums, int num_threads);

}  // namespace verglas::cpu
