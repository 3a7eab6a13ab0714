// warp: frames of a movie resampled by a smooth field of shifts, and added up, on the device.
#pragma once
#include <cstddef>

#include "cuda/device.h"
#include "math/fractional_delay.h"

namespace verglas::cuda {

/// Frames and where their content lies, as cpp/ops/warp.h has them; arrays on the device.
struct WarpFrames {
  const float* frames;   // (n, rows, columns)
  const float* shifts;   // (n, nodes_y, nodes_x, 2) pixels, x then y
  const float* weights;  // (n, n_sums)
  const float* taps;     // math::DelayTable::rows()
  std::size_t n, rows, columns, nodes_y, nodes_x, n_sums;
};

/// sums[r, y, x] += sum_f weights[f, r] frame_f(x + dx_f(x, y), y + dy_f(x, y))
///   sums    (n_sums, rows, columns) float32, added to; frames are mirrored at their edges; a shift that is not finite,
///           or beyond 1e6 pixels, gives NaN
///   cost    14 x 14 taps per pixel and frame, from cache: the field is taken at the pixel itself, however steep
///   order   frames are added one after the other: the grouping into calls changes no bit
void warp(const WarpFrames& in, float* sums, Stream stream);

}  // namespace verglas::cuda
