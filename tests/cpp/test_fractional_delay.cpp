#include "check.h"
#include "math/fractional_delay.h"

using namespace verglas::math;

int main() {
  for (int step = 0; step <= 20; ++step) {
    const double delay = step / 20.0;
    double taps[kDelayTaps], sum = 0.0;
    delay_taps(delay, taps);
    for (double t : taps) sum += t;
    CHECK_NEAR(sum, 1.0, 1e-12);
    // a wave of 0 .. 0.8 Nyquist comes out moved, its amplitude within 1 %
    for (int w = 0; w <= 80; ++w) {
      const double omega = kPi * w / 100.0;
      double re = 0.0, im = 0.0;
      for (int k = 0; k < kDelayTaps; ++k) {
        re += taps[k] * std::cos(omega * (k + kDelayFirst - delay));
        im += taps[k] * std::sin(omega * (k + kDelayFirst - delay));
      }
      CHECK_NEAR(std::hypot(re - 1.0, im), 0.0, 0.01);
    }
  }
  const DelayTable table;
  for (int step = 0; step <= 40; ++step) {
    const double delay = -0.47 + 1.9 * step / 40.0;
    double taps[kDelayTaps];
    delay_taps(delay, taps);
    float part;
    const float* row = table.row_at(static_cast<float>(delay), part);
    for (int k = 0; k < kDelayTaps; ++k)
      CHECK_NEAR(row[k] + part * (row[k + kDelayStride] - row[k]), taps[k], 2e-6);
  }
  CHECK_NEAR(static_cast<double>(mirrored(-1, 5)), 1, 0);
  CHECK_NEAR(static_cast<double>(mirrored(5, 5)), 3, 0);
  CHECK_NEAR(static_cast<double>(mirrored(-9, 5)), 1, 0);
  CHECK_NEAR(static_cast<double>(mirrored(7, 1)), 0, 0);
  return check::report();
}
