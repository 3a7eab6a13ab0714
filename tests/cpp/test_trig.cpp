#include "check.h"
#include "math/trig.h"

int main() {
  const double two_pi = 6.283185307179586;
  for (int i = -20000; i <= 20000; ++i) {
    const double t = i * 0.00731;  // up to 146 turns
    CHECK_NEAR(verglas::math::sin_turns(t), std::sin(two_pi * t), 4e-7);
    CHECK_NEAR(verglas::math::cos_turns(t), std::cos(two_pi * t), 4e-7);
  }
  CHECK_NEAR(std::isnan(verglas::math::sin_turns(NAN)), 1, 0);
  return check::report();
}
