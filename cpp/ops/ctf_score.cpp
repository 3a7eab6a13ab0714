#include "ops/ctf_score.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace verglas::cpu {
namespace {

// Pixels summed in float32 before the sum goes to a double: enough to fill the vector units, few enough that
// rounding stays at 1e-6 of the sum.
constexpr std::size_t kBlock = 2048;

struct Phase {
  float mean, cos2, sin2, spherical, offset;
  float fourth_cos2, fourth_sin2, fourth_cos4, fourth_sin4;
  float half_lambda;  // turns per angstrom of defocus and k^2
};

Phase phase_of(const double* row) {
  const auto c = math::ctf_coefficients(math::optics_params(row));
  const auto narrow = [](double x) { return static_cast<float>(x); };
  return {narrow(c.mean),        narrow(c.cos2),
          narrow(c.sin2),        narrow(c.spherical),
          narrow(c.offset),      narrow(c.fourth_cos2),
          narrow(c.fourth_sin2), narrow(c.fourth_cos4),
          narrow(c.fourth_sin4), narrow(0.5 * math::wavelength_A(row[3]))};
}

// The phase in turns; d = kx^2 - ky^2 and xy = 2 kx ky are k^2 times cosine and sine of twice the angle.
inline float turns_at(const Phase& p, float k2, float d, float xy) {
  const float fourth = k2 * (p.spherical * k2 + p.fourth_cos2 * d + p.fourth_sin2 * xy) +
                       p.fourth_cos4 * (d * d - xy * xy) + p.fourth_sin4 * (2.0f * d * xy);
  return k2 * p.mean + p.cos2 * d + p.sin2 * xy + fourth + p.offset;
}

inline float sine(float turns) { return math::sin_turns_reduced(turns - std::nearbyint(turns)); }

// The sums of one block. Every sum is a named scalar, because the reduction clause takes no arrays of them
// and the loop has to vectorise without -ffast-math.
void sum_values(const Phase& p, const SpectrumPixels& s, std::size_t first, std::size_t last, double* out) {
  float mm = 0, ym = 0;
#pragma omp simd reduction(+ : mm, ym)
  for (std::size_t i = first; i < last; ++i) {
    const float x = s.kx[i], y = s.ky[i], x2 = x * x, y2 = y * y, k2 = x2 + y2;
    const float c = sine(turns_at(p, k2, x2 - y2, 2.0f * x * y)), m = s.a[i] * c * c;
    mm += m * m;
    ym += s.y[i] * m;
  }
  out[0] = mm, out[1] = ym;
}

void sum_derivatives(const Phase& p, const SpectrumPixels& s, std::size_t first, std::size_t last,
                     double* out) {
  constexpr float four_pi = 12.5663706f;
  float mm = 0, ym = 0, g0 = 0, g1 = 0, g2 = 0, g3 = 0;
  float h00 = 0, h01 = 0, h02 = 0, h03 = 0, h11 = 0, h12 = 0, h13 = 0, h22 = 0, h23 = 0, h33 = 0;
#pragma omp simd reduction(+ : mm, ym, g0, g1, g2, g3, h00, h01, h02, h03, h11, h12, h13, h22, h23, h33)
  for (std::size_t i = first; i < last; ++i) {
    const float x = s.kx[i], y = s.ky[i], x2 = x * x, y2 = y * y, k2 = x2 + y2, d = x2 - y2,
                xy = 2.0f * x * y;
    const float turns = turns_at(p, k2, d, xy);
    const float c = sine(turns), m = s.a[i] * c * c, r = s.y[i] - m;
    // d sin^2(2 pi t) / dt = 2 pi sin(4 pi t); t grows by half_lambda k^2 per angstrom, by 1/360 per degree
    const float slope = s.a[i] * (0.5f * four_pi) * sine(2.0f * turns);
    const float per_A = slope * p.half_lambda;
    const float j0 = per_A * k2, j1 = per_A * d, j2 = per_A * xy, j3 = slope * (1.0f / 360.0f);
    mm += m * m, ym += s.y[i] * m;
    g0 += r * j0, g1 += r * j1, g2 += r * j2, g3 += r * j3;
    h00 += j0 * j0, h01 += j0 * j1, h02 += j0 * j2, h03 += j0 * j3;
    h11 += j1 * j1, h12 += j1 * j2, h13 += j1 * j3;
    h22 += j2 * j2, h23 += j2 * j3, h33 += j3 * j3;
  }
  const float sums[kCtfScores] = {mm, ym, g0, g1, g2, g3, h00, h01, h02, h03, h11, h12, h13, h22, h23, h33};
  std::copy(sums, sums + kCtfScores, out);
}

}  // namespace

void ctf_score(const double* params, std::size_t n, const SpectrumPixels& pixels, bool derivatives,
               double* scores, int num_threads) {
  const std::size_t blocks = (pixels.count + kBlock - 1) / kBlock;
  std::vector<double> partial(n * blocks * kCtfScores, 0.0);
#pragma omp parallel for collapse(2) num_threads(num_threads) schedule(static)
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t block = 0; block < blocks; ++block) {
      const Phase phase = phase_of(params + i * math::kOpticsColumns);
      const std::size_t first = block * kBlock, last = std::min(pixels.count, first + kBlock);
      double* out = partial.data() + (i * blocks + block) * kCtfScores;
      if (derivatives)
        sum_derivatives(phase, pixels, first, last, out);
      else
        sum_values(phase, pixels, first, last, out);
    }
  }
  // in the order of the blocks, whoever summed them
  std::fill(scores, scores + n * kCtfScores, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t block = 0; block < blocks; ++block)
      for (int j = 0; j < kCtfScores; ++j)
        scores[i * kCtfScores + j] += partial[(i * blocks + block) * kCtfScores + j];
}

}  // namespace verglas::cpu
