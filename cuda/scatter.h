// scatter: exact transforms of atomic models on the device, images at given poses and volumes.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"

namespace verglas::cuda {

/// Atoms as sums of Gaussians, sorted by type; device arrays.
struct ScatterModel {
  const double* atoms;        // rows x, y, z (A), weight, B (A^2)
  const std::int32_t* first;  // (n_types + 1): where each type starts
  const double* factors;      // (n_types, n_terms, 2): amplitude a and b (A^2) of every Gaussian of a type
  int n_types, n_terms;
};

struct ScatterGrid {
  int box;
  double pixel_size_A;
};

/// Length of a type's table of form factors at whole |k|^2.
inline std::size_t form_length(int box, int dimensions) {
  const std::size_t edge = box / 2;
  return dimensions * edge * edge + 1;
}

/// out[i, ky, kx] of n_images, as cpu::scatter (formula, Nyquist terms and all).
///   matrices (n_images, 9), shifts_A (n_images, 2) float64; form (n_types, form_length(box, 2)) float32, lent
///   out      (n_images, box, box/2 + 1) complex64, written
///   method   blocks of 64 x 64 coefficients with ky, kx >= 0, a product of tables of cosines and sines of 16
///            atoms at a time, made in shared memory (phases in float64): four real products give +ky and -ky
///   cost     8 (box/2 + 1)^2 operations an atom and image, and about as many for the tables; no memory traffic
///            to speak of
void scatter(const ScatterModel& model, const double* matrices, const double* shifts_A, std::size_t n_images,
             ScatterGrid grid, float* form, float2* out, Stream stream);

/// out (box, box, box/2 + 1), as cpu::scatter_volume; form (n_types, form_length(box, 3)). Cost 2 box^3
/// operations an atom and as many for the tables.
void scatter_volume(const ScatterModel& model, ScatterGrid grid, float* form, float2* out, Stream stream);

}  // namespace verglas::cuda
