// polar: images and central slices on polar Fourier grids, and their angular harmonics.
//
//   X(r, theta) = sum_n x_n exp(-2 pi i r (cos theta, sin theta).n / N),   n relative to the centre pixel N // 2
//   x_m(r)      = sum_theta X(r, theta) exp(-i m theta)       (times 1/n_theta where a function says "normalised")
//
// Rings r_j = 1/2 + (j + 1/2) spacing, j = 0..n_rings - 1: the midpoint rule over 1/2 < |k| < R + 1/2, so
// that every ring lies in one shell round(|k|); with spacing 1 these are r = 1, 2, ..., R. A sum over the
// full Fourier plane becomes sum_r w_r sum_theta, w_r = 2 pi r spacing / n_theta. Real images:
// X(r, theta + pi) = conj X(r, theta), so only theta_j = 2 pi j / n_theta, j < n_theta / 2, is kept, and
// x_{-m} = (-1)^m conj x_m, so only m >= 0.
#pragma once
#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "math/ctf.h"
#include "math/simd.h"
#include "math/slice.h"
#include "math/window.h"

namespace verglas::cpu {

using cfloat = std::complex<float>;
using math::WindowTable;

/// Which rings, angles and harmonics are kept. Immutable after construction; shared by every polar op.
///
/// Harmonic m is kept on the rings first_ring[m] .. n_rings - 1, because an object of diameter D in a box of
/// N pixels has |m| <= pi r D / N + a few on ring r. Packed arrays are m-major: element (m, ring j) stands at
/// offset[m] + j - first_ring[m], and offset[max_m + 1] = size is the number of complex values per image or slice.
struct PolarGrid {
  int box, n_theta, n_rings, max_m;
  std::vector<double> radii;                 ///< (n_rings), in Fourier pixels
  std::vector<float> weights;                ///< (n_rings), w_r
  std::vector<int> limit;                    ///< (n_rings), largest m kept on the ring; does not fall with r
  std::vector<int> first_ring;               ///< (max_m + 1)
  std::vector<std::size_t> offset;           ///< (max_m + 2)
  std::vector<double> cos_theta, sin_theta;  ///< (n_theta / 2)
  std::size_t size;

  /// Throws std::invalid_argument when n_theta is odd, cannot carry the harmonics, or limits fall.
  PolarGrid(int box, int n_theta, const double* radii, const std::int32_t* limits, int n_rings,
            double spacing);
  int half() const { return n_theta / 2; }
};

/// The angular transform of half circles as two real matrix products: even m see only real parts, odd m only
/// imaginary parts. Rows are ordered by m; unnormalised (full-circle sum).
class AngularTransform {
 public:
  explicit AngularTransform(const PolarGrid& grid);
  /// out[m][2][columns] for m = 0..limit from re, im [half][columns]; columns a multiple of kLanes.
  void run(const float* re, const float* im, int columns, int limit, float* out) const;

 private:
  int half_;
  std::vector<float> even_, odd_;  // (2 rows per m of that parity, half)
};

/// samples[i, ring, angle] of n real images (n, box, box).
///   method    Kaiser-Bessel interpolation, window 6, of the 1.5 times padded transform; relative error below 1e-4 of
///             the image's norm. Only the part of the transform inside the last ring is computed, as matrix products.
///   samples   (n, n_rings, n_theta / 2), written; parallel over images, independent of num_threads
void polar(const float* images, std::size_t n, const PolarGrid& grid, cfloat* samples, int num_threads);

/// samples[i, ring, angle] of n central slices of a map: the slice at A^T (r cos theta, r sin theta, 0).
///   spectrum, window, matrices   as for project (ops/project.h); the grid must reach the last ring
///   cost      n_rings n_theta / 2 gathers of W^3 taps per slice; parallel over slices
void polar_slices(const math::GridShape& volume, const WindowTable& window, const cfloat* spectrum,
                  const double* matrices, std::size_t n, const PolarGrid& grid, cfloat* samples,
                  int num_threads);

/// harmonics[i, packed] = scale x_m(r) of n sets of samples; scale = 1/n_theta makes them normalised.
void polar_harmonics(const cfloat* samples, std::size_t n, const PolarGrid& grid, float scale,
                     cfloat* harmonics, int num_threads);

/// ctf_samples[ring, angle] of one image: C on the polar grid (half circle). ctf_row as in ops/ctf.h.
void polar_ctf(const double* ctf_row, double pixel_size_A, const PolarGrid& grid, float* ctf_samples);

/// Harmonics 0, 2, .., 2 (n_power - 1) of a real function with period pi, given on the half circle:
///   out[ring, k] = scale sum over the full circle of f exp(-2 i k theta)
class EvenHarmonics {
 public:
  EvenHarmonics(const PolarGrid& grid, int n_power);
  void run(const float* f, float scale, cfloat* out) const;

 private:
  int half_, n_rings_, n_power_;
  std::vector<float> cos_, sin_;  // (n_power, half)
};

/// power[i, ring, k]: normalised even harmonics (scale 1/n_theta) of |A|^2 of n slices.
void polar_power(const cfloat* samples, std::size_t n, const PolarGrid& grid, int n_power, cfloat* power,
                 int num_threads);

/// power[i, ring, k]: even harmonics of w_r C^2 / sigma2 of n images, unnormalised: what power terms and the
/// weights of a reconstruction are made of.
///   ctf (n, math::kOpticsColumns) or null; inv_sigma2 (n, n_rings)
void polar_ctf_power(const double* ctf, const float* inv_sigma2, std::size_t n, double pixel_size_A,
                     const PolarGrid& grid, int n_power, cfloat* power, int num_threads);

/// y = C X / sigma2 on the polar grid of one image, in place of its samples X, and (where cp is not null) the
/// even harmonics of w_r C^2 / sigma2, (n_rings, n_power), unnormalised.
///   ctf_row   null: C = 1;   inv_sigma2  (n_rings);   ctf_scratch  (n_rings * half)
void weight_samples(const double* ctf_row, double pixel_size_A, const float* inv_sigma2,
                    const PolarGrid& grid, const EvenHarmonics& even, float* ctf_scratch, cfloat* samples,
                    cfloat* cp);

/// Builds w_r b_m(r), b = harmonics of y exp(-2 pi i k.t / N) (which moves the image by t), for kLanes pairs
/// of (image, shift) at once, in SIMD lanes: the layout that the score kernels stream.
class LaneHarmonics {
 public:
  explicit LaneHarmonics(const PolarGrid& grid) : grid_(grid), transform_(grid) {}
  struct Scratch {
    math::AlignedFloats re, im, out;
  };
  /// b (size, 2, kLanes) float, written.
  ///   y         (n_rings, half, 2, kLanes), or (n_rings, half, 2) when shared: one image in all lanes
  ///   tx, ty    (kLanes) shift in pixels
  void run(const float* y, bool shared, const float* tx, const float* ty, Scratch& s, float* b) const;

 private:
  const PolarGrid& grid_;
  AngularTransform transform_;
};

/// b[i, s, packed] of n images at n_shifts shifts each: LaneHarmonics, unpacked (weights w_r included).
///   samples (n, n_rings, half); ctf (n, 14) or null; inv_sigma2 (n, n_rings); shifts (n_shifts, 2) x, y in pixels
struct WeightedInput {
  const cfloat* samples;
  const double* ctf;
  const float* inv_sigma2;
  const float* shifts;
  std::size_t n, n_shifts;
  double pixel_size_A;
};
void polar_weighted(const WeightedInput& in, const PolarGrid& grid, cfloat* b, int num_threads);

}  // namespace verglas::cpu
