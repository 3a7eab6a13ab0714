// maximise: the adjoint of score on the device. From images and a sparse posterior to sums per slice, in the
// harmonic domain. What is computed is cpp/ops/maximise.h; its loops are these.
//
// Candidates come sorted by slice, image, opposite, shift, psi, weight. Those that share all but psi are a
// term: one factor sum gamma e^{-i m psi} for each m, one set of harmonics b (a column: image and shift).
// Terms that share slice and image are a group.
//   1. factors of every term and m, one thread each
//   2. one block per slice and 32 harmonics x 32 rings, a thread 4 of them: it goes through the groups in order and
//      keeps num(m, r) in registers, in float64; cross terms of the residual are summed over harmonics as it goes
//   3. one block per slice: den and the power of the residual, even harmonics only
//   4. residuals of each image, its groups in order of slices
// Every sum has one order, so the result is bitwise the same for any batches and any order of an image's candidates.
//   cost    per term 8 size bytes of b read and 4 size multiply-adds, 8 (M + 1) bytes of factors; per slice 32 size
//           bytes of sums read and written
//   floor   the bytes of b: arithmetic is a third of a multiply-add per byte
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/polar_weighted.h"

namespace verglas::cuda {

/// Harmonics that one block of step 2 sums: the extent of PosteriorGroups::cross.
constexpr int kHarmonicChunk = 32;

/// The sorted posterior of some images, on the device.
struct PosteriorTerms {
  const double* psi_turns;          ///< (entries)
  const double* gamma;              ///< (entries)
  const std::int32_t* first_entry;  ///< (terms + 1)
  const std::int32_t* column;       ///< (terms) row of b
  const std::uint8_t* opposite;     ///< (terms)
  const std::int32_t* first_term;   ///< (groups + 1)
  const std::int32_t* image;        ///< (groups) row of h and inv_sigma2
  const std::int32_t* first_group;  ///< (slices in use + 1)
  const std::int32_t* slice;        ///< (slices in use) rising
  std::size_t terms, groups, slices;
};

struct MaximiseArrays {
  const float* b;           ///< (columns, size) complex: shifted_rows of C X S
  const float* h;           ///< (n, n_rings, n_power) complex: even harmonics of w_r C^2
  const float* inv_sigma2;  ///< (n, n_rings)
  float* factors;           ///< (terms, max_m + 1) complex, scratch
  double* numerator;        ///< (n_slices, size) complex, added to
  double* denominator;      ///< (n_slices, n_rings, n_power) complex, added to
  const float* harmonics;   ///< (n_slices, size) complex of the reference, or null: no residuals
  const float* power;       ///< (n_slices, n_rings, n_power) complex of the reference
  double* cross;            ///< (groups, harmonic chunks, n_rings) written; null without reference
  double* power_sum;        ///< (groups, n_rings) written; null without reference
  int n_power;
};

void maximise_add(const PolarTables& grid, const PosteriorTerms& terms, const MaximiseArrays& arrays,
                  Stream stream);

/// cross[i, r] += over groups order[first[i]] .. of group_cross, over chunks; power likewise.
struct ResidualGroups {
  const std::int32_t* order;  ///< (groups) by image, then slice
  const std::int64_t* first;  ///< (n + 1)
  const double* cross;        ///< (groups, chunks, n_rings)
  const double* power;        ///< (groups, n_rings)
  std::size_t n;
  int chunks, n_rings;
};
void maximise_residuals(const ResidualGroups& groups, double* cross, double* power, Stream stream);

/// Sums of n slices as polar samples of the half circle, w_r included: what polar_insert takes.
///   index (n) int64; values (n, n_rings, half) complex, weights (n, n_rings, half), written
void maximise_slices(const PolarTables& grid, int n_power, const double* numerator, const double* denominator,
                     const std::int64_t* index, std::size_t n, float* values, float* weights, Stream stream);

}  // namespace verglas::cuda
