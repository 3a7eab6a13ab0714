#include "ops/correlate_rings.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "math/fft2d.h"
#include "ops/grey_scale.h"

namespace verglas::cpu {
namespace {

using math::kLanes;
using math::Lanes;
using Cell = math::Complex<Lanes>;
constexpr double kTwoPi = math::fft1d::kTwoPi;

/// Where one sample lies: the first of 4 x 4 pixels, and their separable weights.
struct Sample {
  std::int32_t corner;
  float wx[4], wy[4];
};

/// Cubic convolution (a = -1/2) of the pixels at -1, 0, 1, 2 for a position t in [0, 1).
void cubic_weights(double t, float* w) {
  w[0] = static_cast<float>(t * (-0.5 + t * (1.0 - 0.5 * t)));
  w[1] = static_cast<float>(1.0 + t * t * (-2.5 + 1.5 * t));
  w[2] = static_cast<float>(t * (0.5 + t * (2.0 - 1.5 * t)));
  w[3] = static_cast<float>(t * t * (-0.5 + 0.5 * t));
}

/// Samples on a circle of radius r, one per pixel of arc and a few more; even and smooth.
int samples_around(double r) {
  int n = 2 * static_cast<int>(std::ceil(kTwoPi * r / 2 + 4));
  while (!math::is_smooth(n)) n += 2;
  return n;
}

struct Ring {
  int n_theta, harmonics;        // m = 0 .. harmonics - 1, without the Nyquist term
  std::size_t sample, harmonic;  // where its own begin
  float area;                    // r / n_theta^2: weight of a product of unnormalised harmonics
  int plan;
};

struct Angle {
  double angle_deg, score;
  int x, y;
};

}  // namespace

struct RingCorrelator::Impl {
  explicit Impl(const RingParams& p);
  struct Work;
  void add_ring(double r);
  bool gather(const float* images, std::size_t count, std::size_t first, Work& work, FirstBad& bad) const;
  void harmonics_at(int sx, int sy, Work& work) const;
  Lanes centre(Work& work) const;
  void correlate(std::size_t r, const Lanes& scale, int sx, int sy, Work& work) const;
  void search(Work& work) const;

  RingParams params;
  std::vector<Ring> rings;
  std::vector<Sample> samples;
  std::vector<std::pair<int, int>> shifts;  // smallest first: ties go to it
  std::vector<math::RealFft1d> plans;
  math::RealFft1d angles;
  std::size_t n_harmonics = 0;
  int longest = 0;
  int window_first, window_side;  // the pixels of each axis that are read
  double total_area = 0;
  std::size_t m = 0;
  std::vector<float> references;  // (m, n_harmonics, 2): area g_m / norm, mean removed
};

struct RingCorrelator::Impl::Work {
  explicit Work(const Impl& p)
      : image(static_cast<std::size_t>(p.window_side) * p.window_side),
        ring(p.longest + 2),
        scratch(ring.size()),
        harmonics(p.n_harmonics),
        best(std::max<std::size_t>(p.m, 1) * kLanes) {}
  std::vector<Lanes> image;
  std::vector<Cell> ring, scratch, harmonics;
  std::vector<Angle> best;  // (m, kLanes)
};

RingCorrelator::Impl::Impl(const RingParams& p) : params(p), angles(samples_around(2 * p.r_max)) {
  const int reach = static_cast<int>(std::ceil(p.r_max)) + p.max_shift;
  window_first = p.box / 2 - reach - 1;
  window_side = std::min(2 * reach + 4, p.box - window_first);
  for (double r = p.r_min; r <= p.r_max; r += 1.0) add_ring(r);
  longest = std::max(longest, angles.storage());
  const int steps = p.max_shift / p.step;
  for (int j = -steps; j <= steps; ++j)
    for (int i = -steps; i <= steps; ++i) shifts.emplace_back(i * p.step, j * p.step);
  auto length2 = [](const auto& s) { return s.first * s.first + s.second * s.second; };
  std::stable_sort(shifts.begin(), shifts.end(),
                   [&](const auto& a, const auto& b) { return length2(a) < length2(b); });
}

void RingCorrelator::Impl::add_ring(double r) {
  const int n_theta = samples_around(r);
  auto plan = std::find_if(plans.begin(), plans.end(), [&](const auto& f) { return f.size() == n_theta; });
  if (plan == plans.end()) plan = plans.emplace(plans.end(), n_theta);
  const float area = static_cast<float>(r / n_theta / n_theta);
  rings.push_back(
      {n_theta, n_theta / 2, samples.size(), n_harmonics, area, static_cast<int>(plan - plans.begin())});
  n_harmonics += n_theta / 2;
  longest = std::max(longest, plan->storage());
  total_area += r;
  const int centre = params.box / 2;
  for (int j = 0; j < n_theta; ++j) {
    const double x = centre + r * std::cos(kTwoPi * j / n_theta);
    const double y = centre + r * std::sin(kTwoPi * j / n_theta);
    const int ix = static_cast<int>(std::floor(x)), iy = static_cast<int>(std::floor(y));
    Sample s;
    s.corner = (iy - 1 - window_first) * window_side + ix - 1 - window_first;
    cubic_weights(x - ix, s.wx);
    cubic_weights(y - iy, s.wy);
    samples.push_back(s);
  }
}

/// Up to kLanes images, of mean 0 and variance 1, interleaved: image[pixel] holds one pixel of each. Only the
/// window that the samples read is kept.
bool RingCorrelator::Impl::gather(const float* images, std::size_t count, std::size_t first, Work& work,
                                  FirstBad& bad) const {
  const std::size_t pixels = static_cast<std::size_t>(params.box) * params.box;
  float offset[kLanes] = {}, scale[kLanes] = {};
  bool finite = true;
  for (std::size_t l = 0; l < count; ++l) {
    const GreyScale g = grey_scale(images + l * pixels, pixels);
    if (!g.finite) bad.note(first + l), finite = false;
    offset[l] = static_cast<float>(g.mean);
    scale[l] = g.flat ? 0.0f : static_cast<float>(1 / g.sd);
  }
  if (!finite) return false;
  for (int y = 0; y < window_side; ++y)
    for (int x = 0; x < window_side; x += kLanes) {
      const int width = std::min(kLanes, window_side - x);
      const float* from = images + static_cast<std::size_t>(window_first + y) * params.box + window_first + x;
      Lanes tile[kLanes] = {};
      for (std::size_t l = 0; l < count; ++l)
        tile[l] = scale[l] * (math::load_lanes(from + l * pixels, width) - offset[l]);
      math::fft2d::transpose(tile);
      std::copy(tile, tile + width, work.image.data() + static_cast<std::size_t>(y) * window_side + x);
    }
  return true;
}

/// Unnormalised angular harmonics of every ring of the images moved by (sx, sy).
void RingCorrelator::Impl::harmonics_at(int sx, int sy, Work& work) const {
  const Lanes* origin = work.image.data() - (static_cast<std::ptrdiff_t>(sy) * window_side + sx);
  for (const Ring& ring : rings) {
    Lanes* out = math::RealFft1d::reals(work.ring.data());
    const Sample* s = samples.data() + ring.sample;
    for (int j = 0; j < ring.n_theta; ++j, ++s) {
      const Lanes* p = origin + s->corner;
      Lanes sum{};
      for (int row = 0; row < 4; ++row, p += window_side)
        sum += s->wy[row] * (s->wx[0] * p[0] + s->wx[1] * p[1] + s->wx[2] * p[2] + s->wx[3] * p[3]);
      out[j] = sum;
    }
    const Cell* half = plans[ring.plan].forward(work.ring.data(), work.scratch.data());
    std::copy(half, half + ring.harmonics, work.harmonics.data() + ring.harmonic);
  }
}

/// Removes the mean over all rings; returns 1 / norm per lane, 0 where nothing is left.
Lanes RingCorrelator::Impl::centre(Work& work) const {
  Lanes mean{};
  for (const Ring& ring : rings)
    mean += (ring.area * static_cast<float>(ring.n_theta)) * work.harmonics[ring.harmonic].re;
  mean = mean / static_cast<float>(total_area);
  Lanes power{};
  for (const Ring& ring : rings) {
    Cell* h = work.harmonics.data() + ring.harmonic;
    h[0].re -= static_cast<float>(ring.n_theta) * mean;
    Lanes sum{};
    for (int k = 1; k < ring.harmonics; ++k) sum += h[k].re * h[k].re + h[k].im * h[k].im;
    power += ring.area * (h[0].re * h[0].re + 2.0f * sum);
  }
  Lanes inverse{};
  // Flat in the disc beside the rest of the image (whose variance is 1): rounding only.
  const double floor = kFlat * kFlat * total_area;
  for (int l = 0; l < kLanes; ++l)
    if (power[l] > floor) inverse[l] = static_cast<float>(1 / std::sqrt(static_cast<double>(power[l])));
  return inverse;
}

/// Correlation with reference r over all angles; keeps each lane's best.
void RingCorrelator::Impl::correlate(std::size_t r, const Lanes& scale, int sx, int sy, Work& work) const {
  Cell* c = work.ring.data();
  std::fill(c, c + angles.half(), Cell{});
  for (const Ring& ring : rings) {
    const float* g = references.data() + 2 * (r * n_harmonics + ring.harmonic);
    const Cell* f = work.harmonics.data() + ring.harmonic;
    for (int k = 0; k < ring.harmonics; ++k) {  // conj(f) g
      const float re = g[2 * k], im = g[2 * k + 1];
      c[k].re += re * f[k].re + im * f[k].im;
      c[k].im += im * f[k].re - re * f[k].im;
    }
  }
  const int n = angles.size();
  const Lanes* curve = angles.inverse(c, work.scratch.data());
  typedef std::int32_t LaneInts __attribute__((vector_size(kLanes * sizeof(std::int32_t))));
  Lanes most = curve[0];
  LaneInts at{};
  for (int j = 1; j < n; ++j) {
    const auto higher = curve[j] > most;
    most = higher ? curve[j] : most;
    at = higher ? LaneInts{} + j : at;
  }
  for (int l = 0; l < kLanes; ++l) {
    const double a = curve[(at[l] + n - 1) % n][l], b = most[l], d = curve[(at[l] + 1) % n][l];
    const double curvature = a - 2 * b + d;
    const double offset = curvature < 0 ? 0.5 * (a - d) / curvature : 0.0;
    const double score = scale[l] * (b - 0.25 * (a - d) * offset);
    Angle& best = work.best[r * kLanes + l];
    if (!(score > best.score)) continue;
    double angle = 360.0 * (at[l] + offset) / n;
    if (angle > 180.0) angle -= 360.0;
    if (scale[l] == 0.0f) angle = 0.0;
    best = {angle, std::clamp(score, -1.0, 1.0), sx, sy};
  }
}

void RingCorrelator::Impl::search(Work& work) const {
  std::fill(work.best.begin(), work.best.end(), Angle{0, -std::numeric_limits<double>::infinity(), 0, 0});
  for (const auto& [sx, sy] : shifts) {
    harmonics_at(sx, sy, work);
    const Lanes scale = centre(work);
    for (std::size_t r = 0; r < m; ++r) correlate(r, scale, sx, sy, work);
  }
}

RingCorrelator::RingCorrelator(const RingParams& params) : impl_(std::make_unique<Impl>(params)) {}
RingCorrelator::~RingCorrelator() = default;

void RingCorrelator::set_references(const float* references, std::size_t m) {
  Impl& p = *impl_;
  const std::size_t pixels = static_cast<std::size_t>(p.params.box) * p.params.box;
  p.references.assign(2 * m * p.n_harmonics, 0.0f);
  p.m = m;
  Impl::Work work(p);
  FirstBad bad;
  for (std::size_t first = 0; first < m; first += kLanes) {
    const std::size_t count = std::min<std::size_t>(kLanes, m - first);
    if (!p.gather(references + first * pixels, count, first, work, bad)) continue;
    p.harmonics_at(0, 0, work);
    const Lanes scale = p.centre(work);
    for (std::size_t l = 0; l < count; ++l) {
      float* out = p.references.data() + 2 * (first + l) * p.n_harmonics;
      for (const Ring& ring : p.rings)
        for (int k = 0; k < ring.harmonics; ++k) {
          const Cell& h = work.harmonics[ring.harmonic + k];
          out[2 * (ring.harmonic + k)] = ring.area * scale[l] * h.re[l];
          out[2 * (ring.harmonic + k) + 1] = ring.area * scale[l] * h.im[l];
        }
    }
  }
  bad.raise("references", "reference");
}

int RingCorrelator::run(const float* images, std::size_t n_images, bool best_only, const RingResult& out,
                        int num_threads) const {
  const Impl& p = *impl_;
  const std::size_t pixels = static_cast<std::size_t>(p.params.box) * p.params.box, m = p.m;
  const std::size_t blocks = (n_images + kLanes - 1) / kLanes;
  std::vector<Impl::Work> workers(num_threads, Impl::Work(p));
  FirstBad bad;
  auto write = [&](const Angle& a, std::size_t r, std::size_t at) {
    out.shift[2 * at] = static_cast<float>(a.x);
    out.shift[2 * at + 1] = static_cast<float>(a.y);
    out.angle_deg[at] = static_cast<float>(a.angle_deg);
    out.score[at] = static_cast<float>(a.score);
    out.reference[at] = static_cast<std::int32_t>(r);
  };
#pragma omp parallel for num_threads(num_threads) schedule(dynamic)
  for (std::size_t b = 0; b < blocks; ++b) {
    Impl::Work& work = workers[omp_get_thread_num()];
    const std::size_t first = b * kLanes, count = std::min<std::size_t>(kLanes, n_images - first);
    if (!p.gather(images + first * pixels, count, first, work, bad)) continue;
    p.search(work);
    for (std::size_t l = 0; l < count; ++l) {
      std::size_t winner = 0;
      for (std::size_t r = 0; r < m; ++r) {
        const Angle& a = work.best[r * kLanes + l];
        if (!best_only) write(a, r, (first + l) * m + r);
        if (a.score > work.best[winner * kLanes + l].score) winner = r;
      }
      if (best_only) write(work.best[winner * kLanes + l], winner, first + l);
    }
  }
  bad.raise("images", "image");
  return static_cast<int>(p.shifts.size());
}

}  // namespace verglas::cpu
