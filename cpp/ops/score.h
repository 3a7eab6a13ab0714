// score: the exhaustive search of images against central slices at every in-plane angle and shift.
//
//   L(e, psi, t) = sum_k Re[conj(C A) X S(t)] / sigma2 - 1/2 sum_k C^2 |A|^2 / sigma2 + log priors of e, psi, t
//
// over the full Fourier plane 0 < |k| < R + 1/2, in polar harmonics (ops/polar.h). An entry e is a slice (2 i)
// or its opposite (2 i + 1), the projection seen from the other side. psi_j = (j + 1/2) 360 / n_psi degrees.
// The steps are those of math/score_settings.h, in two passes:
//   1. maxima, images in the SIMD lanes; then choose;
//   2. sums and collect at once, shifts in the SIMD lanes, with limit as lists grow; then trim.
// Scores are never stored beyond one tile of entries. Each lane's arithmetic is independent of the packing
// and every sum has one order, so the result for an image does not depend on threads, on the batch, or on its
// place in it.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "math/score_settings.h"
#include "ops/score_kernel.h"

namespace verglas::cpu {

using math::ScoreSettings;

/// Slices of a block of directions. prior may hold -inf: that entry is absent.
struct Reference {
  const cfloat* harmonics;  ///< (n, grid.size), normalised a_m(r)
  const cfloat* power;      ///< (n, n_rings, n_power), normalised
  const float* prior;       ///< (n, 2): slice, opposite
  std::size_t n;
};

struct ScoreInput {
  const cfloat* samples;    ///< (n, n_rings, half), polar transforms X of the images
  const double* ctf;        ///< (n, math::kOpticsColumns) or null
  const float* inv_sigma2;  ///< (n, n_rings)
  const float* centres;     ///< (n, 2) pixels: the shifts are centre + shift; or null
  const float* shifts;      ///< (n_shifts, 2) x, y pixels
  const float* log_shift;   ///< (n_shifts)
  const float* log_psi;     ///< (n_psi) or null
  std::size_t n, n_shifts;
  double pixel_size_A;
};

struct Candidate {
  float score;
  std::int32_t entry, psi, shift;
};

struct ImageScore {
  Candidate best{kNever, -1, -1, -1};
  /// Log sum over all poses of exp(L): the log marginal likelihood when priors sum to one.
  double log_sum = 0;
  double kept = 0;                    ///< share of the sum that the candidates hold
  std::vector<Candidate> candidates;  ///< by falling score; ties by rising entry, psi, shift
};

/// Made once per grid; holds the packed reference. run() borrows its arguments for the call.
class ScorePlan {
 public:
  ScorePlan(const PolarGrid& grid, const ScoreSettings& settings);
  void set_reference(const Reference& reference);
  std::vector<ImageScore> run(const ScoreInput& in, int num_threads) const;
  std::size_t n_slices() const { return slices_.n_slices; }
  const PolarGrid& grid() const { return grid_; }
  const ScoreSettings& settings() const { return settings_; }
  /// Bytes held by the packed reference, and by each thread of run() for so many images and shifts.
  std::size_t reference_bytes() const;
  std::size_t thread_bytes(std::size_t n_shifts) const;

 private:
  PolarGrid grid_;
  ScoreSettings settings_;
  PsiTables psi_;
  PackedSlices slices_;
};

}  // namespace verglas::cpu
