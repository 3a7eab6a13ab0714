#include "ops/shift_score.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "math/constants.h"
#include "math/simd.h"

namespace verglas::cpu {
namespace {

/// Tables that all patches share: weights times powers of the frequency, rows as far as a weight is not zero.
struct Tables {
  std::size_t pitch;
  std::vector<float> weights, x;
  std::vector<std::size_t> used;

  explicit Tables(const ShiftPatches& in)
      : pitch(math::round_up(in.columns, 16)), weights(in.rows * pitch), x(pitch), used(in.rows) {
    for (std::size_t c = 0; c < in.columns; ++c) x[c] = static_cast<float>(in.frequencies_x[c]);
    for (std::size_t r = 0; r < in.rows; ++r)
      for (std::size_t c = 0; c < in.columns; ++c) {
        const float w = weights[r * pitch + c] = in.weights[r * in.columns + c];
        if (w > 0) used[r] = c + 1;
      }
  }
};

class Patch {
 public:
  Patch(const ShiftPatches& in, const Tables& tables)
      : in_(in),
        tables_(tables),
        plane_(in.rows * tables.pitch),
        re_(in.frames * plane_),
        im_(in.frames * plane_),
        sum_re_(plane_),
        sum_im_(plane_),
        cos_(tables.pitch),
        sin_(tables.pitch) {}

  void score(std::size_t p, const double* shifts, const ShiftScores& out) {
    std::fill(sum_re_.begin(), sum_re_.end(), 0.0f);
    std::fill(sum_im_.begin(), sum_im_.end(), 0.0f);
    for (std::size_t f = 0; f < in_.frames; ++f) turn(p, f, shifts + 2 * (p * in_.frames + f));
    double value = 0.0;
    for (std::size_t f = 0; f < in_.frames; ++f) {
      double sums[6] = {};  // value; x, y of the gradient; xx, xy, yy
      for (std::size_t r = 0; r < in_.rows; ++r) row_sums(f, r, sums);
      value += sums[0];
      if (!out.gradient) continue;
      double* g = out.gradient + 2 * (p * in_.frames + f);
      double* c = out.curvature + 3 * (p * in_.frames + f);
      for (int i = 0; i < 2; ++i) g[i] = -4 * math::kPi * sums[1 + i];
      for (int i = 0; i < 3; ++i) c[i] = 8 * math::kPi * math::kPi * sums[3 + i];
    }
    out.value[p] = value;
  }

 private:
  /// z_f = F_f exp(2 pi i k.d), kept and added to the sum.
  void turn(std::size_t p, std::size_t f, const double* shift) {
    for (std::size_t c = 0; c < in_.columns; ++c) {
      const double angle = 2 * math::kPi * in_.frequencies_x[c] * shift[0];
      cos_[c] = static_cast<float>(std::cos(angle));
      sin_[c] = static_cast<float>(std::sin(angle));
    }
    const auto* source =
        reinterpret_cast<const float*>(in_.patches + (p * in_.frames + f) * in_.rows * in_.columns);
    for (std::size_t r = 0; r < in_.rows; ++r) {
      const double angle = 2 * math::kPi * in_.frequencies_y[r] * shift[1];
      const float cy = static_cast<float>(std::cos(angle)), sy = static_cast<float>(std::sin(angle));
      const float* in = source + 2 * r * in_.columns;
      const float *cx = cos_.data(), *sx = sin_.data();
      const std::size_t at = r * tables_.pitch, n = tables_.used[r];
      float *re = re_.data() + f * plane_ + at, *im = im_.data() + f * plane_ + at;
      float *total_re = sum_re_.data() + at, *total_im = sum_im_.data() + at;
#pragma omp simd
      for (std::size_t c = 0; c < n; ++c) {
        const float a = cx[c] * cy - sx[c] * sy, b = cx[c] * sy + sx[c] * cy;
        const float u = in[2 * c] * a - in[2 * c + 1] * b, v = in[2 * c] * b + in[2 * c + 1] * a;
        re[c] = u;
        im[c] = v;
        total_re[c] += u;
        total_im[c] += v;
      }
    }
  }

  void row_sums(std::size_t f, std::size_t r, double* sums) const {
    const std::size_t at = r * tables_.pitch, n = tables_.used[r];
    const float *re = re_.data() + f * plane_ + at, *im = im_.data() + f * plane_ + at;
    const float *total_re = sum_re_.data() + at, *total_im = sum_im_.data() + at;
    const float *w = tables_.weights.data() + at, *x = tables_.x.data();
    float turn = 0, turn_x = 0, agree = 0, agree_x = 0, agree_xx = 0;
#pragma omp simd reduction(+ : turn, turn_x, agree, agree_x, agree_xx)
    for (std::size_t c = 0; c < n; ++c) {
      const float t = w[c] * (total_re[c] * im[c] - total_im[c] * re[c]);
      const float a = w[c] * ((total_re[c] - re[c]) * re[c] + (total_im[c] - im[c]) * im[c]);
      turn += t;
      turn_x += t * x[c];
      agree += a;
      agree_x += a * x[c];
      agree_xx += a * x[c] * x[c];
    }
    const double y = in_.frequencies_y[r];
    sums[0] += agree;
    sums[1] += turn_x;
    sums[2] += y * turn;
    sums[3] += agree_xx;
    sums[4] += y * agree_x;
    sums[5] += y * y * agree;
  }

  const ShiftPatches& in_;
  const Tables& tables_;
  std::size_t plane_;
  std::vector<float> re_, im_, sum_re_, sum_im_, cos_, sin_;
};

}  // namespace

void shift_score(const ShiftPatches& in, const double* shifts, const ShiftScores& out, int num_threads) {
  const Tables tables(in);
#pragma omp parallel num_threads(num_threads)
  {
    Patch patch(in, tables);
#pragma omp for schedule(dynamic)
    for (std::size_t p = 0; p < in.n; ++p) patch.score(p, shifts, out);
  }
}

}  // namespace verglas::cpu
