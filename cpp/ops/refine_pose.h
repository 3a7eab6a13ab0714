// refine_pose: the log-likelihood of poses on the exact Cartesian pixels, its gradient and Fisher
// information, and the trust-region search for its maximum.
//
//   model      X_k = s C_k A(A^T k) exp(-2 pi i k.d / N) + noise,   sigma2_k = E|noise_k|^2
//   score      L = sum Re[conj(mu_k) X_k] / sigma2_k - 1/2 sum |mu_k|^2 / sigma2_k   over the full plane,
//              0 < |k| < R + 1/2, mu the model's mean: the log-likelihood up to a term that no pose changes
//   parameters w (3) rad, d (2) px: the pose is exp([w]x) A, so w is a rotation in the frame of the image
//              (x, y, viewing axis) and every parameter is regular everywhere (Euler angles are not at tilt = 0)
//   gradient   dA(q)/dw = (-ky g_z, kx g_z, ky g_x - kx g_y), g = A grad_q of the interpolated transform,
//              exact: the taps are polynomials; d mu / dd = -2 pi i k mu / N
//   Fisher     F_ab = sum Re[conj(d_a mu) d_b mu] / sigma2; its inverse bounds the covariance of any unbiased estimate
//              (Cramer-Rao), and it is the Gauss-Newton approximation of the negative Hessian
#pragma once
#include <cstddef>
#include <cstdint>

#include "math/pose_batch.h"
#include "ops/grid.h"

namespace verglas::cpu {

using PoseImages = math::PoseImages<Complex>;
using math::PoseBatch;
using math::PosePrior;

/// Where to search, how long.
struct PoseOptions {
  /// (n_radii) ascending: each radius starts from the pose that the one before it found; the last is
  /// max_radius, the R of the result
  const std::int32_t* radii;
  int n_radii;
  int max_steps;  // accepted and rejected steps per radius; 0 evaluates the poses as they are
  double tolerance_rad, tolerance_px;  // done when the Gauss-Newton step is smaller, at the last radius
};

/// Levenberg-Marquardt steps on L + log prior; a step is taken only where the exact score rises.
///   cost    per evaluation pi/2 R^2 pixels of W^3 taps (4 sums each), about twice a projection; parallel over poses,
///           and no result depends on the other poses or on num_threads
void refine_pose(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
                 const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                 const PoseBatch& poses, int num_threads);

}  // namespace verglas::cpu
