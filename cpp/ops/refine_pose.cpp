#include "ops/refine_pose.h"

#include <algorithm>
#include <cmath>

#include "math/constants.h"
#include "math/simd.h"
#include "ops/gradient_gather.h"

namespace verglas::cpu {
namespace {

// Pixels per block: its scratch stays in the first-level cache, and float sums over a block lose nothing that
// matters before they go to double.
constexpr int kBlock = 256;
constexpr int kPatchColumns = 16, kPatchRows = 8;
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
  /// Neighbours of one row of the image: pixels begin .. end - 1.
  struct Run {
    std::size_t begin, end;
    int column, row;
  };
  std::vector<Run> runs;       // none crosses a block's end
  math::AlignedFloats kx, ky;  // padded with zeros to whole blocks

  Disc(const math::GridShape& grid, int max_radius) : radius(max_radius) {
    // Patch by patch: neighbours read the same part of the map, which stays in the first-level cache meanwhile.
    std::vector<int> signed_row;
    for (int top = -max_radius; top <= max_radius; top += kPatchRows) {
      for (int left = 0; left <= max_radius; left += kPatchColumns) {
        for (int k = top; k < std::min(top + kPatchRows, max_radius + 1); ++k) {
          if (k < -(grid.box / 2) || k >= (grid.box + 1) / 2) continue;
          const int last = std::min(last_column(k, max_radius, grid.box), left + kPatchColumns - 1);
          for (int c = std::max(left, k > 0 ? 0 : 1); c <= last; ++c) {
            column.push_back(c);
            row.push_back(k < 0 ? k + grid.box : k);
            signed_row.push_back(k);
            shell.push_back(math::shell_of(c, k));
          }
        }
      }
    }
    n = column.size();
    for (std::size_t p = 0; p < n; ++p) {
      if (p % kBlock == 0 || row[p] != row[p - 1] || column[p] != column[p - 1] + 1)
        runs.push_back({p, p, column[p], row[p]});
      runs.back().end = p + 1;
    }
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
  PoseEvaluator(const WindowTable& window, const math::GridShape& grid, const Complex* spectrum)
      : grid_(grid), gather_(window, grid, spectrum), phases_(grid.box) {
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
    run_ = 0;
    for (std::size_t begin = 0; begin < disc_->n; begin += kBlock) {
      const std::size_t end = std::min<std::size_t>(begin + kBlock, disc_->n);
      interpolate(axes, begin, end);
      move_back(begin, end);
      accumulate(begin, math::round_up(end - begin, math::kLanes), sums);
    }
    return math::pose_evaluation(sums);
  }

 private:
  /// Slice values and gradients of pixels begin .. end - 1.
  void interpolate(const math::SliceAxes& axes, std::size_t begin, std::size_t end) {
    constexpr std::size_t kPart = GradientGather<W>::kPixels;
    for (std::size_t p = begin; p < end; p += kPart) {
      const std::size_t at = p - begin;
      GradientSamples out = {{value_re_.data() + at, value_im_.data() + at}, {}};
      for (int i = 0; i < 6; ++i) out.slope[i] = slope_[i].data() + at;
      gather_.run(axes, disc_->kx.data() + p, disc_->ky.data() + p,
                  static_cast<int>(std::min(kPart, end - p)), out);
    }
    // Lanes beyond the last pixel have weight zero; they must only be finite.
    const std::size_t used = end - begin, whole = math::round_up(used, math::kLanes);
    for (auto* scratch : {&value_re_, &value_im_})
      std::fill(scratch->data() + used, scratch->data() + whole, 0.0f);
    for (auto& scratch : slope_) std::fill(scratch.data() + used, scratch.data() + whole, 0.0f);
  }

  /// The image at these pixels, moved back to the centre.
  void move_back(std::size_t begin, std::size_t end) {
    const std::size_t used = end - begin, whole = math::round_up(used, math::kLanes);
    std::fill(moved_re_.data() + used, moved_re_.data() + whole, 0.0f);
    std::fill(moved_im_.data() + used, moved_im_.data() + whole, 0.0f);
    if (phases_.identity()) {
      std::copy_n(image_re_.data() + begin, used, moved_re_.data());
      std::copy_n(image_im_.data() + begin, used, moved_im_.data());
      return;
    }
    for (; run_ < disc_->runs.size() && disc_->runs[run_].begin < end; ++run_) {
      const auto& run = disc_->runs[run_];
      const Complex y = phases_.at_row(run.row);
      const Complex* x = phases_.columns() + run.column;
      const float *re = image_re_.data() + run.begin, *im = image_im_.data() + run.begin;
      float *to_re = moved_re_.data() + (run.begin - begin), *to_im = moved_im_.data() + (run.begin - begin);
      for (std::size_t i = 0; i < run.end - run.begin; ++i) {
        const Complex moved = ShiftPhases::multiply({re[i], im[i]}, ShiftPhases::multiply(x[i], y));
        to_re[i] = moved.real();
        to_im[i] = moved.imag();
      }
    }
  }

  void accumulate(std::size_t begin, std::size_t whole, double* sums) const {
    using math::load;
    const float phase = static_cast<float>(2.0 * math::kPi / grid_.box);
    math::Lanes totals[kPoseTerms] = {};
    for (std::size_t at = 0; at < whole; at += math::kLanes) {
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

  const math::GridShape& grid_;
  GradientGather<W> gather_;
  ShiftPhases phases_;
  const Disc* disc_ = nullptr;
  math::AlignedFloats image_re_, image_im_, factor_, weight_;      // the open image, whole disc
  math::AlignedFloats value_re_, value_im_, moved_re_, moved_im_;  // one block
  math::AlignedFloats slope_[6];                                   // one block: re, im along x, y, z
  std::size_t run_ = 0;                                            // of the disc, that comes next
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
  std::vector<Disc> discs;
  for (int r = 0; r < options.n_radii; ++r) discs.emplace_back(grid, options.radii[r]);
#pragma omp parallel num_threads(num_threads)
  {
    PoseEvaluator<W> evaluator(table, grid, spectrum);
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
