#include "ops/correlate.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "math/fft2d.h"
#include "ops/correlate_peak.h"
#include "ops/grey_scale.h"

namespace verglas::cpu {
namespace {

using math::kLanes;
using math::Lanes;
using Cell = math::RealFft2d::Cell;

// Power, relative to the mean over all coefficients, that rounding of the transforms makes: no phase in it.
constexpr float kNoPhase = 1e-12f;

/// What stands beside a spectrum. The spectrum is that of (image - mean) / sd, times sqrt(w), without k = 0.
struct Side {
  GreyScale grey;
  double norm = 0;  // sqrt of the sum of |F|^2 over the plane
};

}  // namespace

struct Correlator::Impl {
  explicit Impl(const CorrelateParams& p);

  struct Work;
  Side transform(const float* image, Cell* spectrum, Work& work) const;
  void shape(Cell* spectrum) const;
  double power(const Cell* spectrum) const;
  peak::Peak match(const Cell* f, const Side& fs, const Cell* g, const Side& gs, Work& work) const;
  void product(const Cell* f, const Cell* g, int b, Cell* out) const;
  std::vector<Work> workers(int num_threads) const;

  int n, max_k;  // coefficients with |kx| or ky > max_k have weight 0
  CorrelateScore score;
  PeakFit fit;
  double weight0 = 1;
  math::RealFft2d fft;
  peak::Window window;
  std::vector<Lanes> root_weight;  // sqrt(w) in the layout of a spectrum; empty for all ones
  float root_weight_shared[4];     // of the four real coefficients (0,0), (0,n/2), (n/2,0), (n/2,n/2)
  std::size_t m = 0;
  std::vector<Cell> references;
  std::vector<Side> sides;
};

struct Correlator::Impl::Work {
  explicit Work(const Impl& p)
      : image(p.fft.spectrum_size()),
        reference(p.fft.spectrum_size()),
        work(p.fft.work_size()),
        scratch(p.fft.work_size()),
        columns(static_cast<std::size_t>(p.window.groups) * p.fft.column_stride()),
        search(p.window),
        exact(p.fft, p.max_k) {}
  std::vector<Cell> image, reference, work, scratch, columns;
  peak::Search search;
  peak::ExactMap exact;
};

Correlator::Impl::Impl(const CorrelateParams& p)
    : n(math::checked_length(p.box)),
      max_k(p.weights ? std::min(p.box / 2, p.n_weights - 1) : p.box / 2),
      score(p.score),
      fit(p.fit),
      fft(p.box, max_k),
      window(p.box, p.max_shift) {
  if (!p.weights) return;
  auto root = [&](int kx, int ky) {
    const auto shell = std::lround(std::hypot(kx, ky));
    return shell < p.n_weights ? std::sqrt(p.weights[shell]) : 0.0f;
  };
  weight0 = p.weights[0];
  root_weight.assign(fft.spectrum_size(), Lanes{});
  const int rows = (n + 1) / 2;
  for (int b = 0; b < fft.blocks(); ++b)
    for (int kx = 0; kx < n; ++kx)
      for (int l = 0; l < kLanes && b * kLanes + l < rows; ++l) {
        int ky = b * kLanes + l;
        if (ky == 0 && 2 * kx > n) ky = n / 2;  // the shared lane
        root_weight[static_cast<std::size_t>(b) * n + kx][l] = root(2 * kx > n ? kx - n : kx, ky);
      }
  const float shared[4] = {root(0, 0), root(0, n / 2), root(n / 2, 0), root(n / 2, n / 2)};
  std::copy(shared, shared + 4, root_weight_shared);
}

std::vector<Correlator::Impl::Work> Correlator::Impl::workers(int num_threads) const {
  std::vector<Work> w;
  for (int t = 0; t < num_threads; ++t) w.emplace_back(*this);
  return w;
}

Side Correlator::Impl::transform(const float* image, Cell* spectrum, Work& work) const {
  const std::size_t pixels = static_cast<std::size_t>(n) * n;
  Side side;
  side.grey = grey_scale(image, pixels);
  if (!side.grey.finite || side.grey.flat) {
    std::fill(spectrum, spectrum + fft.spectrum_size(), Cell{});
    return side;
  }
  fft.forward(image, static_cast<float>(side.grey.mean), static_cast<float>(1 / side.grey.sd), spectrum,
              work.work.data(), work.scratch.data());
  shape(spectrum);
  side.norm = std::sqrt(power(spectrum));
  return side;
}

/// Removes k = 0, whitens for the phase score, applies sqrt(w).
void Correlator::Impl::shape(Cell* spectrum) const {
  float* shared[4] = {reinterpret_cast<float*>(&spectrum[0].re), reinterpret_cast<float*>(&spectrum[0].im),
                      reinterpret_cast<float*>(&spectrum[n / 2].re),
                      reinterpret_cast<float*>(&spectrum[n / 2].im)};
  const int n_shared = n % 2 == 0 ? 4 : 2;
  *shared[0] = 0;
  float kept[4] = {};
  for (int i = 0; i < n_shared; ++i) kept[i] = *shared[i];
  if (score == CorrelateScore::phase) {
    const float floor = kNoPhase * static_cast<float>(n) * static_cast<float>(n);  // the variance is 1
    for (std::size_t i = 0; i < fft.spectrum_size(); ++i) {
      Cell& c = spectrum[i];
      const Lanes power = c.re * c.re + c.im * c.im;
      Lanes inverse;
      for (int l = 0; l < kLanes; ++l) inverse[l] = power[l] > floor ? 1.0f / std::sqrt(power[l]) : 0.0f;
      c = {c.re * inverse, c.im * inverse};
    }
    for (float& v : kept) v = v * v > floor ? std::copysign(1.0f, v) : 0.0f;
  }
  if (!root_weight.empty()) {
    for (std::size_t i = 0; i < fft.spectrum_size(); ++i)
      spectrum[i] = {root_weight[i] * spectrum[i].re, root_weight[i] * spectrum[i].im};
    for (int i = 0; i < 4; ++i) kept[i] *= root_weight_shared[i];
  }
  for (int i = 0; i < n_shared; ++i) *shared[i] = kept[i];
}

/// Sum of |F|^2 over the whole plane: every slot stands for two coefficients, but for the real ones.
double Correlator::Impl::power(const Cell* spectrum) const {
  double sum = 0;
  for (int b = 0; b < fft.blocks(); ++b) {
    Lanes part{};
    for (int kx = 0; kx < n; ++kx) {
      const Cell& c = spectrum[static_cast<std::size_t>(b) * n + kx];
      part += c.re * c.re + c.im * c.im;
    }
    for (int l = 0; l < kLanes; ++l) sum += 2.0 * part[l];
  }
  auto real_slot = [&](const Cell& c) { sum -= c.re[0] * c.re[0] + c.im[0] * c.im[0]; };
  real_slot(spectrum[0]);
  if (n % 2 == 0) real_slot(spectrum[n / 2]);
  return std::max(sum, 0.0);
}

/// conj(F) G of one block of rows; columns beyond max_k are zero.
void Correlator::Impl::product(const Cell* f, const Cell* g, int b, Cell* out) const {
  f += static_cast<std::size_t>(b) * n;
  g += static_cast<std::size_t>(b) * n;
  auto multiply = [&](int from, int to) {
    for (int kx = from; kx < to; ++kx)
      out[kx] = {f[kx].re * g[kx].re + f[kx].im * g[kx].im, f[kx].re * g[kx].im - f[kx].im * g[kx].re};
  };
  if (2 * max_k + 1 >= n) {
    multiply(0, n);
  } else {
    multiply(0, max_k + 1);
    std::fill(out + max_k + 1, out + n - max_k, Cell{});
    multiply(n - max_k, n);
  }
  if (b > 0) return;
  for (int slot : {0, n / 2}) {
    if (slot > 0 && n % 2 != 0) break;
    out[slot].re[0] = f[slot].re[0] * g[slot].re[0];
    out[slot].im[0] = f[slot].im[0] * g[slot].im[0];
  }
}

peak::Peak Correlator::Impl::match(const Cell* f, const Side& fs, const Cell* g, const Side& gs,
                                   Work& w) const {
  const double pixels = static_cast<double>(n) * n;
  const double constant =
      score == CorrelateScore::product ? weight0 * fs.grey.mean * gs.grey.mean * pixels : 0.0;
  if (!(fs.norm > 0 && gs.norm > 0)) return {0, 0, constant};
  for (int b = 0; b < fft.blocks(); ++b) {
    product(f, g, b, w.work.data());
    fft.inverse_rows(b, w.work.data(), w.scratch.data(), window.first, window.groups, w.columns.data());
  }
  w.search.start();
  for (int i = 0; i < window.groups; ++i) {
    Cell* column = w.columns.data() + static_cast<std::size_t>(i) * fft.column_stride();
    w.search.add(i, fft.inverse_columns(column, w.scratch.data()));
  }
  peak::Peak best = w.search.integer_peak();
  if (fit != PeakFit::none && w.search.parabola(best) && fit == PeakFit::newton) w.exact.newton(f, g, best);
  if (score == CorrelateScore::product) {
    best.value = best.value * (fs.grey.sd * gs.grey.sd / pixels) + constant;
  } else {
    best.value = std::clamp(best.value / (fs.norm * gs.norm), -1.0, 1.0);  // beyond by rounding only
  }
  return best;
}

namespace {

void write(const peak::Peak& p, std::size_t at, const CorrelateResult& out) {
  out.shift[2 * at] = static_cast<float>(p.x);
  out.shift[2 * at + 1] = static_cast<float>(p.y);
  out.score[at] = static_cast<float>(p.value);
}

}  // namespace

Correlator::Correlator(const CorrelateParams& params) : impl_(std::make_unique<Impl>(params)) {}
Correlator::~Correlator() = default;

void Correlator::set_references(const float* references, std::size_t m, int num_threads) {
  Impl& p = *impl_;
  const std::size_t pixels = static_cast<std::size_t>(p.n) * p.n, size = p.fft.spectrum_size();
  p.m = m;
  p.references.resize(m * size);
  p.sides.resize(m);
  auto workers = p.workers(num_threads);
  FirstBad bad;
#pragma omp parallel num_threads(num_threads)
  {
    Impl::Work& work = workers[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 8)
    for (std::size_t r = 0; r < m; ++r) {
      p.sides[r] = p.transform(references + r * pixels, p.references.data() + r * size, work);
      if (!p.sides[r].grey.finite) bad.note(r);
    }
  }
  bad.raise("references", "reference");
}

namespace {

/// body(i, worker) for every image, in parallel; body returns whether image and reference were finite.
template <class Workers, class Body>
void for_images(std::size_t n_images, Workers& workers, FirstBad& bad, Body body) {
#pragma omp parallel num_threads(static_cast<int>(workers.size()))
  {
    auto& work = workers[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 8)
    for (std::size_t i = 0; i < n_images; ++i)
      if (!body(i, work)) bad.note(i);
  }
}

}  // namespace

void Correlator::run_best(const float* images, std::size_t n_images, const CorrelateResult& out,
                          int num_threads) {
  const Impl& p = *impl_;
  const std::size_t pixels = static_cast<std::size_t>(p.n) * p.n, size = p.fft.spectrum_size();
  auto workers = p.workers(num_threads);
  FirstBad bad;
  for_images(n_images, workers, bad, [&](std::size_t i, Impl::Work& work) {
    const Side side = p.transform(images + i * pixels, work.image.data(), work);
    if (!side.grey.finite) return false;
    peak::Peak best{0, 0, -std::numeric_limits<double>::infinity()};
    std::size_t winner = 0;
    for (std::size_t r = 0; r < p.m; ++r) {
      const peak::Peak one =
          p.match(work.image.data(), side, p.references.data() + r * size, p.sides[r], work);
      if (one.value > best.value) best = one, winner = r;
    }
    write(best, i, out);
    if (out.reference) out.reference[i] = static_cast<std::int32_t>(winner);
    return true;
  });
  bad.raise("images", "image");
}

void Correlator::run_all(const float* images, std::size_t n_images, const CorrelateResult& out,
                         int num_threads) {
  const Impl& p = *impl_;
  const std::size_t pixels = static_cast<std::size_t>(p.n) * p.n, size = p.fft.spectrum_size();
  auto workers = p.workers(num_threads);
  FirstBad bad;
  for_images(n_images, workers, bad, [&](std::size_t i, Impl::Work& work) {
    const Side side = p.transform(images + i * pixels, work.image.data(), work);
    if (!side.grey.finite) return false;
    for (std::size_t r = 0; r < p.m; ++r) {
      write(p.match(work.image.data(), side, p.references.data() + r * size, p.sides[r], work), i * p.m + r,
            out);
      if (out.reference) out.reference[i * p.m + r] = static_cast<std::int32_t>(r);
    }
    return true;
  });
  bad.raise("images", "image");
}

void Correlator::run_paired(const float* images, const float* references, std::size_t n_images,
                            const CorrelateResult& out, int num_threads) {
  const Impl& p = *impl_;
  const std::size_t pixels = static_cast<std::size_t>(p.n) * p.n;
  auto workers = p.workers(num_threads);
  FirstBad bad, bad_reference;
  for_images(n_images, workers, bad, [&](std::size_t i, Impl::Work& work) {
    const Side side = p.transform(images + i * pixels, work.image.data(), work);
    const Side other = p.transform(references + i * pixels, work.reference.data(), work);
    if (!other.grey.finite) bad_reference.note(i);
    if (!side.grey.finite || !other.grey.finite) return side.grey.finite;
    write(p.match(work.image.data(), side, work.reference.data(), other, work), i, out);
    if (out.reference) out.reference[i] = static_cast<std::int32_t>(i);
    return true;
  });
  bad.raise("images", "image");
  bad_reference.raise("references", "reference");
}

}  // namespace verglas::cpu
