// ctf_score: how well contrast transfer functions explain a power spectrum, with derivatives.
#pragma once
#include <cstddef>

#include "math/ctf.h"

namespace verglas::cpu {

/// What ctf_score gives for one set of parameters, in this order. m = a CTF^2 is the model, r = y - m.
///   0 sum m m, 1 sum y m
///   2..5  sum r J_j                      (descent direction: minus half the gradient of sum r r)
///   6..15 sum J_i J_j, i <= j            (Gauss-Newton matrix, rows of the upper triangle)
/// J_j = dm/dp_j, p = (mean defocus, (u-v)/2 cos 2 angle, (u-v)/2 sin 2 angle, phase shift), all per
/// angstrom, the last per degree.
constexpr int kCtfScores = 16;

/// Spectrum as a list of pixels: frequencies in 1/A, y = (power - background) / noise, a = ring amplitude / noise.
struct SpectrumPixels {
  std::size_t count;
  const float *kx, *ky, *y, *a;
};

/// Fills scores[i, :] for n rows of parameters.
///   formula      m = a CTF^2, CTF of math/ctf.h without envelope and scale; the sum of squared residuals is
///                sum y y - 2 sum y m + sum m m
///   params       n rows of math::kOpticsColumns doubles
///   scores       (n, kCtfScores) doubles; without derivatives only the first two are written, the others 0
///   cost         one sine (two with derivatives) per pixel and row; phases in float32, error below 1e-6 of their
///                value; parallel over rows and blocks of pixels, bitwise independent of num_threads
void ctf_score(const double* params, std::size_t n, const SpectrumPixels& pixels, bool derivatives,
               double* scores, int num_threads);

}  // namespace verglas::cpu
