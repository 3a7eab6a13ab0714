// shift_score: how well the frames of a movie agree, patch by patch, on the device.
#pragma once
#include <cstddef>

#include "cuda/device.h"

namespace verglas::cuda {

/// Parts of Fourier space of patches of frames, as cpp/ops/shift_score.h has them; arrays on the device.
struct ShiftPatches {
  const float2* patches;        // (n, frames, rows, columns)
  const float* weights;         // (rows, columns); 0: the frequency is not read
  const double* frequencies_y;  // (rows) cycles per pixel
  const double* frequencies_x;  // (columns)
  const double* shifts;         // (n, frames, 2) pixels, x then y
  std::size_t n, frames, rows, columns;
};

/// Where each result goes, and what the kernels keep between them.
struct ShiftScores {
  double* value;      // (n)
  double* gradient;   // (n, frames, 2), or null: the value alone
  double* curvature;  // (n, frames, 3): xx, xy, yy
  float2* sum;        // (n, rows, columns) scratch: the frames moved back and added up
  double* values;     // (n, frames) scratch
};

/// The formulas of cpp/ops/shift_score.h. A shift that is not finite gives NaN.
///   cost    two reads of the patches; a block has one frame of one patch, sums in float64, each in one order: bitwise
///           repeatable, whatever the batch
void shift_score(const ShiftPatches& in, const ShiftScores& out, Stream stream);

}  // namespace verglas::cuda
