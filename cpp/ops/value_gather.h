// The interpolated transform at a block of slice pixels: as gradient_gather.h, without derivatives.
#pragma once
#include <algorithm>
#include <cstddef>

#include "ops/gradient_gather.h"

namespace verglas::cpu {

/// Interpolates pixels block by block. One object per thread.
template <int W>
class ValueGather {
 public:
  static constexpr int kPixels = 64;  // of a block: its scratch stays in the first-level cache

  ValueGather(const math::WindowTable& window, const math::GridShape& grid, const Complex* spectrum)
      : grid_(grid), spectrum_(spectrum), x_(window, kPixels), y_(window, kPixels), z_(window, kPixels) {}

  /// n <= kPixels pixels (kx, ky) of a slice that lies `curvature` k^2 above its plane.
  void run(const math::SliceAxes& axes, double curvature, const float* kx, const float* ky, int n,
           Complex* out) {
    const std::ptrdiff_t row = grid_.columns, plane = row * grid_.rows();
    for (int i = 0; i < n; ++i) {
      const auto point = math::curved_point(axes, grid_, kx[i], ky[i], curvature);
      const auto fz = math::footprint<W>(point.z), fy = math::footprint<W>(point.y),
                 fx = math::footprint<W>(point.x);
      corner_[i] = fz.first * plane + fy.first * row + fx.first;
      mate_[i] = point.mate;
      x_.set(i, fx.t);
      y_.set(i, fy.t);
      z_.set(i, fz.t);
    }
    const int whole = static_cast<int>(math::round_up(n, math::kLanes));
    x_.evaluate_values(whole);
    y_.evaluate_values(whole);
    z_.evaluate_values(whole);
    for (int i = 0; i < n; ++i) {
      const Complex value = gather(i);
      out[i] = mate_[i] ? std::conj(value) : value;
    }
  }

 private:
  static constexpr int kTaps = Lanes<W>::count;
  using Pairs = typename Lanes<W>::Pairs;

  Complex gather(int i) const {
    const std::size_t row = grid_.columns, plane = row * grid_.rows();
    const Complex* corner = spectrum_ + corner_[i];
    const float *wy = y_.value(i), *wz = z_.value(i);
    Pairs sum = {};
    for (int z = 0; z < W; ++z) {
      Pairs along_y = {};
      for (int y = 0; y < W; ++y) {
        Pairs values;
        std::memcpy(&values, corner + z * plane + y * row, sizeof(values));
        along_y += wy[y] * values;
      }
      sum += wz[z] * along_y;
    }
    Pairs wx;
    std::memcpy(&wx, x_.value(i), sizeof(wx));
    return sum_pairs(wx * sum);
  }

  const math::GridShape& grid_;
  const Complex* spectrum_;
  TapSeries<kTaps, 2> x_;
  TapSeries<kTaps, 1> y_, z_;
  std::ptrdiff_t corner_[kPixels] = {};
  bool mate_[kPixels] = {};
};

}  // namespace verglas::cpu
