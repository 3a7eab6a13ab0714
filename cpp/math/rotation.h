// Rotations of docs/conventions.md: A = Rz(psi) Ry(tilt) Rz(rot) with passive factors. A point at r (volume
// frame) projects to (A r)[x, y]; the central slice of the image lies at A^T k in the transform of the
// volume.
#pragma once
#include <cmath>

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
  constexpr double rad = 3.14159265358979323846 / 180.0;
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

}  // namespace verglas::math
