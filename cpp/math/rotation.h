// Rotations of docs/conventions.md: A = Rz(psi) Ry(tilt) Rz(rot) with passive factors. A point at r (volume
// frame) projects to (A r)[x, y]; the central slice of the image lies at A^T k in the transform of the volume.
#pragma once
#include <cmath>

#include "math/constants.h"
#include "math/macros.h"

namespace verglas::math {

struct Vector3 {
  double x, y, z;
};

/// A 3x3 matrix, row-major: m[3 * row + column].
struct Rotation {
  double m[9];
};

/// A of the Euler angles (degrees):
///   A = [[ cos psi, sin psi, 0], [-sin psi, cos psi, 0], [0, 0, 1]]
///       [[cos tilt, 0, -sin tilt], [0, 1, 0], [sin tilt, 0, cos tilt]]
///       [[ cos rot, sin rot, 0], [-sin rot, cos rot, 0], [0, 0, 1]]
/// Its rows are the x, y and viewing axes of the image in the volume frame; the viewing axis is
/// (sin tilt cos rot, sin tilt sin rot, cos tilt).
VG_HD Rotation euler_deg(double rot, double tilt, double psi) {
  constexpr double rad = kPi / 180.0;
  const double ca = std::cos(rot * rad), sa = std::sin(rot * rad);
  const double cb = std::cos(tilt * rad), sb = std::sin(tilt * rad);
  const double cg = std::cos(psi * rad), sg = std::sin(psi * rad);
  return {{cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb,   //
           -sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb,  //
           sb * ca, sb * sa, cb}};
}

/// A v: from the volume frame to the image frame.
VG_HD Vector3 apply(const Rotation& a, const Vector3& v) {
  return {a.m[0] * v.x + a.m[1] * v.y + a.m[2] * v.z, a.m[3] * v.x + a.m[4] * v.y + a.m[5] * v.z,
          a.m[6] * v.x + a.m[7] * v.y + a.m[8] * v.z};
}

/// A^T v: from the image frame to the volume frame (the inverse of apply).
VG_HD Vector3 apply_transpose(const Rotation& a, const Vector3& v) {
  return {a.m[0] * v.x + a.m[3] * v.y + a.m[6] * v.z, a.m[1] * v.x + a.m[4] * v.y + a.m[7] * v.z,
          a.m[2] * v.x + a.m[5] * v.y + a.m[8] * v.z};
}

/// A B: B first.
VG_HD Rotation multiply(const Rotation& a, const Rotation& b) {
  Rotation c{};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      c.m[3 * i + j] = a.m[3 * i] * b.m[j] + a.m[3 * i + 1] * b.m[3 + j] + a.m[3 * i + 2] * b.m[6 + j];
    }
  }
  return c;
}

VG_HD Rotation transpose(const Rotation& a) {
  return {{a.m[0], a.m[3], a.m[6], a.m[1], a.m[4], a.m[7], a.m[2], a.m[5], a.m[8]}};
}

/// Whether rows are orthonormal and right-handed to 1e-4 (matrices printed with six digits pass); NaN is not.
VG_HD bool is_rotation(const double* a) {
  bool good = true;
  for (int row = 0; row < 3; ++row) {
    for (int other = 0; other <= row; ++other) {
      double dot = 0.0;
      for (int k = 0; k < 3; ++k) dot += a[3 * row + k] * a[3 * other + k];
      good = good && std::fabs(dot - (row == other ? 1.0 : 0.0)) < 1e-4;  // NaN compares false
    }
  }
  const double determinant = a[0] * (a[4] * a[8] - a[5] * a[7]) - a[1] * (a[3] * a[8] - a[5] * a[6]) +
                             a[2] * (a[3] * a[7] - a[4] * a[6]);
  return good && determinant > 0.0;
}

/// exp([w]x): the rotation by |w| radians about w, so that exp([w]x) v = v + w x v + ... (Rodrigues).
VG_HD Rotation rotation_exp(const Vector3& w) {
  const double square = w.x * w.x + w.y * w.y + w.z * w.z, angle = std::sqrt(square);
  // sin(a)/a and (1 - cos a)/a^2, the latter as a half-angle sine: no cancellation; series below 1e-4 rad.
  const bool small = angle < 1e-4;
  const double half = small ? 0.0 : std::sin(0.5 * angle) / (0.5 * angle);
  const double s = small ? 1.0 - square / 6.0 : std::sin(angle) / angle;
  const double c = small ? 0.5 - square / 24.0 : 0.5 * half * half;
  const double xy = c * w.x * w.y, xz = c * w.x * w.z, yz = c * w.y * w.z;
  return {{1.0 - c * (w.y * w.y + w.z * w.z), xy - s * w.z, xz + s * w.y,  //
           xy + s * w.z, 1.0 - c * (w.x * w.x + w.z * w.z), yz - s * w.x,  //
           xz - s * w.y, yz + s * w.x, 1.0 - c * (w.x * w.x + w.y * w.y)}};
}

/// The inverse of rotation_exp: |w| <= pi. At exactly half a turn either sign of w is right.
VG_HD Vector3 rotation_log(const Rotation& r) {
  // By way of the unit quaternion (q, v), from the largest of its four components: exact for every angle.
  const double* m = r.m;
  const double trace = m[0] + m[4] + m[8];
  double q, v[3];
  if (trace > 0.0) {
    q = 0.5 * std::sqrt(1.0 + trace);
    v[0] = (m[7] - m[5]) / (4.0 * q);
    v[1] = (m[2] - m[6]) / (4.0 * q);
    v[2] = (m[3] - m[1]) / (4.0 * q);
  } else {
    const int i = m[0] >= m[4] && m[0] >= m[8] ? 0 : m[4] >= m[8] ? 1 : 2, j = (i + 1) % 3, k = (i + 2) % 3;
    v[i] = 0.5 * std::sqrt(1.0 + m[4 * i] - m[4 * j] - m[4 * k]);
    v[j] = (m[3 * i + j] + m[3 * j + i]) / (4.0 * v[i]);
    v[k] = (m[3 * i + k] + m[3 * k + i]) / (4.0 * v[i]);
    q = (m[3 * k + j] - m[3 * j + k]) / (4.0 * v[i]);
  }
  const double length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  const double sign = q < 0.0 ? -1.0 : 1.0;
  const double factor = length < 1e-12 ? 2.0 : 2.0 * std::atan2(length, std::fabs(q)) / length;
  return {sign * factor * v[0], sign * factor * v[1], sign * factor * v[2]};
}

}  // namespace verglas::math
