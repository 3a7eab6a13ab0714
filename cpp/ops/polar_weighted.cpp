// The image side of the likelihood: CTF and noise weighting, shifts, harmonics in SIMD lanes.
#include <algorithm>
#include <cmath>

#include "math/constants.h"
#include "ops/polar.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::kLanes;
using math::Lanes;

using math::kPi;

}  // namespace

void polar_ctf(const double* ctf_row, double pixel_size_A, const PolarGrid& grid, float* ctf_samples) {
  const auto c = math::ctf_coefficients(math::optics_params(ctf_row));
  const double step = 1.0 / (grid.box * pixel_size_A);
  for (int j = 0; j < grid.n_rings; ++j) {
    const double k = grid.radii[j] * step;
    const float envelope = math::ctf_envelope(c, k, 0.0);
    for (int t = 0; t < grid.half(); ++t)
      *ctf_samples++ = envelope * math::ctf_value(c, k * grid.cos_theta[t], k * grid.sin_theta[t]);
  }
}

EvenHarmonics::EvenHarmonics(const PolarGrid& grid, int n_power)
    : half_(grid.half()), n_rings_(grid.n_rings), n_power_(n_power) {
  for (int k = 0; k < n_power; ++k) {
    for (int t = 0; t < half_; ++t) {
      const double angle = 2 * kPi * ((static_cast<long>(k) * t) % half_) / half_;
      cos_.push_back(static_cast<float>(2 * std::cos(angle)));
      sin_.push_back(static_cast<float>(-2 * std::sin(angle)));
    }
  }
}

void EvenHarmonics::run(const float* f, float scale, cfloat* out) const {
  for (int j = 0; j < n_rings_; ++j) {
    for (int k = 0; k < n_power_; ++k) {
      // Four independent sums: enough to hide the latency of the additions, in a fixed order.
      float re[4] = {}, im[4] = {};
      const float *x = f + j * half_, *c = cos_.data() + k * half_, *s = sin_.data() + k * half_;
      for (int t = 0; t < half_; ++t) {
        re[t % 4] += x[t] * c[t];
        im[t % 4] += x[t] * s[t];
      }
      out[j * n_power_ + k] =
          scale * cfloat((re[0] + re[1]) + (re[2] + re[3]), (im[0] + im[1]) + (im[2] + im[3]));
    }
  }
}

void polar_power(const cfloat* samples, std::size_t n, const PolarGrid& grid, int n_power, cfloat* power,
                 int num_threads) {
  const EvenHarmonics even(grid, n_power);
  const std::size_t points = static_cast<std::size_t>(grid.n_rings) * grid.half();
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<float> squares(points);
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t k = 0; k < points; ++k) squares[k] = std::norm(samples[i * points + k]);
      even.run(squares.data(), 1.0f / static_cast<float>(grid.n_theta), power + i * grid.n_rings * n_power);
    }
  }
}

void weight_samples(const double* ctf_row, double pixel_size_A, const float* inv_sigma2,
                    const PolarGrid& grid, const EvenHarmonics& even, float* ctf_scratch, cfloat* samples,
                    cfloat* cp) {
  const int half = grid.half();
  if (ctf_row) {
    polar_ctf(ctf_row, pixel_size_A, grid, ctf_scratch);
  } else {
    std::fill_n(ctf_scratch, grid.n_rings * half, 1.0f);
  }
  for (int j = 0; j < grid.n_rings; ++j) {
    const float weight = grid.weights[j] * inv_sigma2[j];
    for (int t = 0; t < half; ++t) {
      float& c = ctf_scratch[j * half + t];
      samples[j * half + t] *= c * inv_sigma2[j];
      c *= c * weight;
    }
  }
  if (cp) even.run(ctf_scratch, 1.0f, cp);
}

void polar_ctf_power(const double* ctf, const float* inv_sigma2, std::size_t n, double pixel_size_A,
                     const PolarGrid& grid, int n_power, cfloat* power, int num_threads) {
  const EvenHarmonics even(grid, n_power);
  const std::size_t points = static_cast<std::size_t>(grid.n_rings) * grid.half();
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<cfloat> unused(points);
    std::vector<float> scratch(points);
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < n; ++i)
      weight_samples(ctf ? ctf + i * math::kOpticsColumns : nullptr, pixel_size_A,
                     inv_sigma2 + i * grid.n_rings, grid, even, scratch.data(), unused.data(),
                     power + i * grid.n_rings * n_power);
  }
}

namespace {

/// exp(-2 pi i t), t in turns: rounding by adding 1.5 * 2^23, then the polynomial of math/trig.h, lane by lane.
inline void phase_turns(Lanes t, Lanes& re, Lanes& im) {
  const Lanes big = math::broadcast(12582912.0f);
  const auto sine = [](Lanes x) {
    const Lanes magnitude = x < 0.0f ? -x : x;
    const Lanes folded = magnitude > 0.25f ? 0.5f - magnitude : magnitude;
    const Lanes y = x < 0.0f ? -folded : folded, y2 = y * y;
    Lanes p = y2 * -15.0946426f + 42.0586939f;
    p = p * y2 - 76.7058598f;
    p = p * y2 + 81.6052493f;
    p = p * y2 - 41.3417022f;
    p = p * y2 + 6.28318531f;
    return p * y;
  };
  const Lanes quarter = t + 0.25f;
  im = -sine(t - ((t + big) - big));
  re = sine(quarter - ((quarter + big) - big));
}

}  // namespace

void LaneHarmonics::run(const float* y, bool shared, const float* tx, const float* ty, Scratch& s,
                        float* b) const {
  constexpr int kRings = 4;  // rings per product: as many columns as its register tile is wide
  const int half = grid_.half();
  const std::size_t row = kRings * kLanes;
  s.re.resize(half * row);
  s.im.resize(half * row);
  s.out.resize(2 * static_cast<std::size_t>(grid_.max_m + 1) * row);
  const Lanes x_shift = math::load(tx), y_shift = math::load(ty);
  for (int first = 0; first < grid_.n_rings; first += kRings) {
    const int last = std::min(grid_.n_rings, first + kRings);
    for (int j = first; j < last; ++j) {
      const float k = static_cast<float>(grid_.radii[j] / grid_.box);
      for (int t = 0; t < half; ++t) {
        const Lanes turns = k * (static_cast<float>(grid_.cos_theta[t]) * x_shift +
                                 static_cast<float>(grid_.sin_theta[t]) * y_shift);
        Lanes c, d;
        phase_turns(turns, c, d);
        const std::size_t at = 2 * (static_cast<std::size_t>(j) * half + t);
        const Lanes re = shared ? math::broadcast(y[at]) : math::load(y + at * kLanes);
        const Lanes im = shared ? math::broadcast(y[at + 1]) : math::load(y + (at + 1) * kLanes);
        math::store(s.re.data() + t * row + (j - first) * kLanes, re * c - im * d);
        math::store(s.im.data() + t * row + (j - first) * kLanes, re * d + im * c);
      }
    }
    const int limit = grid_.limit[last - 1];
    transform_.run(s.re.data(), s.im.data(), static_cast<int>(row), limit, s.out.data());
    for (int m = 0; m <= limit; ++m) {
      for (int j = std::max(first, grid_.first_ring[m]); j < last; ++j) {
        const float* from = s.out.data() + 2 * m * row + (j - first) * kLanes;
        float* to = b + 2 * kLanes * (grid_.offset[m] + j - grid_.first_ring[m]);
        math::store(to, grid_.weights[j] * math::load(from));
        math::store(to + kLanes, grid_.weights[j] * math::load(from + row));
      }
    }
  }
}

void polar_weighted(const WeightedInput& in, const PolarGrid& grid, cfloat* b, int num_threads) {
  const LaneHarmonics lanes(grid);
  const EvenHarmonics even(grid, 1);
  const std::size_t points = static_cast<std::size_t>(grid.n_rings) * grid.half();
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<cfloat> y(points);
    std::vector<float> ctf(points);
    LaneHarmonics::Scratch scratch;
    AlignedFloats packed(2 * grid.size * kLanes), shift(2 * kLanes);
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < in.n; ++i) {
      std::copy_n(in.samples + i * points, points, y.begin());
      weight_samples(in.ctf ? in.ctf + i * math::kOpticsColumns : nullptr, in.pixel_size_A,
                     in.inv_sigma2 + i * grid.n_rings, grid, even, ctf.data(), y.data(), nullptr);
      for (std::size_t first = 0; first < in.n_shifts; first += kLanes) {
        const std::size_t count = std::min<std::size_t>(kLanes, in.n_shifts - first);
        for (std::size_t l = 0; l < kLanes; ++l) {
          const std::size_t from = first + std::min(l, count - 1);
          shift.data()[l] = in.shifts[2 * from];
          shift.data()[kLanes + l] = in.shifts[2 * from + 1];
        }
        lanes.run(reinterpret_cast<const float*>(y.data()), true, shift.data(), shift.data() + kLanes,
                  scratch, packed.data());
        for (std::size_t l = 0; l < count; ++l) {
          cfloat* out = b + (i * in.n_shifts + first + l) * grid.size;
          const float* p = packed.data() + l;
          for (std::size_t k = 0; k < grid.size; ++k, p += 2 * kLanes) out[k] = cfloat(p[0], p[kLanes]);
        }
      }
    }
  }
}

}  // namespace verglas::cpu
