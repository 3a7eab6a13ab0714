// insert: the adjoint of project, on the device. Two ways to add up, and what to do with finished sums.
#pragma once
#include <cstddef>

#include "cuda/grid.h"

namespace verglas::cuda {

/// What is inserted; device arrays, null pointers mean "none" (factor 1, no shift).
struct InsertInput {
  std::size_t n;
  const double* matrices;  // (n, 9)
  const float2* images;    // (n, box, box/2 + 1) phase-centred half transforms X; may be null where values is
  const float* ctf;        // (n, box, box/2 + 1) C
  const float* shell_weight;  // (n, max_radius + 1) 1/sigma^2
  const double* shifts_px;    // (n, 2) displacement of the particle
  int max_radius;
  const double* curvature;  // (n) of the slices, as in project
};

/// Where it goes; (rows, rows, columns), float64 on the device, added to. Either may be null: its sum is not made.
struct InsertSums {
  double2* values;  // sum of C X exp(+2 pi i k.shift / box) / sigma^2
  double* weights;  // sum of C^2 / sigma^2
};

/// The sums of cpu::insert, one thread per pixel, its W^3 taps added by float64 atomics: the quickest, but
/// the order of additions, and with it the last bits, changes from run to run.
///   cost  per pixel in use 3 W^3 atomic additions (24 W^3 bytes read and written in the L2 cache)
/// An image whose matrix is no rotation adds NaN at the origin.
void insert(const math::GridShape& grid, const math::WindowTable& window, const InsertInput& input,
            const InsertSums& sums, Stream stream);

/// What insert_ordered needs to be lent.
struct InsertScratch {
  float2* values;  // (n, box, box/2 + 1)
  float* weights;  // (n, box, box/2 + 1)
};

/// The same sums, bitwise repeatable for any batches: one thread per grid point looks through the images, in
/// order, for the pixels whose taps reach it, in raster order. No atomics, one read and one write of the sums.
///   cost  bricks of 8 x 8 x 4 points pass over an image in one test; points within sqrt(3) W/2 of a slice look
///         at about (2 sqrt(3) W/2 box/padded + 1)^2 pixels, of which one in four counts: some 10 times insert's
///         arithmetic, none of its memory traffic
void insert_ordered(const math::GridShape& grid, const math::WindowTable& window, const InsertInput& input,
                    const InsertScratch& scratch, const InsertSums& sums, Stream stream);

/// Adds Friedel's mates on the planes x = 0 and x < 0 (halo), as cpu::fold_friedel. One pass over the halo.
void fold_friedel(const math::GridShape& grid, const InsertSums& sums, Stream stream);

/// out[q] = sum over n signed permutations h (n, 9) int32, on the device, of in[h q], as cpu::symmetrise.
void symmetrise(const math::GridShape& grid, const InsertSums& in, const int* matrices, int n,
                const InsertSums& out, Stream stream);

}  // namespace verglas::cuda
