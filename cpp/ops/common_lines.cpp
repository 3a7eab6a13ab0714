#include "ops/common_lines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "math/common_lines.h"
#include "math/small_gemm.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::GemmShape;
using math::kLanes;

/// Real or imaginary parts of all lines: rows by direction for the table of a product, and transposed,
/// directions padded to whole vectors, for its columns.
struct Parts {
  std::vector<float> rows;
  AlignedFloats columns;
};

Parts parts(const CentralLines& lines, std::size_t padded, bool imaginary) {
  const std::size_t depth = lines.depth, half = lines.half;
  Parts out{std::vector<float>(lines.n * half * depth), AlignedFloats(lines.n * depth * padded)};
  for (std::size_t i = 0; i < lines.n; ++i)
    for (std::size_t a = 0; a < half; ++a)
      for (std::size_t d = 0; d < depth; ++d) {
        const std::size_t from = (i * half + a) * depth + d;
        const float value = imaginary ? lines.samples[from].imag() : lines.samples[from].real();
        out.rows[from] = value;
        out.columns.data()[(i * depth + d) * padded + a] = value;
      }
  return out;
}

/// Scores of one pair over all directions: same[a, b] and turned[a, b] (line b of j turned by half a turn).
class PairTable {
 public:
  PairTable(int half, std::size_t padded)
      : half_(half), padded_(padded), re_(half * padded), im_(half * padded) {}

  void fill(const Parts& re, const Parts& im, std::size_t i, std::size_t j, int depth) {
    const GemmShape shape{half_,   depth,  static_cast<int>(padded_), static_cast<std::size_t>(depth),
                          padded_, padded_};
    const std::size_t row = i * half_ * depth, column = j * depth * padded_;
    math::small_gemm(re.rows.data() + row, re.columns.data() + column, re_.data(), shape);
    math::small_gemm(im.rows.data() + row, im.columns.data() + column, im_.data(), shape);
  }

  /// s at direction a of i and b of j, any a from -1 to half and any b from -1 to 2 half.
  float at(int a, int b, const float* loss_i, const float* loss_j) const {
    if (a < 0 || a >= half_) {
      a += a < 0 ? half_ : -half_;
      b += half_;
    }
    b = (b + 2 * half_) % (2 * half_);
    const int folded = b < half_ ? b : b - half_;
    const std::size_t k = a * padded_ + folded;
    return (b < half_ ? re_.data()[k] + im_.data()[k] : re_.data()[k] - im_.data()[k]) - loss_i[a] -
           loss_j[folded];
  }

  /// The largest value and its directions.
  float largest(const float* loss_i, const float* loss_j, int& best_a, int& best_b) const {
    float best = -std::numeric_limits<float>::infinity();
    best_a = best_b = 0;
    for (int a = 0; a < half_; ++a) {
      const float* re = re_.data() + a * padded_;
      const float* im = im_.data() + a * padded_;
      float top = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : top)
      for (int b = 0; b < half_; ++b) {
        const float value = re[b] + std::fabs(im[b]) - loss_j[b];
        top = top > value ? top : value;
      }
      if (!(top - loss_i[a] > best)) continue;
      best = top - loss_i[a];
      best_a = a;
      best_b = 2 * half_;
      for (int b = 0; b < half_; ++b)
        if (re[b] + std::fabs(im[b]) - loss_j[b] == top)
          best_b = std::min(best_b, std::signbit(im[b]) && im[b] != 0.0f ? b + half_ : b);
    }
    return best;
  }

 private:
  int half_;
  std::size_t padded_;
  AlignedFloats re_, im_;
};

/// One line between two directions, and its loss.
void interpolate(const CentralLines& lines, std::size_t image, double direction, float* re, float* im,
                 float& loss) {
  const int turn = 2 * lines.half;
  const double floor = std::floor(direction);
  const float f = static_cast<float>(direction - floor);
  const int first = static_cast<int>(floor) % turn, second = (first + 1) % turn;
  const float part[2] = {1.0f - f, f};
  const int at[2] = {first, second};
  loss = 0.0f;
  std::fill(re, re + lines.depth, 0.0f);
  std::fill(im, im + lines.depth, 0.0f);
  for (int k = 0; k < 2; ++k) {
    const bool turned = at[k] >= lines.half;
    const std::size_t row = image * lines.half + (turned ? at[k] - lines.half : at[k]);
    const auto* x = reinterpret_cast<const float*>(lines.samples + row * lines.depth);
    const float weight = part[k], imaginary = turned ? -weight : weight;
    for (int d = 0; d < lines.depth; ++d) {
      re[d] += weight * x[2 * d];
      im[d] += imaginary * x[2 * d + 1];
    }
    loss += weight * lines.loss[row];
  }
}

}  // namespace

void common_lines(const CentralLines& lines, double* angle, double* score, int num_threads) {
  const std::size_t padded = math::round_up(lines.half, kLanes), n = lines.n;
  const Parts re = parts(lines, padded, false), im = parts(lines, padded, true);
#pragma omp parallel num_threads(num_threads)
  {
    PairTable table(lines.half, padded);
#pragma omp for schedule(dynamic)
    for (std::size_t i = 0; i < n; ++i) {
      angle[i * n + i] = score[i * n + i] = 0;
      for (std::size_t j = i + 1; j < n; ++j) {
        const float *li = lines.loss + i * lines.half, *lj = lines.loss + j * lines.half;
        table.fill(re, im, i, j, lines.depth);
        int a = 0, b = 0;
        const double s = table.largest(li, lj, a, b);
        double near[3][3];
        for (int u = 0; u < 3; ++u)
          for (int v = 0; v < 3; ++v) near[u][v] = table.at(a + u - 1, b + v - 1, li, lj);
        near[1][1] = s;
        const math::LineTop top = math::line_top(near);
        angle[i * n + j] = math::wrapped_direction(a + top.a, lines.half);
        angle[j * n + i] = math::wrapped_direction(b + top.b, lines.half);
        score[i * n + j] = score[j * n + i] = s + top.rise;
      }
    }
  }
}

void common_line_scores(const CentralLines& lines, const double* rotations, const double* candidates,
                        const std::int64_t* own, std::size_t m, double* out, int num_threads) {
  const std::size_t depth = lines.depth;
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<float> scratch(4 * depth);
    float *xr = scratch.data(), *xi = xr + depth, *yr = xi + depth, *yi = yr + depth;
#pragma omp for schedule(static)
    for (std::size_t c = 0; c < m; ++c) {
      const double* mine = candidates + 9 * c;
      const auto image = static_cast<std::size_t>(own[c]);
      double sum = 0;
      for (std::size_t j = 0; j < lines.n; ++j) {
        if (j == image) continue;
        const double* other = rotations + 9 * j;
        double v[3];
        if (!math::line_of_planes(mine, other, v)) continue;
        float loss_x = 0, loss_y = 0;
        interpolate(lines, image, math::direction_in_plane(mine, v, lines.half), xr, xi, loss_x);
        interpolate(lines, j, math::direction_in_plane(other, v, lines.half), yr, yi, loss_y);
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::size_t d = 0; d < depth; ++d) dot += xr[d] * yr[d] + xi[d] * yi[d];
        sum += double(dot) - loss_x - loss_y;
      }
      out[c] = sum;
    }
  }
}

}  // namespace verglas::cpu
