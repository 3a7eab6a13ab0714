// Between the directions that common lines are compared at (common_lines): formulas that host and device share.
#pragma once
#include <cmath>

#include "math/constants.h"
#include "math/macros.h"

namespace verglas::math {

/// Top of the quadratic through a maximum and its eight neighbours, in steps from the maximum, and how much
/// higher. Both directions at once: the lines of two images turn together, so scores have a ridge that cuts
/// along one direction would miss.
struct LineTop {
  double a, b, rise;
};

/// s[1 + u][1 + v]: the score u steps on in one image and v in the other.
VG_HD LineTop line_top(const double (&s)[3][3]) {
  const double ga = 0.5 * (s[2][1] - s[0][1]), gb = 0.5 * (s[1][2] - s[1][0]);
  const double haa = s[2][1] - 2 * s[1][1] + s[0][1], hbb = s[1][2] - 2 * s[1][1] + s[1][0];
  const double hab = 0.25 * (s[2][2] - s[2][0] - s[0][2] + s[0][0]);
  const double determinant = haa * hbb - hab * hab;
  if (!(haa < 0 && hbb < 0 && determinant > 0.01 * haa * hbb)) return {0, 0, 0};
  const double a = -(hbb * ga - hab * gb) / determinant, b = -(haa * gb - hab * ga) / determinant;
  if (!(std::fabs(a) <= 1 && std::fabs(b) <= 1)) return {0, 0, 0};
  return {a, b, 0.5 * (ga * a + gb * b)};
}

/// A direction a step or less below 0, in steps from 0 to below 2 half.
VG_HD double wrapped_direction(double direction, int half) {
  return direction < 0 ? direction + 2 * half : direction;
}

/// Direction of a vector of space within the plane of an image, in steps from 0 to below 2 half.
VG_HD double direction_in_plane(const double* rotation, const double* v, int half) {
  const double x = v[0] * rotation[0] + v[1] * rotation[3] + v[2] * rotation[6];
  const double y = v[0] * rotation[1] + v[1] * rotation[4] + v[2] * rotation[7];
  const double steps = wrapped_direction(std::atan2(y, x) * half / kPi, half);
  return steps >= 2 * half ? 0.0 : steps;
}

constexpr double kLeastSineOfPlanes = 1e-3;  // of planes closer than that nothing is counted

/// The line in which two planes meet, along both axes' normals' cross product; whether they are far enough apart.
VG_HD bool line_of_planes(const double* mine, const double* other, double* v) {
  const double u[3] = {mine[2], mine[5], mine[8]}, w[3] = {other[2], other[5], other[8]};
  v[0] = u[1] * w[2] - u[2] * w[1], v[1] = u[2] * w[0] - u[0] * w[2], v[2] = u[0] * w[1] - u[1] * w[0];
  return v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= kLeastSineOfPlanes * kLeastSineOfPlanes;
}

}  // namespace verglas::math
