// The Kaiser-Bessel window and its Fourier transform, for interpolation on a padded grid.
#pragma once
#include <cmath>

#include "math/constants.h"

namespace verglas::math {

/// Modified Bessel function I0 by its power series (all terms positive: no cancellation).
inline double bessel_i0(double x) {
  const double q = 0.25 * x * x;
  double term = 1.0, sum = 1.0;
  for (int k = 1; term > 1e-17 * sum; ++k) {
    term *= q / (static_cast<double>(k) * k);
    sum += term;
  }
  return sum;
}

/// phi(u) = I0(beta sqrt(1 - (2u/width)^2)) / I0(beta) for |u| < width/2, 0 elsewhere; u in grid cells.
/// beta as in Beatty, Nishimura and Pauly (2005) IEEE Trans. Med. Imaging 24, 799, eq. 5.
struct KaiserBessel {
  double width, beta, scale;
  KaiserBessel(double width_cells, double oversampling) : width(width_cells) {
    const double a = width / oversampling * (oversampling - 0.5);
    beta = kPi * std::sqrt(a * a - 0.8);
    scale = 1.0 / bessel_i0(beta);
  }
  double value(double u) const {
    const double s = 2.0 * u / width, inside = 1.0 - s * s;
    return inside <= 0.0 ? 0.0 : scale * bessel_i0(beta * std::sqrt(inside));
  }
  /// Integral of phi(u) cos(2 pi xi u) du = width sinh(y)/y / I0(beta), y^2 = beta^2 - (pi width xi)^2.
  double transform(double xi) const {
    const double p = kPi * width * xi, y2 = beta * beta - p * p;
    const double y = std::sqrt(std::fabs(y2));
    const double ratio = y < 1e-8 ? 1.0 : (y2 > 0 ? std::sinh(y) / y : std::sin(y) / y);
    return width * scale * ratio;
  }
};

}  // namespace verglas::math
