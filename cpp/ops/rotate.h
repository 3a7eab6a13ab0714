// rotate: a map turned about its centre, in Fourier space: every plane of the rotated half transform.
#pragma once
#include <cstddef>

#include "ops/grid.h"

namespace verglas::cpu {

/// rotated[kz, ky, kx] = V^(A^T k), the transform of the map A V, for round(|k|) <= max_radius, zero elsewhere.
///   spectrum   (rows, rows, columns) complex64, as for project
///   matrix     9 doubles, row-major; a point at r moves to A r
///   rotated    (box, box, box/2 + 1) complex64, phase-centred half transform, written
///   cost       2 max_radius^3 gathers of W^3 taps; parallel over planes, independent of num_threads
void rotate(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
            const double* matrix, int max_radius, Complex* rotated, int num_threads);

}  // namespace verglas::cpu
