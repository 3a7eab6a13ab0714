#include "ops/refine_pose.h"

#include <algorithm>
#include <cmath>

#include "math/constants.h"
#include "math/simd.h"

namespace verglas::cpu {
namespace {

// Pixels per block: its scratch stays in the first-level cache, and float sums over a block lose nothing that
// matters before they go to double.
constexpr int kBlock = 256;
static_assert(kBlock % math::kLanes == 0, "blocks are made of whole vectors");

using math::kPoseTerms;
using math::Pose;
using math::PoseClimb;
using math::PoseEvaluation;
using math::PoseStatus;

/// The pixels that count at one radius, each standing for its Friedel mate too: kx >= 0, and ky > 0 where kx = 0.
struct Disc {
  int radius;
  std::size_t n = 0;
  std::vector<int> column, row, shell;
  math::AlignedFloats kx, ky;  // padded with zeros to whole blocks

  Disc(const math::GridShape& grid, int max_radius) : radius(max_radius) {
    std::vector<int> signed_row;
    for (int r = 0; r < grid.box; ++r) {
      const int k = math::frequency(r, grid.box);
      const int last = last_column(k, max_radius, grid.box);
      for (int c = k > 0 ? 0 : 1; c <= last; ++c) {
        column.push_back(c);
        row.push_back(r);
        signed_row.push_back(k);
        shell.push_back(math::shell_of(c, k));
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

  PoseEvaluation evaluate(const Pose& pose) {
    const auto axes = math::slice_axes(pose.a.m, grid_);
    const double back[2] = {-pose.shift[0], -pose.shift[1]};
    phases_.set(back);
    const double scale = static_cast<double>(grid_.padded) / grid_.box;
    for (int i = 0; i < 9; ++i) turn_[i] = static_cast<float>(scale * pose.a.m[i]);
    double sums[kPoseTerms] = {};
    for (std::size_t begin = 0; begin < disc_->n; begin += kBlock) {
      interpolate(axes, begin, std::min<std::size_t>(begin + kBlock, disc_->n));
      accumulate(begin, sums);
    }
    return math::pose_evaluation(sums);
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

  void accumulate(std::size_t begin, double* sums) const {
    using math::load;
    const float phase = static_cast<float>(2.0 * math::kPi / grid_.box);
    math::Lanes totals[kPoseTerms] = {};
    for (std::size_t at = 0; at < whole_; at += math::kLanes) {
      const std::size_t p = begin + at;
      math::PosePixel<math::Lanes> pixel;
      pixel.weight = load(weight_.data() + p);
      pixel.factor = load(factor_.data() + p);
      pixel.kx = load(disc_->kx.data() + p);
      pixel.ky = load(disc_->ky.data() + p);
      pixel.value_re = load(value_re_.data() + at);
      pixel.value_im = load(value_im_.data() + at);
      for (int i = 0; i < 6; ++i) pixel.slope[i] = load(slope_[i].data() + at);
      pixel.moved_re = load(moved_re_.data() + at);
      pixel.moved_im = load(moved_im_.data() + at);
      math::add_pose_terms(pixel, turn_, phase, totals);
    }
    for (int term = 0; term < kPoseTerms; ++term) {
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

/// One pose through every radius.
template <int W>
void refine_one(PoseEvaluator<W>& evaluator, const math::GridShape& grid, const std::vector<Disc>& discs,
                const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                const PoseBatch& poses, std::size_t i) {
  PoseClimb climb{};
  climb.pose = poses.start(i);
  climb.status = PoseStatus::kStepLimit;
  climb.box = grid.box;
  climb.max_steps = options.max_steps;
  const int last = discs.back().radius;
  int evaluations = 0;
  for (const Disc& disc : discs) {
    if (options.max_steps == 0 && disc.radius != last) continue;
    climb.status = PoseStatus::kNotFinite;
    if (!math::finite(climb.pose)) break;  // it would point outside the grid
    evaluator.open(disc, images, poses.image_of(i), last);
    climb.aim_at(disc.radius, last, options.tolerance_rad, options.tolerance_px);
    ++evaluations;
    bool more = climb.begin(evaluator.evaluate(climb.pose), prior.at(i, climb.pose));
    for (Pose trial; more && climb.propose(&trial); ++evaluations)
      more = climb.judge(trial, evaluator.evaluate(trial), prior.at(i, trial));
    if (climb.status == PoseStatus::kNotFinite) break;
  }
  poses.finish(i, climb, evaluations);
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
  math::with_width(window.width, [&](auto width) {
    refine_all<decltype(width)::value>(grid, window, spectrum, images, prior, options, poses, num_threads);
  });
}

}  // namespace verglas::cpu
