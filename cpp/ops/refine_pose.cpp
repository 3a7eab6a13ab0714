#include "ops/refine_pose.h"

#include <algorithm>
#include <cmath>

#include "math/cholesky.h"
#include "math/rotation.h"
#include "math/simd.h"

namespace verglas::cpu {
namespace {

constexpr int kN = kPoseParameters;
// Pixels per block: its scratch stays in the first-level cache, and float sums over a block lose nothing that
// matters before they go to double.
constexpr int kBlock = 256;
static_assert(kBlock % math::kLanes == 0, "blocks are made of whole vectors");

struct Pose {
  math::Rotation a;
  double shift[2];
};

/// The pixels that count at one radius, each standing for its Friedel mate too: kx >= 0, and ky > 0 where kx
/// = 0.
struct Disc {
  int radius;
  std::size_t n = 0;
  std::vector<int> column, row, shell;
  math::AlignedFloats kx, ky;  // padded with zeros to whole blocks

  Disc(const math::GridShape& grid, int max_radius) : radius(max_radius) {
    std::vector<int> signed_row;
    for (int r = 0; r < grid.box; ++r) {
      const int k = r < (grid.box + 1) / 2 ? r : r - grid.box;
      const int last = last_column(k, max_radius, grid.box);
      for (int c = k > 0 ? 0 : 1; c <= last; ++c) {
        column.push_back(c);
        row.push_back(r);
        signed_row.push_back(k);
        shell.push_back(static_cast<int>(std::lround(std::sqrt(static_cast<double>(c) * c + k * k))));
      }
    }
    n = column.size();
    kx.resize(padded());
    ky.resize(padded());
    for (std::size_t p = 0; p < n; ++p) {
      kx.data()[p] = static_cast<float>(column[p]);
      ky.data()[p] = static_cast<float>(signed_row[p]);
    }
  }
  std::size_t padded() const { return math::round_up(std::max<std::size_t>(n, 1), kBlock); }
};

/// Everything one pass over the pixels yields.
struct Evaluation {
  double cross = 0.0, power = 0.0;
  double gradient[kN] = {}, fisher[kN * kN] = {};
  double score() const { return cross - 0.5 * power; }
  bool finite() const {
    double sum = cross + power;
    for (double g : gradient) sum += g;
    for (double f : fisher) sum += f;
    return std::isfinite(sum);
  }
};

constexpr int kTerms =
    2 + kN + kN * (kN + 1) / 2;  // cross, power, gradient, upper triangle of the Fisher matrix

/// One image, packed, and its evaluation at any pose. One object per thread.
template <int W>
class PoseEvaluator {
 public:
  PoseEvaluator(const Window<W>& window, const math::GridShape& grid, const Complex* spectrum)
      : window_(window), grid_(grid), spectrum_(spectrum), phases_(grid.box) {
    for (auto* scratch : {&value_re_, &value_im_, &moved_re_, &moved_im_}) scratch->resize(kBlock);
    for (auto& scratch : slope_) scratch.resize(kBlock);
  }

  /// Packs what image i contributes at the disc's pixels.
  void open(const Disc& disc, const PoseImages& images, std::size_t i, int max_radius) {
    disc_ = &disc;
    const std::size_t half = grid_.box / 2 + 1, offset = i * grid_.box * half;
    const float* shell_weight = images.shell_weight ? images.shell_weight + i * (max_radius + 1) : nullptr;
    const float scale = images.scale ? static_cast<float>(images.scale[i]) : 1.0f;
    for (auto* packed : {&image_re_, &image_im_, &factor_, &weight_}) {
      packed->resize(disc.padded());
      std::fill(packed->data() + disc.n, packed->data() + disc.padded(), 0.0f);
    }
    for (std::size_t p = 0; p < disc.n; ++p) {
      const std::size_t at = offset + disc.row[p] * half + disc.column[p];
      image_re_.data()[p] = images.transforms[at].real();
      image_im_.data()[p] = images.transforms[at].imag();
      factor_.data()[p] = images.ctf ? scale * images.ctf[at] : scale;
      // Twice: the sum runs over the full plane.
      weight_.data()[p] = shell_weight ? 2.0f * shell_weight[disc.shell[p]] : 2.0f;
    }
  }

  Evaluation evaluate(const Pose& pose) {
    const auto axes = math::slice_axes(pose.a.m, grid_);
    const double back[2] = {-pose.shift[0], -pose.shift[1]};
    phases_.set(back);
    const double scale = static_cast<double>(grid_.padded) / grid_.box;
    for (int i = 0; i < 9; ++i) turn_[i] = static_cast<float>(scale * pose.a.m[i]);
    double sums[kTerms] = {};
    for (std::size_t begin = 0; begin < disc_->n; begin += kBlock) {
      interpolate(axes, begin, std::min<std::size_t>(begin + kBlock, disc_->n));
      accumulate(begin, sums);
    }
    Evaluation result;
    result.cross = sums[0];
    result.power = sums[1];
    int term = 2;
    for (double& g : result.gradient) g = sums[term++];
    for (int a = 0; a < kN; ++a) {
      for (int b = a; b < kN; ++b) {
        result.fisher[kN * a + b] = result.fisher[kN * b + a] = sums[term++];
      }
    }
    return result;
  }

 private:
  /// Slice values, gradients and the image moved back to the centre, for pixels begin .. end - 1.
  void interpolate(const math::SliceAxes& axes, std::size_t begin, std::size_t end) {
    for (std::size_t p = begin; p < end; ++p) {
      const std::size_t at = p - begin;
      const auto point = math::slice_point(axes, grid_, disc_->kx.data()[p], disc_->ky.data()[p]);
      const GradientSample s = gather_gradient<W>(window_, grid_, spectrum_, point);
      value_re_.data()[at] = s.value.real();
      value_im_.data()[at] = s.value.imag();
      const Complex along[3] = {s.dx, s.dy, s.dz};
      for (int axis = 0; axis < 3; ++axis) {
        slope_[2 * axis].data()[at] = along[axis].real();
        slope_[2 * axis + 1].data()[at] = along[axis].imag();
      }
      Complex x{image_re_.data()[p], image_im_.data()[p]};
      if (!phases_.identity()) x = ShiftPhases::multiply(x, phases_.at(disc_->column[p], disc_->row[p]));
      moved_re_.data()[at] = x.real();
      moved_im_.data()[at] = x.imag();
    }
    // Lanes beyond the last pixel have weight zero; they must only be finite.
    const std::size_t used = end - begin, whole = math::round_up(used, math::kLanes);
    for (auto* scratch : {&value_re_, &value_im_, &moved_re_, &moved_im_})
      std::fill(scratch->data() + used, scratch->data() + whole, 0.0f);
    for (auto& scratch : slope_) std::fill(scratch.data() + used, scratch.data() + whole, 0.0f);
    whole_ = whole;
  }

  /// Derivatives of the mean (its shift phase taken off) for one vector of pixels: re into d[0], im into
  /// d[1].
  void derivatives(std::size_t at, std::size_t p, math::Lanes mean_re, math::Lanes mean_im,
                   math::Lanes (&d)[2][kN]) const {
    using math::Lanes;
    const Lanes factor = math::load(factor_.data() + p);
    const Lanes kx = math::load(disc_->kx.data() + p), ky = math::load(disc_->ky.data() + p);
    for (int part = 0; part < 2; ++part) {
      const Lanes gx = math::load(slope_[part].data() + at), gy = math::load(slope_[2 + part].data() + at),
                  gz = math::load(slope_[4 + part].data() + at);
      // The gradient in the image's frame.
      const Lanes u = factor * (turn_[0] * gx + turn_[1] * gy + turn_[2] * gz);
      const Lanes v = factor * (turn_[3] * gx + turn_[4] * gy + turn_[5] * gz);
      const Lanes w = factor * (turn_[6] * gx + turn_[7] * gy + turn_[8] * gz);
      d[part][0] = -ky * w;
      d[part][1] = kx * w;
      d[part][2] = ky * u - kx * v;
    }
    // d/dd = -2 pi i k / N times the mean.
    const float turn = static_cast<float>(2.0 * M_PI / grid_.box);
    d[0][3] = turn * kx * mean_im;
    d[1][3] = -turn * kx * mean_re;
    d[0][4] = turn * ky * mean_im;
    d[1][4] = -turn * ky * mean_re;
  }

  void accumulate(std::size_t begin, double* sums) const {
    using math::Lanes;
    Lanes totals[kTerms] = {};
    for (std::size_t at = 0; at < whole_; at += math::kLanes) {
      const std::size_t p = begin + at;
      const Lanes weight = math::load(weight_.data() + p), factor = math::load(factor_.data() + p);
      const Lanes re = factor * math::load(value_re_.data() + at),
                  im = factor * math::load(value_im_.data() + at);
      const Lanes xr = math::load(moved_re_.data() + at), xi = math::load(moved_im_.data() + at);
      Lanes d[2][kN];
      derivatives(at, p, re, im, d);
      totals[0] += weight * (re * xr + im * xi);
      totals[1] += weight * (re * re + im * im);
      const Lanes residual_re = weight * (xr - re), residual_im = weight * (xi - im);
      int term = 2;
      for (int a = 0; a < kN; ++a) totals[term++] += d[0][a] * residual_re + d[1][a] * residual_im;
      for (int a = 0; a < kN; ++a) {
        const Lanes wr = weight * d[0][a], wi = weight * d[1][a];
        for (int b = a; b < kN; ++b) totals[term++] += wr * d[0][b] + wi * d[1][b];
      }
    }
    for (int term = 0; term < kTerms; ++term) {
      for (int lane = 0; lane < math::kLanes; ++lane) sums[term] += totals[term][lane];
    }
  }

  const Window<W>& window_;
  const math::GridShape& grid_;
  const Complex* spectrum_;
  ShiftPhases phases_;
  const Disc* disc_ = nullptr;
  math::AlignedFloats image_re_, image_im_, factor_, weight_;      // the open image, whole disc
  math::AlignedFloats value_re_, value_im_, moved_re_, moved_im_;  // one block
  math::AlignedFloats slope_[6];                                   // one block: re, im along x, y, z
  std::size_t whole_ = 0;                                          // pixels of the block, in whole vectors
  float turn_[9] = {};  // grid frame to image frame, per Fourier pixel
};

/// The prior of one pose: its logarithm, gradient and (negative, Gauss-Newton) curvature.
struct PriorTerm {
  double log_density = 0.0, gradient[kN] = {}, curvature[kN] = {};
};

PriorTerm prior_term(const PosePrior& prior, std::size_t i, const Pose& pose) {
  PriorTerm term;
  if (prior.angle_sigma_rad > 0.0) {
    math::Rotation centre;
    std::copy_n(prior.matrices + 9 * i, 9, centre.m);
    const auto w = math::rotation_log(math::multiply(pose.a, math::transpose(centre)));
    const double component[3] = {w.x, w.y, w.z},
                 precision = 1.0 / (prior.angle_sigma_rad * prior.angle_sigma_rad);
    for (int a = 0; a < 3; ++a) {
      // d |log(exp([e]x) exp([w]x))|^2 / de = 2 w at e = 0: a further rotation about the same axis adds.
      term.log_density -= 0.5 * precision * component[a] * component[a];
      term.gradient[a] = -precision * component[a];
      term.curvature[a] = precision;
    }
  }
  if (prior.shift_sigma_px > 0.0) {
    const double precision = 1.0 / (prior.shift_sigma_px * prior.shift_sigma_px);
    for (int a = 0; a < 2; ++a) {
      const double off = pose.shift[a] - prior.shifts_px[2 * i + a];
      term.log_density -= 0.5 * precision * off * off;
      term.gradient[3 + a] = -precision * off;
      term.curvature[3 + a] = precision;
    }
  }
  return term;
}

/// The objective and its model at one pose: value, gradient, negative curvature.
struct Quadratic {
  double value;
  // Promised gains below it may fail to come true: the window does not quite vanish at its ends, and the
  // derivative of the taps leaves these jumps out, so score and gradient disagree a little about where the
  // maximum is (with 4 taps by about a hundredth of a standard deviation of a noisy particle's pose).
  double roughness;
  double gradient[kN], curvature[kN * kN];

  Quadratic(const Evaluation& e, const PriorTerm& prior)
      : value(e.score() + prior.log_density), roughness(2e-6 * (std::fabs(e.cross) + e.power)) {
    std::copy_n(e.fisher, kN * kN, curvature);
    for (int a = 0; a < kN; ++a) {
      gradient[a] = e.gradient[a] + prior.gradient[a];
      curvature[a * kN + a] += prior.curvature[a];
    }
  }
  /// (curvature + damping diag(curvature)) step = gradient.
  bool step(double damping, double* out) const {
    double damped[kN * kN];
    std::copy_n(curvature, kN * kN, damped);
    for (int a = 0; a < kN; ++a) damped[a * kN + a] *= 1.0 + damping;
    return math::cholesky_solve<kN>(damped, gradient, out);
  }
  double gain(const double* step) const {
    double sum = 0.0;
    for (int a = 0; a < kN; ++a) {
      sum += step[a] * gradient[a];
      for (int b = 0; b < kN; ++b) sum -= 0.5 * step[a] * curvature[a * kN + b] * step[b];
    }
    return sum;
  }
};

double length(const double* v, int n) {
  double square = 0.0;
  for (int i = 0; i < n; ++i) square += v[i] * v[i];
  return std::sqrt(square);
}

bool finite(const Pose& pose) {
  double sum = pose.shift[0] + pose.shift[1];
  for (double m : pose.a.m) sum += m;
  return std::isfinite(sum);
}

Pose moved(const Pose& pose, const double* step) {
  Pose next = pose;
  next.a = math::multiply(math::rotation_exp({step[0], step[1], step[2]}), pose.a);
  next.shift[0] += step[3];
  next.shift[1] += step[4];
  return next;
}

/// Shortens a step that would turn the phase of some pixel by much more than a radian: the quadratic model
/// cannot be trusted there. A voxel at the edge of the box moves by w N/2 pixels, the image by d, each 2 pi
/// R/N per pixel.
void limit_step(double* step, int radius, int box) {
  const double turn = std::max(0.5 * radius * length(step, 3), M_PI * radius * length(step + 3, 2) / box);
  if (turn > 1.0) {
    for (int a = 0; a < kN; ++a) step[a] /= turn;
  }
}

/// Levenberg-Marquardt at one radius, with Nielsen's rule for the damping (Madsen, Nielsen and Tingleff 2004,
/// eq. 2.21) and rounding kept out of the ratio of gains (Conn, Gould and Toint 2000, section 17.4.2).
template <int W>
class PoseSearch {
 public:
  PoseSearch(PoseEvaluator<W>& evaluator, const PosePrior& prior, std::size_t i, const PoseOptions& options)
      : evaluator_(evaluator), prior_(prior), i_(i), options_(options) {}

  Evaluation best;
  PriorTerm best_prior;
  int evaluations = 0;

  PoseStatus run(const Disc& disc, int box, double tolerance_factor, Pose& pose) {
    best = evaluate(pose, &best_prior);
    if (!best.finite() || !std::isfinite(best_prior.log_density)) return PoseStatus::kNotFinite;
    double damping = 1e-3, growth = 2.0;
    for (int taken = 0; taken <= options_.max_steps; ++taken) {
      const Quadratic model(best, best_prior);
      double step[kN];
      // The damping of 1e-9 only keeps a direction without information (a symmetry axis) from failing.
      if (!model.step(1e-9, step)) return PoseStatus::kNoInformation;
      if (length(step, 3) <= options_.tolerance_rad * tolerance_factor &&
          length(step + 3, 2) <= options_.tolerance_px * tolerance_factor)
        return PoseStatus::kConverged;
      if (taken == options_.max_steps) break;
      if (damping > 1e9) return PoseStatus::kStalled;
      model.step(damping, step);
      limit_step(step, disc.radius, box);
      const Pose trial = moved(pose, step);
      PriorTerm trial_prior;
      const Evaluation there = evaluate(trial, &trial_prior);
      const double gain = there.score() + trial_prior.log_density - model.value, promised = model.gain(step);
      if (gain > 1e-3 * promised) {
        const double ratio = gain / promised;
        pose = trial;
        best = there;
        best_prior = trial_prior;
        damping *= std::max(1.0 / 3.0, 1.0 - std::pow(2.0 * ratio - 1.0, 3));
        growth = 2.0;
      } else if (promised < model.roughness) {
        return PoseStatus::kConverged;
      } else {
        damping *= growth;
        growth *= 2.0;
      }
    }
    return PoseStatus::kStepLimit;
  }

 private:
  Evaluation evaluate(const Pose& pose, PriorTerm* prior) {
    ++evaluations;
    *prior = prior_term(prior_, i_, pose);
    return evaluator_.evaluate(pose);
  }

  PoseEvaluator<W>& evaluator_;
  const PosePrior& prior_;
  std::size_t i_;
  const PoseOptions& options_;
};

/// One pose through every radius.
template <int W>
void refine_one(PoseEvaluator<W>& evaluator, const math::GridShape& grid, const std::vector<Disc>& discs,
                const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                const PoseBatch& poses, std::size_t i) {
  Pose pose;
  std::copy_n(poses.matrices + 9 * i, 9, pose.a.m);
  std::copy_n(poses.shifts_px + 2 * i, 2, pose.shift);
  PoseSearch<W> search(evaluator, prior, i, options);
  PoseStatus status = PoseStatus::kStepLimit;
  const int last = discs.back().radius;
  for (const Disc& disc : discs) {
    if (options.max_steps == 0 && disc.radius != last) continue;
    status = PoseStatus::kNotFinite;
    if (!finite(pose)) break;  // it would point outside the grid
    evaluator.open(disc, images, poses.image ? poses.image[i] : i, last);
    // A coarser radius resolves less: its optimum is not worth the last digit.
    status = search.run(disc, grid.box,
                        static_cast<double>(last) / disc.radius * (disc.radius == last ? 1 : 3), pose);
    if (status == PoseStatus::kNotFinite) break;
  }
  std::copy_n(pose.a.m, 9, poses.matrices + 9 * i);
  std::copy_n(pose.shift, 2, poses.shifts_px + 2 * i);
  poses.score[i] = search.best.score();
  poses.log_prior[i] = search.best_prior.log_density;
  std::copy_n(search.best.gradient, kN, poses.gradient + kN * i);
  std::copy_n(search.best.fisher, kN * kN, poses.fisher + kN * kN * i);
  poses.evaluations[i] = search.evaluations;
  poses.status[i] = static_cast<std::uint8_t>(status);
}

template <int W>
void refine_all(const math::GridShape& grid, const WindowTable& table, const Complex* spectrum,
                const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                const PoseBatch& poses, int num_threads) {
  const Window<W> window(table);
  std::vector<Disc> discs;
  for (int r = 0; r < options.n_radii; ++r) discs.emplace_back(grid, options.radii[r]);
#pragma omp parallel num_threads(num_threads)
  {
    PoseEvaluator<W> evaluator(window, grid, spectrum);
#pragma omp for schedule(dynamic, 1)
    for (std::size_t i = 0; i < poses.n; ++i)
      refine_one<W>(evaluator, grid, discs, images, prior, options, poses, i);
  }
}

}  // namespace

void refine_pose(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
                 const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                 const PoseBatch& poses, int num_threads) {
  switch (window.width) {
    case 2:
      return refine_all<2>(grid, window, spectrum, images, prior, options, poses, num_threads);
    case 4:
      return refine_all<4>(grid, window, spectrum, images, prior, options, poses, num_threads);
    case 6:
      return refine_all<6>(grid, window, spectrum, images, prior, options, poses, num_threads);
    default:
      return refine_all<8>(grid, window, spectrum, images, prior, options, poses, num_threads);
  }
}

}  // namespace verglas::cpu
