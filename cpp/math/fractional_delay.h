// Resampling a regular grid between its points: the filter of few taps that delays by a fraction of a pixel with the
// least error over a band (T. Laakso et al. (1996) IEEE Signal Process. Mag. 13(1), 30, section "least squared error").
#pragma once
#include <cmath>
#include <vector>

#include "math/cholesky.h"
#include "math/constants.h"

namespace verglas::math {

constexpr int kDelayTaps = 14;       // pixels n = -6 .. 7 about the pixel at or below the point
constexpr int kDelayFirst = -6;      // the first of them
constexpr int kDelayStride = 16;     // floats from one row of the table to the next
constexpr double kDelayBand = 0.82;  // of Nyquist, where the error is least
constexpr double kDelayRidge = 1e-6;

/// Taps h for the point `delay` pixels right of pixel 0: sum_n h_n f(n) is f(delay) for f within the band.
/// They minimise the integral over |w| <= band pi of |sum_n h_n exp(i w n) - exp(i w delay)|^2 (plus a ridge), and
/// are scaled to a sum of 1, so that a constant stays what it is. delay in [-0.5, 1.5].
inline void delay_taps(double delay, double* taps) {
  const auto kernel = [](double u) {
    const double x = kPi * kDelayBand * u;
    return kDelayBand * (std::fabs(x) < 1e-9 ? 1.0 : std::sin(x) / x);
  };
  double gram[kDelayTaps * kDelayTaps], right[kDelayTaps], sum = 0.0;
  for (int i = 0; i < kDelayTaps; ++i) {
    for (int j = 0; j < kDelayTaps; ++j)
      gram[i * kDelayTaps + j] = kernel(i - j) + (i == j ? kDelayRidge : 0.0);
    right[i] = kernel(i + kDelayFirst - delay);
  }
  cholesky_solve<kDelayTaps>(gram, right,
                             taps);  // positive definite whatever the delay: the ridge sees to it
  for (int i = 0; i < kDelayTaps; ++i) sum += taps[i];
  for (int i = 0; i < kDelayTaps; ++i) taps[i] /= sum;
}

/// The taps at delays -1/2 .. 3/2, kSteps to the pixel; linear interpolation between rows is good to 1e-6.
class DelayTable {
 public:
  static constexpr int kSteps = 1024;

  DelayTable() : rows_(static_cast<std::size_t>(2 * kSteps + 2) * kDelayStride, 0.0f) {
    for (int i = 0; i < 2 * kSteps + 2; ++i) {
      double taps[kDelayTaps];
      delay_taps(static_cast<double>(i) / kSteps - 0.5, taps);
      for (int k = 0; k < kDelayTaps; ++k)
        rows_[static_cast<std::size_t>(i) * kDelayStride + k] = static_cast<float>(taps[k]);
    }
  }

  /// Row of the table at or below a delay, and how far it lies beyond: taps are linear between rows. The delay is held
  /// to [-0.5, 1.5].
  const float* row_at(float delay, float& part) const {
    float place = (delay + 0.5f) * kSteps;
    place = place < 0.0f ? 0.0f : (place > 2.0f * kSteps ? 2.0f * kSteps : place);
    const int row = static_cast<int>(place);
    part = place - static_cast<float>(row);
    return rows_.data() + static_cast<std::size_t>(row) * kDelayStride;
  }

  const std::vector<float>& rows() const { return rows_; }

 private:
  std::vector<float> rows_;
};

/// Index of the pixel that stands at i when an axis of n pixels is mirrored about its end pixels.
template <class Integer>
VG_HD Integer mirrored(Integer i, Integer n) {
  if (i >= 0 && i < n) return i;
  if (n == 1) return 0;
  const Integer period = 2 * (n - 1);
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

}  // namespace verglas::math
