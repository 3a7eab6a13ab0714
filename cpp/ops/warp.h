// warp: frames of a movie resampled by a smooth field of shifts, and added up.
#pragma once
#include <cstddef>

namespace verglas::cpu {

/// Frames and where their content lies. Nodes of the lattice stand at x = i (columns - 1) / (nodes_x - 1), likewise y;
/// between them the field is bilinear.
struct WarpFrames {
  const float* frames;   // (n, rows, columns)
  const float* shifts;   // (n, nodes_y, nodes_x, 2) pixels, x then y
  const float* weights;  // (n, n_sums)
  std::size_t n, rows, columns, nodes_y, nodes_x, n_sums;
};

/// Steepest field that warp takes, pixels of shift per pixel: the weights are linear in a run of 16 pixels.
constexpr double kWarpSteepest = 0.02;

/// sums[r, y, x] += sum_f weights[f, r] frame_f(x + dx_f(x, y), y + dy_f(x, y))
///   sums       (n_sums, rows, columns) float32, added to; frames are mirrored at their edges
///   method     one separable interpolation, kDelayTaps taps along each axis (math/fractional_delay.h): error below
///              1 % of the amplitude up to 0.8 Nyquist
///   cost       about 3 * 2 * 14 multiply-adds per pixel and frame; a tile of the sums stays in cache for all frames
///   order      frames are added one after the other: neither threads nor the grouping into calls changes a bit
void warp(const WarpFrames& in, float* sums, int num_threads);

}  // namespace verglas::cpu
