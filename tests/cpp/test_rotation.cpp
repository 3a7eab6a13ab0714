#include <initializer_list>

#include "check.h"
#include "math/rotation.h"

using verglas::math::Rotation;
using verglas::math::Vector3;

namespace {

constexpr double kDeg = 3.14159265358979323846 / 180.0;

// The three factors of the definition, written out one by one.
Rotation about_z(double deg) {
  const double c = std::cos(deg * kDeg), s = std::sin(deg * kDeg);
  return {{c, s, 0, -s, c, 0, 0, 0, 1}};
}

Rotation about_y(double deg) {
  const double c = std::cos(deg * kDeg), s = std::sin(deg * kDeg);
  return {{c, 0, -s, 0, 1, 0, s, 0, c}};
}

void check_equal(const Rotation& got, const Rotation& want) {
  for (int i = 0; i < 9; ++i) CHECK_NEAR(got.m[i], want.m[i], 1e-14);
}

void check_angles(double rot, double tilt, double psi) {
  using verglas::math::multiply;
  const Rotation a = verglas::math::euler_deg(rot, tilt, psi);
  check_equal(a, multiply(about_z(psi), multiply(about_y(tilt), about_z(rot))));
  check_equal(multiply(a, verglas::math::transpose(a)), {{1, 0, 0, 0, 1, 0, 0, 0, 1}});
  const Vector3 v{0.3, -1.7, 2.2};
  const Vector3 w = verglas::math::apply(a, v);
  const Vector3 back = verglas::math::apply_transpose(a, w);
  CHECK_NEAR(back.x, v.x, 1e-14);
  CHECK_NEAR(back.y, v.y, 1e-14);
  CHECK_NEAR(back.z, v.z, 1e-14);
}

// exp and log are each other's inverse, up to and at half a turn; exp agrees with the composition of rotations.
void check_exponential(const Vector3& axis, double angle) {
  const Vector3 w{axis.x * angle, axis.y * angle, axis.z * angle};
  const Rotation r = verglas::math::rotation_exp(w);
  const Vector3 back = verglas::math::rotation_log(r);
  // Near half a turn the quaternion's components are differences of 1 + diagonal: 1e-8 of angle at worst.
  const double tolerance = 1e-13 + 1e-8 * (angle > 3.14);
  CHECK_NEAR(back.x, w.x, tolerance);
  CHECK_NEAR(back.y, w.y, tolerance);
  CHECK_NEAR(back.z, w.z, tolerance);
  check_equal(verglas::math::multiply(r, verglas::math::transpose(r)), {{1, 0, 0, 0, 1, 0, 0, 0, 1}});
  const Rotation half = verglas::math::rotation_exp({w.x / 2, w.y / 2, w.z / 2});
  check_equal(verglas::math::multiply(half, half), r);
  const Vector3 fixed = verglas::math::apply(r, axis);
  CHECK_NEAR(fixed.x, axis.x, 1e-14);
}

}  // namespace

int main() {
  for (const double angle : {0.0, 1e-9, 1e-5, 9.9e-5, 1.01e-4, 0.01, 0.5, 2.0, 3.0, 3.141}) {
    check_exponential({1, 0, 0}, angle);
    check_exponential({0, -1, 0}, angle);
    check_exponential({0.48, -0.6, 0.64}, angle);
    check_exponential({-0.8, 0.0, 0.6}, angle);
  }
  // A quarter turn about z in the active sense: x goes to y.
  const Vector3 y = verglas::math::apply(verglas::math::rotation_exp({0, 0, 90 * kDeg}), {1, 0, 0});
  CHECK_NEAR(y.y, 1, 1e-15);
  for (int rot = -180; rot <= 180; rot += 45) {
    for (int tilt = 0; tilt <= 180; tilt += 30) {
      for (int psi = -170; psi <= 180; psi += 35) check_angles(rot, tilt, psi);
    }
  }
  // The viewing axis of rot = 90, tilt = 90 is +y of the volume.
  const Vector3 axis = verglas::math::apply_transpose(verglas::math::euler_deg(90, 90, 33), {0, 0, 1});
  CHECK_NEAR(axis.x, 0, 1e-15);
  CHECK_NEAR(axis.y, 1, 1e-15);
  CHECK_NEAR(axis.z, 0, 1e-15);
  // psi = 90 takes a point on +x of the volume to -y of the image, one on +y to +x (passive factor).
  const Vector3 turned = verglas::math::apply(verglas::math::euler_deg(0, 0, 90), {1, 0, 0});
  CHECK_NEAR(turned.y, -1, 1e-15);
  return check::report();
}
