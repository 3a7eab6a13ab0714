// How images are sampled on rings: the part of the padded transform that rings touch, and the interpolation weights.
#pragma once
#include <cmath>

#include "math/constants.h"
#include "math/kaiser_bessel.h"

namespace verglas::math {

constexpr double kPolarOversampling = 1.5;
constexpr int kPolarTaps = 6;  // cells; with 1.5 times padding the aliasing error is about 2e-5

/// Padded side and Fourier reach for rings up to `last_radius`; frequencies |k| <= reach of the padded box are touched.
struct PolarWindow {
  int padded;
  double factor;  // padded / box
  int reach;
  KaiserBessel window;

  PolarWindow(int box, double last_radius)
      : padded(static_cast<int>(std::ceil(kPolarOversampling * box))),
        factor(static_cast<double>(padded) / box),
        reach(static_cast<int>(std::ceil(last_radius * factor)) + kPolarTaps / 2 + 1),
        window(kPolarTaps, factor) {}

  /// cos and sin of 2 pi k x / padded, over the window's transform at x.
  struct Wave {
    float cosine, sine;
  };
  Wave wave(int k, int x) const {
    const double angle = 2 * kPi * ((static_cast<long>(k) * x) % padded) / padded;
    const double flat = 1.0 / window.transform(static_cast<double>(x) / padded);
    return {static_cast<float>(std::cos(angle) * flat), static_cast<float>(std::sin(angle) * flat)};
  }

  /// Along one axis, for the coordinate u in Fourier pixels of the padded box.
  struct Taps {
    int first;
    float weight[kPolarTaps];
  };
  Taps taps(double u) const {
    Taps t;
    t.first = static_cast<int>(std::ceil(u - kPolarTaps / 2));
    for (int i = 0; i < kPolarTaps; ++i) t.weight[i] = static_cast<float>(window.value(u - (t.first + i)));
    return t;
  }
};

}  // namespace verglas::math
