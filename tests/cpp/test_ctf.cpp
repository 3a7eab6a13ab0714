#include "check.h"
#include "math/ctf.h"

namespace {

constexpr double kPi = 3.14159265358979323846;

// The printed formula, term by term, in double.
double printed(const verglas::math::OpticsParams& p, double kx, double ky) {
  const double lambda = verglas::math::wavelength_A(p.voltage_kV), k2 = kx * kx + ky * ky;
  const double theta = std::atan2(ky, kx), angle = theta - p.defocus_angle_deg * kPi / 180;
  const double dz =
      (p.defocus_u_A + p.defocus_v_A) / 2 + (p.defocus_u_A - p.defocus_v_A) / 2 * std::cos(2 * angle);
  const double chi = kPi * lambda * dz * k2 - kPi / 2 * p.cs_mm * 1e7 * lambda * lambda * lambda * k2 * k2 +
                     p.phase_shift_deg * kPi / 180 +
                     k2 * k2 *
                         (p.spherical4_A4 + p.astigmatism4_x_A4 * std::cos(2 * theta) +
                          p.astigmatism4_y_A4 * std::sin(2 * theta) + p.tetrafoil_x_A4 * std::cos(4 * theta) +
                          p.tetrafoil_y_A4 * std::sin(4 * theta));
  const double w = p.amplitude_contrast;
  return std::sqrt(1 - w * w) * std::sin(chi) + w * std::cos(chi);
}

void check_optics(const verglas::math::OpticsParams& p) {
  const auto c = verglas::math::ctf_coefficients(p);
  const double step = 1.0 / (128 * 1.1);
  for (int iy = -64; iy < 64; iy += 7) {
    const auto row = verglas::math::ctf_row(c, iy * step, step);
    for (int ix = 0; ix <= 64; ++ix) {
      const double kx = ix * step, ky = iy * step;
      CHECK_NEAR(verglas::math::ctf_value(c, kx, ky), p.scale * printed(p, kx, ky), 1e-6 * p.scale);
      CHECK_NEAR(verglas::math::ctf_row_value(row, ix), printed(p, kx, ky), 1e-6);
      const float product = verglas::math::ctf_envelope(c, kx, 0.0) * verglas::math::ctf_envelope(c, 0.0, ky);
      CHECK_NEAR(product, std::exp(-p.b_factor_A2 * (kx * kx + ky * ky) / 4), 1e-6);
    }
  }
}

}  // namespace

int main() {
  // The printed digits are cut at six decimals.
  CHECK_NEAR(verglas::math::wavelength_A(300), 0.0196875, 5e-7);
  CHECK_NEAR(verglas::math::wavelength_A(200), 0.0250795, 5e-7);
  check_optics({15000, 14000, 30, 300, 2.7, 0.1, 0, 0, 1, 0, 0, 0, 0, 0});
  check_optics({-8000, 9000, -71, 200, 2.0, 0.07, 90, 120, 0.8, 20, -35, 50, 41, -28});
  check_optics({12000, 12000, 0, 300, 0, 1, 0, 30, 1, 0, 0, 0, 0, 0});
  return check::report();
}
