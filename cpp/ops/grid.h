// What project, insert and polar share on the CPU: the grid, the window, SIMD rows of taps, the gather, the
// disc of pixels in use.
#pragma once
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "math/constants.h"
#include "math/slice.h"
#include "math/window.h"

namespace verglas::cpu {

using Complex = std::complex<float>;

using math::kMaxDegree;
using math::WindowTable;

/// W taps live in L >= W lanes (L a power of two); lanes beyond W carry weight zero.
template <int W>
struct Lanes {
  static constexpr int count = W <= 2 ? 2 : W <= 4 ? 4 : 8;
  typedef float Vec __attribute__((vector_size(4 * count)));
  typedef float Pairs __attribute__((vector_size(8 * count)));        // re, im interleaved
  typedef double Wide __attribute__((vector_size(8 * count)));        // sums of weights
  typedef double WidePairs __attribute__((vector_size(16 * count)));  // sums of values
};

/// The window with one tap per SIMD lane; and with one tap per pair of lanes, as rows of complex values need it.
template <int W>
struct Window {
  using Vec = typename Lanes<W>::Vec;
  using Pairs = typename Lanes<W>::Pairs;
  Vec coefficients[kMaxDegree + 1];
  Pairs pair_coefficients[kMaxDegree + 1];
  int degree;

  explicit Window(const WindowTable& table) : degree(table.degree) {
    for (int d = 0; d <= degree; ++d) {
      for (int j = 0; j < Lanes<W>::count; ++j) {
        const float c = j < W ? table.coefficients[d * W + j] : 0.0f;
        coefficients[d][j] = pair_coefficients[d][2 * j] = pair_coefficients[d][2 * j + 1] = c;
      }
    }
  }
  Vec operator()(float t) const { return math::horner(coefficients, degree, t); }
  Pairs pairs(float t) const { return math::horner(pair_coefficients, degree, t); }
};

/// Sum of the complex values in a row of lanes.
template <class Pairs>
Complex sum_pairs(const Pairs& row) {
  typedef float Two __attribute__((vector_size(16)));  // two complex values
  Two sum = {};
  for (std::size_t i = 0; i < sizeof(Pairs) / sizeof(Two); ++i) {
    Two part;
    std::memcpy(&part, reinterpret_cast<const char*>(&row) + i * sizeof(Two), sizeof(Two));
    sum += part;
  }
  return {sum[0] + sum[2], sum[1] + sum[3]};
}

/// Sums of the complex values in two rows of lanes: re, im of the first, of the second.
template <class Pairs>
void sum_two_rows(const Pairs& first, const Pairs& second, float* out) {
  typedef float Two __attribute__((vector_size(16)));  // two complex values
  Two sum[2];
  const Pairs* rows[2] = {&first, &second};
  for (int r = 0; r < 2; ++r) {
    std::memcpy(&sum[r], rows[r], sizeof(Two));
    for (std::size_t i = 1; i < sizeof(Pairs) / sizeof(Two); ++i) {
      Two part;
      std::memcpy(&part, reinterpret_cast<const char*>(rows[r]) + i * sizeof(Two), sizeof(Two));
      sum[r] += part;
    }
  }
  const Two low = {sum[0][0], sum[0][1], sum[1][0], sum[1][1]},
            high = {sum[0][2], sum[0][3], sum[1][2], sum[1][3]};
  const Two both = low + high;
  std::memcpy(out, &both, sizeof(both));
}

/// Sum of W^3 taps around a point: rows of W complex values are read as one SIMD vector.
template <int W>
Complex gather(const Window<W>& window, const math::GridShape& grid, const Complex* spectrum,
               const math::SlicePoint& point) {
  using L = Lanes<W>;
  const auto fz = math::footprint<W>(point.z), fy = math::footprint<W>(point.y),
             fx = math::footprint<W>(point.x);
  const auto wz = window(fz.t), wy = window(fy.t);
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const Complex* corner = spectrum + fz.first * plane + fy.first * row + fx.first;
  typename L::Pairs sum = {};
  for (int z = 0; z < W; ++z) {
    typename L::Pairs sum_z = {};
    for (int y = 0; y < W; ++y) {
      typename L::Pairs values;
      std::memcpy(&values, corner + z * plane + y * row, sizeof(values));
      sum_z += wy[y] * values;
    }
    sum += wz[z] * sum_z;
  }
  const Complex value = sum_pairs(window.pairs(fx.t) * sum);
  return point.mate ? std::conj(value) : value;
}

using math::last_column;

/// exp(-2 pi i (kx dx + ky dy) / box), which moves an image by (dx, dy) pixels, as a product of one table per
/// axis. Tables are filled by recurrence in double: after box steps the error is still below float32 rounding.
class ShiftPhases {
 public:
  explicit ShiftPhases(int box) : box_(box), x_(box / 2 + 1), y_(box) {}

  void set(const double* shift_px) {
    identity_ = shift_px == nullptr || (shift_px[0] == 0.0 && shift_px[1] == 0.0);
    if (identity_) return;
    const std::complex<double> step_x = std::polar(1.0, -2.0 * math::kPi * shift_px[0] / box_);
    const std::complex<double> step_y = std::polar(1.0, -2.0 * math::kPi * shift_px[1] / box_);
    std::complex<double> phase = 1.0;
    for (auto& value : x_) {
      value = Complex(phase);
      phase *= step_x;
    }
    phase = 1.0;
    const int positive = (box_ + 1) / 2;
    for (int k = 0; k < positive; ++k) {
      y_[k] = Complex(phase);
      if (k > 0) y_[box_ - k] = Complex(std::conj(phase));
      phase *= step_y;
    }
    if (box_ % 2 == 0) y_[positive] = Complex(std::conj(phase));
  }
  bool identity() const { return identity_; }
  const Complex* columns() const { return x_.data(); }
  Complex at_row(int row) const { return y_[row]; }
  Complex at(int kx, int row) const { return multiply(x_[kx], y_[row]); }

  /// Plain complex product: std::complex's operator* also handles infinities, at several times the cost.
  static Complex multiply(Complex a, Complex b) {
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
  }

 private:
  int box_;
  bool identity_ = true;
  std::vector<Complex> x_, y_;
};

}  // namespace verglas::cpu
