// The interpolated transform and its gradient at a block of slice pixels. Coordinates and window taps are worked out
// with one number per SIMD lane over many pixels; then each pixel's rows of taps are read once, as SIMD vectors.
#pragma once
#include <algorithm>
#include <cstddef>

#include "math/simd.h"
#include "math/window.h"
#include "ops/grid.h"

namespace verglas::cpu {

/// What is interpolated at pixels, part by part: real and imaginary part of the transform and of its derivatives along
/// the grid's x, y, z (per grid step).
struct GradientSamples {
  float* value[2];
  float* slope[6];
};

/// Window taps of many coordinates: kCount floats per coordinate, side by side, each tap kRepeats times in a row.
template <int kCount, int kRepeats>
class TapSeries {
 public:
  static constexpr int kStride = kCount * kRepeats;
  /// Vectors until the pattern of taps repeats.
  static constexpr int kVectors = kStride > math::kLanes ? kStride / math::kLanes : 1;
  static_assert(kStride % math::kLanes == 0 || math::kLanes % kStride == 0, "whole patterns");

  /// Room for n coordinates, n a multiple of kLanes; taps beyond the table's width are zero.
  TapSeries(const math::WindowTable& table, int n)
      : degree_(table.degree), at_(n * kStride), value_(n * kStride), slope_(n * kStride) {
    for (int d = 0; d <= degree_; ++d) {
      for (int lane = 0; lane < kVectors * math::kLanes; ++lane) {
        const int tap = lane % kStride / kRepeats;
        const float c = tap < table.width ? table.coefficients[d * table.width + tap] : 0.0f;
        coefficients_[lane / math::kLanes][d][lane % math::kLanes] = c;
      }
    }
  }
  void set(int i, float t) { std::fill_n(at_.data() + i * kStride, kStride, t); }
  /// Taps and their derivatives of the first n coordinates.
  void evaluate(int n) {
    for (int begin = 0; begin < n * kStride; begin += kVectors * math::kLanes) {
      for (int v = 0; v < kVectors; ++v) {
        const int at = begin + v * math::kLanes;
        const auto s = math::horner_slope(coefficients_[v], degree_, math::load(at_.data() + at));
        math::store(value_.data() + at, s.value);
        math::store(slope_.data() + at, s.derivative);
      }
    }
  }
  /// Taps alone.
  void evaluate_values(int n) {
    for (int begin = 0; begin < n * kStride; begin += kVectors * math::kLanes) {
      for (int v = 0; v < kVectors; ++v) {
        const int at = begin + v * math::kLanes;
        math::store(value_.data() + at, math::horner(coefficients_[v], degree_, math::load(at_.data() + at)));
      }
    }
  }
  const float* value(int i) const { return value_.data() + i * kStride; }
  const float* slope(int i) const { return slope_.data() + i * kStride; }

 private:
  int degree_;
  math::Lanes coefficients_[kVectors][kMaxDegree + 1];
  math::AlignedFloats at_, value_, slope_;
};

/// Interpolates pixels block by block. One object per thread.
template <int W>
class GradientGather {
 public:
  static constexpr int kPixels = 64;  // of a block: its scratch stays in the first-level cache

  GradientGather(const math::WindowTable& window, const math::GridShape& grid, const Complex* spectrum)
      : grid_(grid), spectrum_(spectrum), x_(window, kPixels), y_(window, kPixels), z_(window, kPixels) {}

  /// n <= kPixels pixels (kx, ky) of a slice.
  void run(const math::SliceAxes& axes, const float* kx, const float* ky, int n, const GradientSamples& out) {
    locate(axes, kx, ky, n);
    for (int i = 0; i < n; ++i) {
      x_.set(i, t_[0][i]);
      y_.set(i, t_[1][i]);
      z_.set(i, t_[2][i]);
    }
    const int whole = static_cast<int>(math::round_up(n, math::kLanes));
    x_.evaluate(whole);
    y_.evaluate(whole);
    z_.evaluate(whole);
    for (int i = 0; i < n; ++i) gather(i);
    spread(n, out);
  }

 private:
  static constexpr int kTaps = Lanes<W>::count;
  using Pairs = typename Lanes<W>::Pairs;

  /// First tap, fraction and sign (-1: Friedel's mate was taken) of each pixel.
  void locate(const math::SliceAxes& axes, const float* kx, const float* ky, int n) {
    const math::SliceAxes a = axes;
    const math::GridShape grid = grid_;
    const std::ptrdiff_t row = grid.columns, plane = row * grid.rows();
    for (int i = 0; i < n; ++i) {
      const auto point = math::slice_point(a, grid, kx[i], ky[i]);
      const auto fz = math::footprint<W>(point.z), fy = math::footprint<W>(point.y),
                 fx = math::footprint<W>(point.x);
      corner_[i] = fz.first * plane + fy.first * row + fx.first;
      t_[0][i] = fx.t;
      t_[1][i] = fy.t;
      t_[2][i] = fz.t;
      sign_[i] = point.mate ? -1.0f : 1.0f;
    }
  }

  /// Sums of one pixel's taps: value, derivatives along x, y, z.
  void gather(int i) {
    const std::size_t row = grid_.columns, plane = row * grid_.rows();
    const Complex* corner = spectrum_ + corner_[i];
    const float *wy = y_.value(i), *sy = y_.slope(i), *wz = z_.value(i), *sz = z_.slope(i);
    Pairs sum = {}, sum_dy = {}, sum_dz = {};
    for (int z = 0; z < W; ++z) {
      Pairs along_y = {}, along_dy = {};
      for (int y = 0; y < W; ++y) {
        Pairs values;
        std::memcpy(&values, corner + z * plane + y * row, sizeof(values));
        along_y += wy[y] * values;
        along_dy += sy[y] * values;
      }
      sum += wz[z] * along_y;
      sum_dy += wz[z] * along_dy;
      sum_dz += sz[z] * along_y;
    }
    Pairs wx, sx;
    std::memcpy(&wx, x_.value(i), sizeof(wx));
    std::memcpy(&sx, x_.slope(i), sizeof(sx));
    sum_two_rows(wx * sum, sx * sum, sums_ + 8 * i);
    sum_two_rows(wx * sum_dy, wx * sum_dz, sums_ + 8 * i + 4);
  }

  /// From pixel by pixel to part by part. V(q) = conj V(-q): at the mate the value is conjugated, the gradient
  /// conjugated and negated.
  void spread(int n, const GradientSamples& out) const {
    float* __restrict value_re = out.value[0], * __restrict value_im = out.value[1];
    float* __restrict x_re = out.slope[0], * __restrict x_im = out.slope[1], * __restrict y_re = out.slope[2], * __restrict y_im = out.slope[3], * __restrict z_re = out.slope[4], * __restrict z_im = out.slope[5];
    for (int i = 0; i < n; ++i) {
      const float* part = sums_ + 8 * i;
      value_re[i] = part[0];
      value_im[i] = part[1] * sign_[i];
      x_re[i] = part[2] * sign_[i];
      x_im[i] = part[3];
      y_re[i] = part[4] * sign_[i];
      y_im[i] = part[5];
      z_re[i] = part[6] * sign_[i];
      z_im[i] = part[7];
    }
  }

  const math::GridShape& grid_;
  const Complex* spectrum_;
  TapSeries<kTaps, 2> x_;
  TapSeries<kTaps, 1> y_, z_;
  std::ptrdiff_t corner_[kPixels] = {};
  float t_[3][kPixels] = {}, sign_[kPixels] = {}, sums_[8 * kPixels] = {};
};

}  // namespace verglas::cpu
