#include "ops/score.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "ops/score_select.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::kLanes;
using math::Lanes;
using math::load;
using math::maximum;
using math::store;

/// Harmonics of the vectors of one round of pass 1 stay within this, so that they are read from the L2 cache.
constexpr std::size_t kRoundBytes = 768 << 10;

/// What never changes during a run.
struct Job {
  const PolarGrid& grid;
  const ScoreSettings& settings;
  const PsiTables& psi;
  const PackedSlices& slices;
  const ScoreInput& in;
  const LaneHarmonics& lanes;
  const EvenHarmonics& even;

  int terms() const { return 2 * settings.n_power - 1; }
  /// Whether scores need more than a maximum over psi.
  bool adjusted() const { return settings.correlation || in.log_psi; }
  std::size_t points() const { return static_cast<std::size_t>(grid.n_rings) * grid.half(); }
  std::size_t power_values() const { return static_cast<std::size_t>(grid.n_rings) * settings.n_power; }
  std::size_t vector_floats() const { return grid.size * 2 * kLanes; }
  std::size_t tile_floats() const { return static_cast<std::size_t>(psi.max_m + 1) * 2 * kBlock * kLanes; }
  std::size_t score_floats() const { return static_cast<std::size_t>(settings.n_psi) * kBlock * kLanes; }
  std::size_t entries() const { return slices.n_blocks * 2 * kBlock; }
};

/// Harmonics, power spectra and priors of some (image, shift) pairs in lanes.
struct LaneSet {
  std::size_t vectors = 0;
  AlignedFloats b;          // (vectors, size, 2, kLanes)
  AlignedFloats log_shift;  // (vectors, kLanes); kNever beyond the last shift
  AlignedFloats cp;         // (n_rings, n_power, 2, kLanes)
  AlignedFloats norm;       // (kLanes), sum |X|^2 / sigma2
};

/// Scratch of one thread.
struct Workspace {
  LaneSet group, image;
  std::vector<cfloat> y, cp;
  std::vector<float> ctf, maxima;
  AlignedFloats y_lanes, shift, c, q, series, rsqrt, scores, best;
  LaneHarmonics::Scratch harmonics;
  SelectionScratch selection;
};

/// Scores of one block of slices against one vector of lanes; both passes use it, so their scores are equal.
class BlockScorer {
 public:
  BlockScorer(const Job& job, Workspace& w) : job_(job), w_(w) {
    w_.q.resize(2 * kBlock * job.terms() * kLanes);
    w_.c.resize(2 * job.tile_floats());
    w_.scores.resize(job.score_floats());
    w_.series.resize(job.tile_floats());
    if (job.settings.correlation) w_.rsqrt.resize(2 * job.score_floats());
  }

  bool uses(std::size_t block, int side) const { return job_.slices.tiles[block] >> side & 1; }

  void begin_block(std::size_t block, const LaneSet& set) {
    block_ = block;
    power_block(job_.grid, job_.slices, block, set.cp.data(), job_.settings.power_factor(), w_.q.data());
    if (job_.settings.correlation) make_rsqrt(set);
  }

  void begin_vector(const LaneSet& set, std::size_t v) {
    const LaneTerms terms = {set.log_shift.data() + v * kLanes,
                             job_.settings.correlation ? nullptr : w_.q.data()};
    correlate_block(job_.grid, job_.psi, job_.slices, block_, set.b.data() + v * job_.vector_floats(), terms,
                    w_.c.data());
  }

  /// best[column] = max(best[column], max over psi).
  void maxima(int side, float* best) {
    if (!job_.adjusted()) return psi_maxima(job_.psi, tile(side), best);
    const float* values = scores(side);
    for (int j = 0; j < job_.settings.n_psi; ++j) {
      for (int k = 0; k < kBlock; ++k)
        store(best + k * kLanes, maximum(load(best + k * kLanes),
                                         load(values + (static_cast<std::size_t>(j) * kBlock + k) * kLanes)));
    }
  }

  /// [psi][column][lane], valid until the next call.
  const float* scores(int side) {
    psi_scores(job_.psi, tile(side), side == 1, w_.scores.data());
    if (!job_.adjusted()) return w_.scores.data();
    const float* scale = job_.settings.correlation ? w_.rsqrt.data() + side * job_.score_floats() : nullptr;
    for (std::size_t i = 0; i < job_.score_floats(); i += kLanes) {
      Lanes value = load(w_.scores.data() + i);
      if (scale) value *= load(scale + i);
      if (job_.in.log_psi) value += job_.in.log_psi[i / (kBlock * kLanes)];
      store(w_.scores.data() + i, value);
    }
    return w_.scores.data();
  }

 private:
  const Job& job_;
  Workspace& w_;
  std::size_t block_ = 0;

  const float* tile(int side) const { return w_.c.data() + side * job_.tile_floats(); }

  /// rsqrt[side][psi][column] = 1 / sqrt(power |X|^2) of the images in the lanes. The power is itself a
  /// series in psi, so stage 2 evaluates it. Without power the cross term is zero too: any factor will do.
  void make_rsqrt(const LaneSet& set) {
    const std::size_t step = 2 * kBlock * kLanes;
    for (int side = 0; side < 2; ++side) {
      std::fill_n(w_.series.data(), job_.tile_floats(), 0.0f);
      for (int k = 0; k < kBlock; ++k) {
        const float* q = w_.q.data() + (side * kBlock + k) * job_.terms() * kLanes;
        for (int h = 0; h < job_.settings.n_power; ++h) {
          float* at = w_.series.data() + job_.psi.slot[2 * h] * step + k * kLanes;
          store(at, load(q + (h ? 2 * h - 1 : 0) * kLanes));
          if (h) store(at + kBlock * kLanes, job_.psi.sign[2 * h] * load(q + 2 * h * kLanes));
        }
      }
      float* out = w_.rsqrt.data() + side * job_.score_floats();
      psi_scores(job_.psi, w_.series.data(), side == 1, out);
      for (std::size_t i = 0; i < job_.score_floats(); ++i) {
        const float product = out[i] * set.norm.data()[i % kLanes];
        out[i] = product > 0.0f ? 1.0f / std::sqrt(product) : 1.0f;
      }
    }
  }
};

/// `group` images (a power of two, at most kLanes) with all their shifts, flattened image-fastest over the
/// lanes: lane l of vector v is image l mod group at shift (v kLanes + l) / group.
class GroupSearch {
 public:
  GroupSearch(const Job& job, Workspace& w, std::size_t first, std::size_t group)
      : job_(job), w_(w), first_(first), group_(group), scorer_(job, w) {}

  void run(ImageScore* out) {
    weight_images();
    shift_images();
    maxima();
    for (std::size_t i = 0; i < group_; ++i) {
      if (group_ > 1) spread_image(i);
      out[i] = finish_image(i, group_ > 1 ? w_.image : w_.group);
    }
  }

 private:
  const Job& job_;
  Workspace& w_;
  std::size_t first_, group_;
  BlockScorer scorer_;

  /// y = C X / sigma2 and the power spectra of the group, image i in all lanes l = i mod group.
  void weight_images() {
    const PolarGrid& g = job_.grid;
    const std::size_t points = job_.points(), n_cp = job_.power_values();
    w_.y.resize(points);
    w_.ctf.resize(points);
    w_.cp.resize(n_cp);
    w_.y_lanes.resize(points * 2 * kLanes);
    w_.group.cp.resize(n_cp * 2 * kLanes);
    w_.group.norm.resize(kLanes);
    for (std::size_t i = 0; i < group_; ++i) {
      const std::size_t image = first_ + i;
      const float* inv = job_.in.inv_sigma2 + image * g.n_rings;
      std::copy_n(job_.in.samples + image * points, points, w_.y.begin());
      const float norm = image_norm(inv);
      weight_samples(job_.in.ctf ? job_.in.ctf + image * math::kOpticsColumns : nullptr, job_.in.pixel_size_A,
                     inv, g, job_.even, w_.ctf.data(), w_.y.data(), w_.cp.data());
      for (std::size_t l = i; l < kLanes; l += group_) {
        w_.group.norm.data()[l] = norm;
        scatter(w_.y, l, w_.y_lanes.data());
        scatter(w_.cp, l, w_.group.cp.data());
      }
    }
  }

  /// sum |X|^2 / sigma2 over the full plane of the image in w_.y.
  float image_norm(const float* inv) const {
    double sum = 0;
    for (int j = 0; j < job_.grid.n_rings; ++j) {
      double ring = 0;
      for (int t = 0; t < job_.grid.half(); ++t) ring += std::norm(w_.y[j * job_.grid.half() + t]);
      sum += 2.0 * ring * job_.grid.weights[j] * inv[j];
    }
    return static_cast<float>(sum);
  }

  static void scatter(const std::vector<cfloat>& from, std::size_t lane, float* to) {
    for (std::size_t k = 0; k < from.size(); ++k) {
      to[2 * k * kLanes + lane] = from[k].real();
      to[(2 * k + 1) * kLanes + lane] = from[k].imag();
    }
  }

  /// Log priors of the shifts of one vector, `group` images to a shift; in correlations they only say what exists.
  void fill_priors(std::size_t v, std::size_t group, float* out) const {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t shift = (v * kLanes + l) / group;
      out[l] = shift >= job_.in.n_shifts   ? kNever
               : job_.settings.correlation ? 0.0f
                                           : job_.in.log_shift[shift];
    }
  }

  /// Weighted harmonics of every (image, shift); lanes beyond the last shift repeat it.
  void shift_images() {
    LaneSet& set = w_.group;
    set.vectors = (job_.in.n_shifts * group_ + kLanes - 1) / kLanes;
    w_.shift.resize(2 * kLanes);
    set.log_shift.resize(set.vectors * kLanes);
    set.b.resize(set.vectors * job_.vector_floats());
    for (std::size_t v = 0; v < set.vectors; ++v) {
      fill_priors(v, group_, set.log_shift.data() + v * kLanes);
      for (std::size_t l = 0; l < kLanes; ++l) {
        const std::size_t s = std::min((v * kLanes + l) / group_, job_.in.n_shifts - 1);
        const float* centre = job_.in.centres ? job_.in.centres + 2 * (first_ + l % group_) : nullptr;
        for (int axis = 0; axis < 2; ++axis)
          w_.shift.data()[axis * kLanes + l] = job_.in.shifts[2 * s + axis] + (centre ? centre[axis] : 0.0f);
      }
      job_.lanes.run(w_.y_lanes.data(), false, w_.shift.data(), w_.shift.data() + kLanes, w_.harmonics,
                     set.b.data() + v * job_.vector_floats());
    }
  }

  /// Pass 1: w_.best[entry][lane], the largest score over psi and the shifts in that lane.
  void maxima() {
    const LaneSet& set = w_.group;
    const std::size_t round = std::max<std::size_t>(1, kRoundBytes / (job_.vector_floats() * sizeof(float)));
    w_.best.resize(job_.entries() * kLanes);
    std::fill_n(w_.best.data(), job_.entries() * kLanes, kNever);
    for (std::size_t begin = 0; begin < set.vectors; begin += round) {
      const std::size_t end = std::min(set.vectors, begin + round);
      for (std::size_t block = 0; block < job_.slices.n_blocks; ++block) {
        scorer_.begin_block(block, set);
        for (std::size_t v = begin; v < end; ++v) {
          scorer_.begin_vector(set, v);
          for (int side = 0; side < 2; ++side) {
            if (scorer_.uses(block, side))
              scorer_.maxima(side, w_.best.data() + (block * 2 + side) * kBlock * kLanes);
          }
        }
      }
    }
  }

  /// Image i of the group alone, its shifts along the lanes.
  void spread_image(std::size_t i) {
    const LaneSet& from = w_.group;
    LaneSet& to = w_.image;
    to.vectors = (job_.in.n_shifts + kLanes - 1) / kLanes;
    to.b.resize(to.vectors * job_.vector_floats());
    to.log_shift.resize(to.vectors * kLanes);
    to.cp.resize(from.cp.size());
    to.norm.resize(kLanes);
    for (std::size_t v = 0; v < to.vectors; ++v) {
      fill_priors(v, 1, to.log_shift.data() + v * kLanes);
      for (std::size_t l = 0; l < kLanes; ++l) {
        const std::size_t flat = std::min(v * kLanes + l, job_.in.n_shifts - 1) * group_ + i;
        const float* source = from.b.data() + flat / kLanes * job_.vector_floats() + flat % kLanes;
        float* target = to.b.data() + v * job_.vector_floats() + l;
        for (std::size_t k = 0; k < 2 * job_.grid.size; ++k) target[k * kLanes] = source[k * kLanes];
      }
    }
    for (std::size_t k = 0; k < 2 * job_.power_values(); ++k)
      std::fill_n(to.cp.data() + k * kLanes, kLanes, from.cp.data()[k * kLanes + i]);
    std::fill_n(to.norm.data(), kLanes, from.norm.data()[i]);
  }

  /// Entry order of the result is (slice, side); the kernel's is (block, side, slice of the block).
  static std::size_t entry_of(std::size_t block, int side, int k) { return 2 * (block * kBlock + k) + side; }

  /// Pass 2.
  ImageScore finish_image(std::size_t i, const LaneSet& set) {
    w_.maxima.assign(2 * job_.slices.n_slices, kNever);
    for (std::size_t e = 0; e < w_.maxima.size(); ++e) {
      const std::size_t slice = e / 2, row = (slice / kBlock * 2 + e % 2) * kBlock + slice % kBlock;
      for (std::size_t l = i; l < kLanes; l += group_)
        w_.maxima[e] = std::max(w_.maxima[e], w_.best.data()[row * kLanes + l]);
    }
    PoseSelection selection(job_.settings, w_.maxima,
                            static_cast<std::size_t>(job_.settings.n_psi) * job_.in.n_shifts,
                            job_.in.n_shifts, w_.selection);
    for (std::size_t block = 0; block < job_.slices.n_blocks; ++block) scan_block(block, set, selection);
    return selection.trim();
  }

  void scan_block(std::size_t block, const LaneSet& set, PoseSelection& selection) {
    bool side_active[2] = {false, false};
    const auto is_active = [&](int side, int k) {
      return block * kBlock + k < job_.slices.n_slices && selection.active(entry_of(block, side, k));
    };
    for (int k = 0; k < kBlock; ++k)
      for (int side = 0; side < 2; ++side) side_active[side] |= is_active(side, k);
    if (!side_active[0] && !side_active[1]) return;
    scorer_.begin_block(block, set);
    for (std::size_t v = 0; v < set.vectors; ++v) {
      scorer_.begin_vector(set, v);
      for (int side = 0; side < 2; ++side) {
        if (!side_active[side]) continue;
        const float* scores = scorer_.scores(side);
        for (int k = 0; k < kBlock; ++k) {
          if (is_active(side, k))
            selection.sum_and_collect(entry_of(block, side, k), scores + k * kLanes, kBlock * kLanes,
                                      v * kLanes);
        }
      }
    }
  }
};

}  // namespace

ScorePlan::ScorePlan(const PolarGrid& grid, const ScoreSettings& settings)
    : grid_(grid), settings_(settings), psi_(settings.n_psi, grid.max_m) {
  const int most = std::min(grid.max_m / 2, grid.half() - 1) + 1;
  if (settings.n_power < 1 || settings.n_power > most)
    throw std::invalid_argument("n_power: expected 1 to " + std::to_string(most) + " for this grid, got " +
                                std::to_string(settings.n_power));
}

void ScorePlan::set_reference(const Reference& r) {
  slices_.n_slices = r.n;
  slices_.n_blocks = (r.n + kBlock - 1) / kBlock;
  slices_.n_power = settings_.n_power;
  const std::size_t per_power = static_cast<std::size_t>(grid_.n_rings) * settings_.n_power;
  slices_.a = AlignedFloats(slices_.n_blocks * grid_.size * kBlock * 2);
  slices_.power = AlignedFloats(slices_.n_blocks * per_power * kBlock * 2);
  slices_.prior = AlignedFloats(slices_.n_blocks * 2 * kBlock);
  slices_.tiles.assign(slices_.n_blocks, 0);
  std::fill_n(slices_.prior.data(), slices_.prior.size(), kNever);
  const auto pack = [](const cfloat* from, std::size_t n, std::size_t slice, float* to) {
    to += slice / kBlock * n * kBlock * 2 + slice % kBlock * 2;
    for (std::size_t k = 0; k < n; ++k, to += 2 * kBlock) to[0] = from[k].real(), to[1] = from[k].imag();
  };
  for (std::size_t i = 0; i < r.n; ++i) {
    pack(r.harmonics + i * grid_.size, grid_.size, i, slices_.a.data());
    pack(r.power + i * per_power, per_power, i, slices_.power.data());
    for (int side = 0; side < 2; ++side) {
      const float prior = r.prior[2 * i + side];
      if (!(prior > kNever)) continue;
      slices_.tiles[i / kBlock] |= static_cast<std::uint8_t>(1 << side);
      slices_.prior.data()[(i / kBlock * 2 + side) * kBlock + i % kBlock] =
          settings_.correlation ? 0.0f : prior;
    }
  }
}

std::vector<ImageScore> ScorePlan::run(const ScoreInput& in, int num_threads) const {
  if (!slices_.n_slices) throw std::invalid_argument("score: no reference set (call set_reference first)");
  if (!in.n_shifts) throw std::invalid_argument("score: expected at least one shift");
  std::vector<ImageScore> out(in.n);
  const LaneHarmonics lanes(grid_);
  const EvenHarmonics even(grid_, settings_.n_power);
  const Job job = {grid_, settings_, psi_, slices_, in, lanes, even};
  // Full groups waste no lane; smaller ones (powers of two) where threads would idle, and for the last images.
  std::size_t largest = 1;
  while (2 * largest <= kLanes && 2 * largest * static_cast<std::size_t>(num_threads) <= in.n) largest *= 2;
  std::vector<std::size_t> begin{0};
  while (begin.back() < in.n) {
    std::size_t group = largest;
    while (begin.back() + group > in.n) group /= 2;
    begin.push_back(begin.back() + group);
  }
#pragma omp parallel num_threads(num_threads)
  {
    Workspace workspace;
#pragma omp for schedule(dynamic, 1)
    for (std::size_t k = 0; k < begin.size() - 1; ++k)
      GroupSearch(job, workspace, begin[k], begin[k + 1] - begin[k]).run(out.data() + begin[k]);
  }
  return out;
}

std::size_t ScorePlan::reference_bytes() const {
  return (slices_.a.size() + slices_.power.size() + slices_.prior.size()) * sizeof(float);
}

std::size_t ScorePlan::thread_bytes(std::size_t n_shifts) const {
  const std::size_t vector = grid_.size * 2 * kLanes;
  const std::size_t image = (n_shifts + kLanes - 1) / kLanes * vector;
  const std::size_t points = static_cast<std::size_t>(grid_.n_rings) * grid_.half();
  return (n_shifts * vector + image + points * (2 * kLanes + 3) +
          slices_.n_blocks * 2 * kBlock * (kLanes + 1)) *
         sizeof(float);
}

}  // namespace verglas::cpu
