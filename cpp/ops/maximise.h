// maximise: the adjoint of score. From images and a sparse posterior to sums per slice, in the harmonic domain.
//
//   num_d(m, r) = sum_i 1/sigma2_i(r) sum_{psi, t} gamma e^{-i m psi} w_r b_{i,t}(m, r)
//   den_d(k, r) = sum_i 1/sigma2_i(r) sum_{psi, t} gamma e^{-2 i k psi} w_r h_i(k, r)
//
// b_{i,t} = harmonics of C X S(t), h_i = even harmonics of C^2 (ops/polar.h). A candidate at the opposite of
// a slice (rot + 180, 180 - tilt: the slice read at -theta, harmonics (-1)^m conj a_m) adds (-1)^m conj of
// its term, so that both share one sum. In-plane angles cost one factor per m, not one slice: for an image and
// a slice
//   G(m, r) = sum_t [sum_psi gamma e^{-i m psi}] b_t(m, r)
// is one pass over the harmonics per shift. The same G gives the statistics of the residual |X S - C A|^2:
//   cross_i(r) = sum_{d,psi,t} gamma sum_theta w_r Re[conj(C A) X S] = sum_d sum_m eps_m Re[conj(a_d) G_{i,d}]
//   power_i(r) = sum_{d,psi,t} gamma sum_theta w_r C^2 |A|^2
//
// Determinism: sums are float64; each slice adds its images in the order they come, each image its candidates
// in an order of their own (opposite, shift, psi): bitwise equal for any number of threads, any batches, any
// order of an image's candidates.
#pragma once
#include <cstdint>
#include <vector>

#include "ops/polar.h"

namespace verglas::cpu {

/// Posterior of n images as candidates, end to end.
struct Candidates {
  const std::int64_t* offsets;   ///< (n + 1); candidates of image i are offsets[i] .. offsets[i + 1] - 1
  const std::int32_t* slice;     ///< slices of other plans (outside 0 .. n_slices - 1) are passed over
  const std::uint8_t* opposite;  ///< the other side of the slice
  const double* psi_rad;
  const std::int32_t* shift;  ///< row of MaximiseInput::shifts
  const double* gamma;        ///< posterior probability
};

struct MaximiseInput {
  const cfloat* samples;    ///< (n, n_rings, half), polar transforms X of the images
  const double* ctf;        ///< (n, math::kOpticsColumns) or null
  const float* inv_sigma2;  ///< (n, n_rings)
  const float* centres;     ///< (n, 2) pixels, added to the shift; or null
  const float* shifts;      ///< (n_shifts, 2) x, y pixels
  std::size_t n, n_shifts;
  double pixel_size_A;
};

/// Sums per image, added to; null: not made. They need the reference.
struct ResidualSums {
  double* cross;  ///< (n, n_rings)
  double* power;  ///< (n, n_rings)
};

/// Harmonics in rows for SIMD: [m][re, im][rings first_ring[m] .. padded to kRow], zero beyond the last ring.
struct RowLayout {
  static constexpr int kRow = 8;
  std::vector<int> length;          ///< (max_m + 1), multiple of kRow
  std::vector<std::size_t> offset;  ///< (max_m + 2) of the real row; the imaginary row follows it
  explicit RowLayout(const PolarGrid& grid);
  std::size_t size() const { return offset.back(); }
};

/// Holds the sums of a block of slices; sums of a slice are allocated when its first candidate comes.
class MaximisePlan {
 public:
  MaximisePlan(const PolarGrid& grid, std::size_t n_slices, int n_power);
  /// harmonics (n_slices, grid.size) and power (n_slices, n_rings, n_power), normalised; copied.
  void set_reference(const cfloat* harmonics, const cfloat* power);
  bool has_reference() const { return !reference_.empty(); }
  void add(const MaximiseInput& in, const Candidates& candidates, const ResidualSums& residual,
           int num_threads);
  /// Sums of n slices as polar samples of the half circle, (n, n_rings, half), w_r included: what
  /// polar_insert takes. The factor 1/n_theta makes them the exact adjoint of polar_slices + polar_harmonics.
  void slices(const std::int64_t* index, std::size_t n, cfloat* values, float* weights,
              int num_threads) const;
  bool touched(std::size_t slice) const { return !numerator_[slice].empty(); }
  const PolarGrid& grid() const { return grid_; }
  std::size_t n_slices() const { return numerator_.size(); }
  int n_power() const { return n_power_; }
  /// Bytes of the sums of one slice.
  std::size_t slice_bytes() const;

 private:
  struct Chunk;
  struct Scratch;
  PolarGrid grid_;
  RowLayout rows_;
  int n_power_;
  std::vector<std::vector<double>> numerator_;    // per slice: rows_.size(), or empty
  std::vector<std::vector<double>> denominator_;  // per slice: (n_power, re and im, n_rings)
  std::vector<float> reference_;                  // (n_slices, rows_.size())
  std::vector<float> power_;                      // (n_slices, n_power, re and im, n_rings)

  void store_power(const cfloat* from, float* out) const;
  std::vector<cfloat> weigh_images(const MaximiseInput& in, Chunk& chunk, int num_threads) const;
  void shift_images(const MaximiseInput& in, const std::vector<cfloat>& y, Chunk& chunk,
                    int num_threads) const;
  void gather_slices(const Candidates& candidates, Chunk& chunk);
  void add_slices(const MaximiseInput& in, Chunk& chunk, int num_threads);
  void add_slice(const MaximiseInput& in, std::size_t touched, Chunk& chunk, Scratch& scratch);
};

}  // namespace verglas::cpu
