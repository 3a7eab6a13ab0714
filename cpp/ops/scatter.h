// scatter: exact transforms of atomic models, images at given poses and volumes, with no grid and no interpolation.
#pragma once
#include <complex>
#include <cstddef>
#include <cstdint>

namespace verglas::cpu {

/// Atoms as sums of Gaussians; the arrays belong to the caller.
struct ScatterModel {
  const double* atoms;        // rows x, y, z (A), weight, B (A^2)
  const std::int64_t* types;  // row of `factors` for every atom, 0 <= type < n_types (checked by the caller)
  std::size_t n_atoms;
  const double* factors;  // (n_types, n_terms, 2): amplitude a and b (A^2) of every Gaussian of a type
  int n_types;
  int n_terms;
};

struct ScatterGrid {
  int box;
  double pixel_size_A;
};

/// Fills out[i, ky, kx] of n_images phase-centred half transforms:
///   F(k) = sum_a w_a exp(-B_a k^2/4) f_type(a)(|k|) exp(-2 pi i k . [(R_i r_a)_xy - shift_i])
///   f_t(k) = sum_j a_tj exp(-b_tj k^2/4),  k in 1/A on the grid of rfft2
///   matrices     (n_images, 3, 3), row-major R; shifts_A (n_images, 2): x, y
///   Nyquist      rows and columns of even boxes hold the mean of +N/2 and -N/2 (their sine is dropped), so every
///                image is the one real trigonometric polynomial with these coefficients
///   method       the sum over atoms is a real matrix product of (cos, sin) tables in y with those in x, by
///                blocks of atoms, float32, phases reduced in float64
///   cost         box^2 multiply-adds per atom and image; parallel over images, independent of num_threads
void scatter(const ScatterModel& model, const double* matrices, const double* shifts_A, std::size_t n_images,
             ScatterGrid grid, std::complex<float>* out, int num_threads);

/// The same sum in three dimensions: out (box, box, box/2 + 1), phase-centred. Cost 2 box^3 flop per atom;
/// parallel over planes, independent of num_threads.
void scatter_volume(const ScatterModel& model, ScatterGrid grid, std::complex<float>* out, int num_threads);

}  // namespace verglas::cpu
