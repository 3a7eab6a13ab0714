// shift_score: how well the frames of a movie agree, patch by patch, when each is moved back by its shift.
#pragma once
#include <complex>
#include <cstddef>

namespace verglas::cpu {

/// Parts of Fourier space of patches of frames.
struct ShiftPatches {
  const std::complex<float>* patches;  // (n, frames, rows, columns)
  const float* weights;                // (rows, columns), not negative
  const double* frequencies_y;         // (rows) cycles per pixel
  const double* frequencies_x;         // (columns)
  std::size_t n, frames, rows, columns;
};

/// Where each result goes.
struct ShiftScores {
  double* value;      // (n)
  double* gradient;   // (n, frames, 2), or null: the value alone
  double* curvature;  // (n, frames, 3): xx, xy, yy
};

/// With z_f(k) = F_f(k) exp(2 pi i k.d_f), S = sum_f z_f and w the weights, for every patch
///   value       V = sum_k w sum_f Re[conj(S - z_f) z_f] = sum_k w (|S|^2 - sum_f |z_f|^2)
///   gradient    dV / dd_f = -4 pi sum_k w k Im[conj(S) z_f]
///   curvature   -d2V / dd_f dd_f^T = 8 pi^2 sum_k w k k^T Re[conj(S - z_f) z_f]
/// shifts (n, frames, 2) pixels, x then y: content of frame f lies d_f away from where it lies in the sum.
/// Cost: one read of the patches, about 25 flops per element; parallel over patches, same result for any number of
/// threads.
void shift_score(const ShiftPatches& in, const double* shifts, const ShiftScores& out, int num_threads);

}  // namespace verglas::cpu
