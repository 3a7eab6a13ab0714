// The climb of refine_pose to the maximum of a pose's log-likelihood: what one pixel adds, the prior, the
// quadratic model, Levenberg-Marquardt steps. One copy for both backends; definitions in cpp/ops/refine_pose.h.
#pragma once
#include <cmath>
#include <cstdint>

#include "math/cholesky.h"
#include "math/constants.h"
#include "math/macros.h"
#include "math/rotation.h"

namespace verglas::math {

constexpr int kPoseParameters = 5;
/// Cross, power, gradient, upper triangle of the Fisher matrix.
constexpr int kPoseTerms = 2 + kPoseParameters + kPoseParameters * (kPoseParameters + 1) / 2;

struct Pose {
  Rotation a;
  double shift[2];
};

VG_HD bool finite(const Pose& pose) {
  double sum = pose.shift[0] + pose.shift[1];
  for (int i = 0; i < 9; ++i) sum += pose.a.m[i];
  return std::isfinite(sum);
}

/// What the terms of a pixel are made of; V is float, or a SIMD vector with one pixel per lane.
template <class V>
struct PosePixel {
  V weight;  // 2 / sigma2: the sum runs over the full plane
  V factor;  // s C
  V kx, ky;
  V value_re, value_im;  // the interpolated transform
  V slope[6];            // its derivatives along the grid's x, y, z: re, im each
  V moved_re, moved_im;  // the image, moved back to the centre
};

/// Adds a pixel's terms to totals (kPoseTerms).
///   turn   grid frame to image frame, per Fourier pixel (9);   phase   2 pi / box
template <class V>
VG_HD void add_pose_terms(const PosePixel<V>& p, const float* turn, float phase, V* totals) {
  constexpr int n = kPoseParameters;
  const V re = p.factor * p.value_re, im = p.factor * p.value_im;
  V d[2][n];  // derivatives of the mean, its shift phase taken off
  for (int part = 0; part < 2; ++part) {
    const V gx = p.slope[part], gy = p.slope[2 + part], gz = p.slope[4 + part];
    // The gradient in the image's frame.
    const V u = p.factor * (turn[0] * gx + turn[1] * gy + turn[2] * gz);
    const V v = p.factor * (turn[3] * gx + turn[4] * gy + turn[5] * gz);
    const V w = p.factor * (turn[6] * gx + turn[7] * gy + turn[8] * gz);
    d[part][0] = -p.ky * w;
    d[part][1] = p.kx * w;
    d[part][2] = p.ky * u - p.kx * v;
  }
  // d/dd = -2 pi i k / N times the mean.
  d[0][3] = phase * p.kx * im;
  d[1][3] = -phase * p.kx * re;
  d[0][4] = phase * p.ky * im;
  d[1][4] = -phase * p.ky * re;
  totals[0] += p.weight * (re * p.moved_re + im * p.moved_im);
  totals[1] += p.weight * (re * re + im * im);
  const V residual_re = p.weight * (p.moved_re - re), residual_im = p.weight * (p.moved_im - im);
  int term = 2;
  for (int a = 0; a < n; ++a) totals[term++] += d[0][a] * residual_re + d[1][a] * residual_im;
  for (int a = 0; a < n; ++a) {
    const V wr = p.weight * d[0][a], wi = p.weight * d[1][a];
    for (int b = a; b < n; ++b) totals[term++] += wr * d[0][b] + wi * d[1][b];
  }
}

/// Everything one pass over the pixels yields.
struct PoseEvaluation {
  double cross, power;
  double gradient[kPoseParameters], fisher[kPoseParameters * kPoseParameters];

  VG_HD double score() const { return cross - 0.5 * power; }
  VG_HD bool is_finite() const {
    double sum = cross + power;
    for (int a = 0; a < kPoseParameters; ++a) sum += gradient[a];
    for (int a = 0; a < kPoseParameters * kPoseParameters; ++a) sum += fisher[a];
    return std::isfinite(sum);
  }
};

VG_HD PoseEvaluation pose_evaluation(const double* sums) {
  constexpr int n = kPoseParameters;
  PoseEvaluation e;
  e.cross = sums[0];
  e.power = sums[1];
  for (int a = 0; a < n; ++a) e.gradient[a] = sums[2 + a];
  int term = 2 + n;
  for (int a = 0; a < n; ++a) {
    for (int b = a; b < n; ++b) e.fisher[n * a + b] = e.fisher[n * b + a] = sums[term++];
  }
  return e;
}

/// The prior of one pose: its logarithm, gradient and (negative, Gauss-Newton) curvature.
struct PosePriorTerm {
  double log_density, gradient[kPoseParameters], curvature[kPoseParameters];
};

/// Gaussian of width angle_sigma_rad in the rotation from `centre`, shift_sigma_px from `centre_px`; a sigma
/// of 0 means none, and then the centre is not read.
VG_HD PosePriorTerm pose_prior_term(double angle_sigma_rad, double shift_sigma_px, const double* centre,
                                    const double* centre_px, const Pose& pose) {
  PosePriorTerm term{};
  if (angle_sigma_rad > 0.0) {
    Rotation middle;
    for (int i = 0; i < 9; ++i) middle.m[i] = centre[i];
    const Vector3 w = rotation_log(multiply(pose.a, transpose(middle)));
    const double component[3] = {w.x, w.y, w.z}, precision = 1.0 / (angle_sigma_rad * angle_sigma_rad);
    for (int a = 0; a < 3; ++a) {
      // d |log(exp([e]x) exp([w]x))|^2 / de = 2 w at e = 0: a further rotation about the same axis adds.
      term.log_density -= 0.5 * precision * component[a] * component[a];
      term.gradient[a] = -precision * component[a];
      term.curvature[a] = precision;
    }
  }
  if (shift_sigma_px > 0.0) {
    const double precision = 1.0 / (shift_sigma_px * shift_sigma_px);
    for (int a = 0; a < 2; ++a) {
      const double off = pose.shift[a] - centre_px[a];
      term.log_density -= 0.5 * precision * off * off;
      term.gradient[3 + a] = -precision * off;
      term.curvature[3 + a] = precision;
    }
  }
  return term;
}

/// The objective and its model at one pose: value, gradient, negative curvature.
struct PoseQuadratic {
  double value;
  // Promised gains below it may fail to come true: the window does not quite vanish at its ends, and the
  // derivative of the taps leaves these jumps out, so score and gradient disagree a little about where the
  // maximum is (with 4 taps by about a hundredth of a standard deviation of a noisy particle's pose).
  double roughness;
  double gradient[kPoseParameters], curvature[kPoseParameters * kPoseParameters];

  /// (curvature + damping diag(curvature)) step = gradient.
  VG_HD bool step(double damping, double* out) const {
    constexpr int n = kPoseParameters;
    double damped[n * n];
    for (int i = 0; i < n * n; ++i) damped[i] = curvature[i];
    for (int a = 0; a < n; ++a) damped[a * n + a] *= 1.0 + damping;
    return cholesky_solve<n>(damped, gradient, out);
  }
  VG_HD double gain(const double* step) const {
    constexpr int n = kPoseParameters;
    double sum = 0.0;
    for (int a = 0; a < n; ++a) {
      sum += step[a] * gradient[a];
      for (int b = 0; b < n; ++b) sum -= 0.5 * step[a] * curvature[a * n + b] * step[b];
    }
    return sum;
  }
};

VG_HD PoseQuadratic pose_quadratic(const PoseEvaluation& e, const PosePriorTerm& prior) {
  constexpr int n = kPoseParameters;
  PoseQuadratic q;
  q.value = e.score() + prior.log_density;
  q.roughness = 2e-6 * (std::fabs(e.cross) + e.power);
  for (int i = 0; i < n * n; ++i) q.curvature[i] = e.fisher[i];
  for (int a = 0; a < n; ++a) {
    q.gradient[a] = e.gradient[a] + prior.gradient[a];
    q.curvature[a * n + a] += prior.curvature[a];
  }
  return q;
}

VG_HD double vector_length(const double* v, int n) {
  double square = 0.0;
  for (int i = 0; i < n; ++i) square += v[i] * v[i];
  return std::sqrt(square);
}

VG_HD Pose moved_pose(const Pose& pose, const double* step) {
  Pose next = pose;
  next.a = multiply(rotation_exp({step[0], step[1], step[2]}), pose.a);
  next.shift[0] += step[3];
  next.shift[1] += step[4];
  return next;
}

/// Shortens a step that would turn the phase of some pixel by much more than a radian: the quadratic model
/// cannot be trusted there. A voxel at the edge of the box moves by w N/2 pixels, the image by d, each 2 pi
/// R/N per pixel.
VG_HD void limit_pose_step(double* step, int radius, int box) {
  const double by_angle = 0.5 * radius * vector_length(step, 3);
  const double by_shift = kPi * radius * vector_length(step + 3, 2) / box;
  const double turn = by_angle > by_shift ? by_angle : by_shift;
  if (turn > 1.0) {
    for (int a = 0; a < kPoseParameters; ++a) step[a] /= turn;
  }
}

enum class PoseStatus : std::uint8_t {
  kConverged = 0,
  kStepLimit = 1,      // max_steps used up
  kNoInformation = 2,  // a parameter changes nothing: a reference of zeros, or of a symmetry it cannot have
  kStalled = 3,        // no step along the gradient raises the score
  kNotFinite = 4       // NaN or infinity in the image, its CTF, weight or scale, or in the pose
};

/// Levenberg-Marquardt at one radius, with Nielsen's rule for the damping (Madsen, Nielsen and Tingleff 2004,
/// eq. 2.21) and rounding kept out of the ratio of gains (Conn, Gould and Toint 2000, section 17.4.2). The
/// caller evaluates: begin, then propose and judge in turn until one of them says that it is over.
struct PoseClimb {
  Pose pose;  // the best so far
  PoseEvaluation best;
  PosePriorTerm best_prior;
  PoseStatus status;
  int radius, box, taken, max_steps;
  double tolerance_rad, tolerance_px;
  double damping, growth, value, roughness, promised;

  /// The pixels within `radius_px` of those within `last_px`, which the search ends with. Fewer pixels
  /// resolve less: their optimum is not worth the last digit.
  VG_HD void aim_at(int radius_px, int last_px, double final_tolerance_rad, double final_tolerance_px) {
    const double ease = static_cast<double>(last_px) / radius_px * (radius_px == last_px ? 1 : 3);
    radius = radius_px;
    tolerance_rad = final_tolerance_rad * ease;
    tolerance_px = final_tolerance_px * ease;
  }

  /// At a pose and its evaluation; false: not finite.
  VG_HD bool begin(const PoseEvaluation& there, const PosePriorTerm& prior) {
    best = there;
    best_prior = prior;
    damping = 1e-3;
    growth = 2.0;
    taken = 0;
    status = PoseStatus::kNotFinite;
    return best.is_finite() && std::isfinite(best_prior.log_density);
  }

  /// The next pose to try; false: over.
  VG_HD bool propose(Pose* trial) {
    const PoseQuadratic model = pose_quadratic(best, best_prior);
    double step[kPoseParameters];
    // The damping of 1e-9 only keeps a direction without information (a symmetry axis) from failing.
    if (!model.step(1e-9, step)) return over(PoseStatus::kNoInformation);
    if (vector_length(step, 3) <= tolerance_rad && vector_length(step + 3, 2) <= tolerance_px)
      return over(PoseStatus::kConverged);
    if (taken == max_steps) return over(PoseStatus::kStepLimit);
    if (damping > 1e9) return over(PoseStatus::kStalled);
    model.step(damping, step);
    limit_pose_step(step, radius, box);
    value = model.value;
    roughness = model.roughness;
    promised = model.gain(step);
    *trial = moved_pose(pose, step);
    ++taken;
    return true;
  }

  /// Takes the trial where the score rose; false: over.
  VG_HD bool judge(const Pose& trial, const PoseEvaluation& there, const PosePriorTerm& prior) {
    const double gain = there.score() + prior.log_density - value;
    // Where scores cannot tell the two apart any more, gradients still can: the step is taken, and a few smaller ones
    // after it. Each raises the damping, which ends them before it counts: gradients jump a little, too.
    const bool unseen = promised < roughness && gain > -roughness;
    if (unseen || gain > 1e-3 * promised) {
      pose = trial;
      best = there;
      best_prior = prior;
      growth = 2.0;
      if (unseen) {
        damping *= 3.0;
        return damping <= 0.1 ? true : over(PoseStatus::kConverged);
      }
      const double excess = 2.0 * (gain / promised) - 1.0, factor = 1.0 - excess * excess * excess;
      damping *= factor > 1.0 / 3.0 ? factor : 1.0 / 3.0;
      return true;
    }
    if (promised < roughness) return over(PoseStatus::kConverged);
    damping *= growth;
    growth *= 2.0;
    return true;
  }

 private:
  VG_HD bool over(PoseStatus why) {
    status = why;
    return false;
  }
};

}  // namespace verglas::math
