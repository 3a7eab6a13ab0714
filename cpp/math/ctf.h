// Contrast transfer function of one image, in the convention of docs/conventions.md (underfocus positive, CTF(0) = +w).
#pragma once
#include <cmath>

#include "math/constants.h"
#include "math/macros.h"
#include "math/trig.h"

namespace verglas::math {

/// What describes the microscope for one image; angstrom, degree, kV and mm as at the public boundary.
struct OpticsParams {
  double defocus_u_A, defocus_v_A, defocus_angle_deg;
  double voltage_kV, cs_mm, amplitude_contrast, phase_shift_deg;
  double b_factor_A2, scale;
  // even aberrations of fourth order beside Cs: chi gains k^4 (s + a cos 2t + b sin 2t + c cos 4t + d sin 4t),
  // radians A^4
  double spherical4_A4, astigmatism4_x_A4, astigmatism4_y_A4, tetrafoil_x_A4, tetrafoil_y_A4;
};
constexpr int kOpticsColumns = 14;

/// One row of a table of kOpticsColumns doubles, in the order of the members.
VG_HD OpticsParams optics_params(const double* row) {
  return {row[0], row[1], row[2], row[3],  row[4],  row[5],  row[6],
          row[7], row[8], row[9], row[10], row[11], row[12], row[13]};
}

/// Relativistic wavelength in angstrom: 12.2643247 / sqrt(V (1 + 0.978466e-6 V)), V in volt.
VG_HD double wavelength_A(double voltage_kV) {
  const double v = voltage_kV * 1e3;
  return 12.2643247 / std::sqrt(v * (1.0 + 0.978466e-6 * v));
}

/// The phase chi(k)/2pi is a polynomial in (kx, ky); these are its coefficients, all in turns.
///   chi = pi lambda dz(theta) k^2 - pi/2 Cs lambda^3 k^4,  dz = (u+v)/2 + (u-v)/2 cos 2(theta - angle)
///         + k^4 (even terms of fourth order),  written with x^4 - y^4 = k^4 cos 2 theta and so on
///   CTF = sin(chi + phase + asin w) scale exp(-B k^2/4)      [= sqrt(1-w^2) sin(chi+phase) + w cos(chi+phase)]
struct CtfCoefficients {
  double mean, cos2, sin2, spherical, offset;
  double b_quarter, scale;
  double fourth_cos2, fourth_sin2, fourth_cos4, fourth_sin4;
};

VG_HD CtfCoefficients ctf_coefficients(const OpticsParams& p) {
  const double lambda = wavelength_A(p.voltage_kV);
  const double two_angle = 2.0 * p.defocus_angle_deg * kPi / 180.0;
  const double astigmatism = 0.25 * lambda * (p.defocus_u_A - p.defocus_v_A);
  CtfCoefficients c;
  c.mean = 0.25 * lambda * (p.defocus_u_A + p.defocus_v_A);
  c.cos2 = astigmatism * std::cos(two_angle);
  c.sin2 = astigmatism * std::sin(two_angle);
  const double turns = 1.0 / (2.0 * kPi);
  c.spherical = -0.25 * (p.cs_mm * 1e7) * lambda * lambda * lambda + turns * p.spherical4_A4;
  c.offset = p.phase_shift_deg / 360.0 + std::asin(p.amplitude_contrast) / (2.0 * kPi);
  c.b_quarter = 0.25 * p.b_factor_A2;
  c.scale = p.scale;
  c.fourth_cos2 = turns * p.astigmatism4_x_A4, c.fourth_sin2 = turns * p.astigmatism4_y_A4;
  c.fourth_cos4 = turns * p.tetrafoil_x_A4, c.fourth_sin4 = turns * p.tetrafoil_y_A4;
  return c;
}

/// The phase at the spatial frequency (kx, ky) in 1/A, in turns.
/// dz k^2 is written with kx^2 - ky^2 = k^2 cos 2 theta and 2 kx ky = k^2 sin 2 theta: no arctangent.
VG_HD double ctf_turns(const CtfCoefficients& c, double kx, double ky) {
  const double x2 = kx * kx, y2 = ky * ky, k2 = x2 + y2, d = x2 - y2, xy = 2.0 * kx * ky;
  const double fourth = k2 * (c.spherical * k2 + c.fourth_cos2 * d + c.fourth_sin2 * xy) +
                        c.fourth_cos4 * (d * d - xy * xy) + c.fourth_sin4 * (2.0 * d * xy);
  return c.mean * k2 + c.cos2 * d + c.sin2 * xy + fourth + c.offset;
}

/// CTF at the spatial frequency (kx, ky) in 1/A.
VG_HD float ctf_value(const CtfCoefficients& c, double kx, double ky) {
  return sin_turns(ctf_turns(c, kx, ky)) * static_cast<float>(c.scale);
}

/// The phase along one row of the half transform, ky fixed and kx = x step: a quartic in x,
///   turns(x) = constant + linear x + square x^2 + cubic x^3 + fourth x^4
/// so that a row costs five multiplications a value beside the sine.
struct CtfRow {
  double constant, linear, square, cubic, fourth;
};

VG_HD CtfRow ctf_row(const CtfCoefficients& c, double ky, double step) {
  const double y2 = ky * ky, step2 = step * step;
  CtfRow row;
  row.constant = c.offset + y2 * (c.mean - c.cos2 + (c.spherical - c.fourth_cos2 + c.fourth_cos4) * y2);
  row.linear = ky * step * (2.0 * c.sin2 + y2 * (2.0 * c.fourth_sin2 - 4.0 * c.fourth_sin4));
  row.square = step2 * (c.mean + c.cos2 + (2.0 * c.spherical - 6.0 * c.fourth_cos4) * y2);
  row.cubic = ky * step * step2 * (2.0 * c.fourth_sin2 + 4.0 * c.fourth_sin4);
  row.fourth = step2 * step2 * (c.spherical + c.fourth_cos2 + c.fourth_cos4);
  return row;
}

/// CTF at x pixels along the row, without scale and envelope.
VG_HD float ctf_row_value(const CtfRow& row, double x) {
  const double x2 = x * x;
  return sin_turns(row.constant + x * (row.linear + x2 * row.cubic) + x2 * (row.square + x2 * row.fourth));
}

/// The envelope exp(-B k^2/4), kept apart because most images have none. On a grid it is the product of its
/// values at (kx, 0) and (0, ky).
VG_HD float ctf_envelope(const CtfCoefficients& c, double kx, double ky) {
  return static_cast<float>(std::exp(-c.b_quarter * (kx * kx + ky * ky)));
}

}  // namespace verglas::math
