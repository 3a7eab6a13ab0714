// The arrays of refine_pose, the same for both backends: images, prior, and the poses that it refines in
// place. Plain pointers, so that a kernel takes them by value.
#pragma once
#include <cstddef>
#include <cstdint>

#include "math/pose_climb.h"

namespace verglas::math {

/// The images; null pointers mean 1. All arrays are the caller's. Complex is the backend's complex float.
template <class Complex>
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

  /// Pose i's, at `pose`.
  VG_HD PosePriorTerm at(std::size_t i, const Pose& pose) const {
    return pose_prior_term(angle_sigma_rad, shift_sigma_px, matrices ? matrices + 9 * i : nullptr,
                           shifts_px ? shifts_px + 2 * i : nullptr, pose);
  }
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

  VG_HD std::size_t image_of(std::size_t i) const { return image ? static_cast<std::size_t>(image[i]) : i; }

  /// The pose that i starts from.
  VG_HD Pose start(std::size_t i) const {
    Pose pose;
    for (int k = 0; k < 9; ++k) pose.a.m[k] = matrices[9 * i + k];
    for (int k = 0; k < 2; ++k) pose.shift[k] = shifts_px[2 * i + k];
    return pose;
  }

  /// Where the climb of pose i ended.
  VG_HD void finish(std::size_t i, const PoseClimb& climb, int n_evaluations) const {
    constexpr int k = kPoseParameters;
    for (int a = 0; a < 9; ++a) matrices[9 * i + a] = climb.pose.a.m[a];
    for (int a = 0; a < 2; ++a) shifts_px[2 * i + a] = climb.pose.shift[a];
    score[i] = climb.best.score();
    log_prior[i] = climb.best_prior.log_density;
    for (int a = 0; a < k; ++a) gradient[k * i + a] = climb.best.gradient[a];
    for (int a = 0; a < k * k; ++a) fisher[k * k * i + a] = climb.best.fisher[a];
    evaluations[i] = n_evaluations;
    status[i] = static_cast<std::uint8_t>(climb.status);
  }
};

}  // namespace verglas::math
