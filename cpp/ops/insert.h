// insert: the adjoint of project. Puts slices, and their weights, back into the half volume.
#pragma once
#include <cstddef>

#include "ops/grid.h"

namespace verglas::cpu {

/// What is inserted; null pointers mean "none" (factor 1, no shift).
struct InsertInput {
  std::size_t n;
  const double* matrices;  // (n, 9)
  const Complex* images;   // (n, box, box/2 + 1) phase-centred half transforms X; may be null where values is
  const float* ctf;        // (n, box, box/2 + 1) C
  const float* shell_weight;  // (n, max_radius + 1) weight per shell, 1/sigma^2
  const double* shifts_px;    // (n, 2) displacement of the particle, as in project
  int max_radius;
  const double* curvature;  // (n) of the slices, as in project
};

/// Where it goes; (rows, rows, columns) float64, added to. Either array may be null: its sum is then not made.
struct InsertSums {
  std::complex<double>* values;  // sum of C X exp(+2 pi i k.shift / box) / sigma^2
  double* weights;               // sum of C^2 / sigma^2
};

/// values += P^T [C X S / sigma^2], weights += P^T [C^2 / sigma^2], with the taps of project.
/// Each pixel goes to the half volume once; `fold_friedel` adds what fell on x <= 0 to its mates, after which the
/// sums are those of the full plane (kx < 0 included).
///   determinism  every grid point receives its images in order, whatever num_threads and the batch: bitwise
///                equal sums
///   cost         about 0.8 max_radius^2 2 W^3 (2 + 1) multiply-adds per image; parallel over images, then over tiles
///                of the grid
///   memory       36 bytes per pixel and tile that its taps touch, of as many images as 96 MB or an eighth of the grid
///                (the larger) have room for, or of all given
void insert(const math::GridShape& grid, const WindowTable& window, const InsertInput& input,
            const InsertSums& sums, int num_threads);

/// Bytes that insert takes for a call with n images besides its arguments: what a plan of memory counts.
std::size_t insert_room_bytes(const math::GridShape& grid, const WindowTable& window, std::size_t n,
                              int max_radius);

/// Adds Friedel's mates on the planes x = 0 and x < 0 (halo); call once, after the last insertion, on the
/// finished sums.
void fold_friedel(const math::GridShape& grid, const InsertSums& sums);

/// out[q] = sum over the group's n matrices h of in[h q], for signed permutation matrices h (n, 9) of
/// integers: exact, no interpolation. `in` must be folded; Friedel's mate supplies x < 0. out is overwritten,
/// its halo is zero. The sum is the same at all points h q, so it is made once per orbit.
///   group   the matrices' products are among them: the caller's to check (ops.symmetrise does, for both
///           backends); an orbit would else have several sums
///   cost    each point read and written once; parallel over planes
void symmetrise(const math::GridShape& grid, const InsertSums& in, const int* matrices, int n,
                const InsertSums& out, int num_threads);

}  // namespace verglas::cpu
