// refine_pose: the log-likelihood of poses on the exact Cartesian pixels, its gradient and Fisher
// information, and the trust-region search for its maximum.
//
//   model      X_k = s C_k A(A^T k) exp(-2 pi i k.d / N) + noise,   sigma2_k = E|noise_k|^2
//   score      L = sum Re[conj(mu_k) X_k] / sigma2_k - 1/2 sum |mu_k|^2 / sigma2_k   over the full plane, 0 <
//   |k| < R + 1/2,
//              mu the model's mean: the log-likelihood up to a term that no pose changes
//   parameters w (3) rad, d (2) px: the pose is exp([w]x) A, so w is a rotation in the frame of the image (x,
//   y, viewing
//              axis) and every parameter is regular everywhere (Euler angles are not at tilt = 0)
//   gradient   dA(q)/dw = (-ky g_z, kx g_z, ky g_x - kx g_y), g = A grad_q of the interpolated transform,
//   exact: the taps
//              are polynomials; d mu / dd = -2 pi i k mu / N
//   Fisher     F_ab = sum Re[conj(d_a mu) d_b mu] / sigma2; its inverse bounds the covariance of any unbiased
//   estimate
//              (Cramer-Rao), and it is the Gauss-Newton approximation of the negative Hessian
#pragma once
#include <cstddef>
#include <cstdint>

#include "math/pose_climb.h"
#include "ops/grid.h"

namespace verglas::cpu {

using math::kPoseParameters;
using math::PoseStatus;

/// The images; null pointers mean 1. All arrays are the caller's.
struct PoseImages {
  std::size_t n;
  const Complex* transforms;  // (n, box, box/2 + 1) phase-centred half transforms X
  const float* ctf;           // (n, box, box/2 + 1) C
  const float* shell_weight;  // (n, max_radius + 1) 1/sigma2
  const double* scale;        // (n) s
};

/// Gaussian log prior -|w|^2 / (2 angle_sigma^2) - |d - d0|^2 / (2 shift_sigma^2), w the rotation from the
/// centre; a sigma of 0 means none.
struct PosePrior {
  double angle_sigma_rad, shift_sigma_px;
  const double* matrices;   // (n poses, 9) centre
  const double* shifts_px;  // (n poses, 2) centre d0
};

/// Where to search, how long.
struct PoseOptions {
  const std::int32_t*
      radii;      // (n_radii) ascending: each radius starts from the pose that the one before it found
  int n_radii;    // the last is max_radius, the R of the result
  int max_steps;  // accepted and rejected steps per radius; 0 evaluates the poses as they are
  double tolerance_rad, tolerance_px;  // done when the Gauss-Newton step is smaller, at the last radius
};

/// Poses in, refined in place; and what is known about them, all at the pose that comes out and max_radius.
struct PoseBatch {
  std::size_t n;
  const std::int64_t* image;  // (n) which image each pose belongs to; null: pose i, image i
  double* matrices;           // (n, 9)
  double* shifts_px;          // (n, 2) displacement of the particle from the centre, as in project
  double* score;              // (n) L, without the prior
  double* log_prior;          // (n)
  double* gradient;           // (n, 5) of L
  double* fisher;             // (n, 5, 5)
  std::int32_t* evaluations;  // (n) of the score, over all radii
  std::uint8_t* status;       // (n) PoseStatus
};

/// Levenberg-Marquardt steps on L + log prior; a step is taken only where the exact score rises.
///   cost    per evaluation pi/2 R^2 pixels of W^3 taps (4 sums each), about twice a projection; parallel
///   over poses,
///           and no result depends on the other poses or on num_threads
void refine_pose(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
                 const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                 const PoseBatch& poses, int num_threads);

}  // namespace verglas::cpu
