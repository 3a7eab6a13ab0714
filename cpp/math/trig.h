// sin and cos of 2 pi t, t in turns: the range reduction is exact (t - round(t)), so large phases lose nothing.
#pragma once
#include <cmath>

#include "math/macros.h"

namespace verglas::math {

/// sin(2 pi t) for t in [-1/2, 1/2]; absolute error below 3e-7 in float32.
/// The argument is folded to [-1/4, 1/4], where an odd minimax polynomial of degree 11 in t is used.
VG_HD float sin_turns_reduced(float t) {
  // sin(2 pi t) = sin(2 pi (1/2 - t)): fold by a minimum and carry the sign over, so that the loop vectorises
  // to three instructions. (A NaN stays one: the comparison is false and the right-hand side is NaN.)
  const float magnitude = std::fabs(t), mirrored = 0.5f - magnitude;
  const float x = std::copysign(magnitude < mirrored ? magnitude : mirrored, t);
  const float x2 = x * x;
  // Taylor coefficients (2 pi)^(2j+1) / (2j+1)!; at |x| <= 1/4 the first dropped term is below 6e-8.
  float p = -15.0946426f;
  p = p * x2 + 42.0586939f;
  p = p * x2 - 76.7058598f;
  p = p * x2 + 81.6052493f;
  p = p * x2 - 41.3417022f;
  p = p * x2 + 6.28318531f;
  return p * x;
}

/// sin(2 pi t) for any finite double t (NaN in, NaN out).
VG_HD float sin_turns(double t) { return sin_turns_reduced(static_cast<float>(t - std::nearbyint(t))); }

/// cos(2 pi t) for any finite double t.
VG_HD float cos_turns(double t) { return sin_turns(t + 0.25); }

}  // namespace verglas::math
