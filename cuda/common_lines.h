// common_lines: the line that the transforms of two projections share, for every pair, and what whole orientations are
// worth by the lines they imply, on the device.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"

namespace verglas::cuda {

/// Central lines of images, as cpp/ops/common_lines.h has them.
struct CentralLines {
  const float2* samples;  // (n, half, depth)
  const float* loss;      // (n, half)
  int n, half, depth;
};

/// angle, score (n, n) float64, written: as the host's, directions in steps.
///   method  a block a pair: tables of 64 x 64 directions by block_product, of which each thread keeps its best; then
///           the best of the block and its neighbours. No table is written.
///   cost    2 n^2 half^2 depth fused multiply-adds
void common_lines(const CentralLines& lines, double* angle, double* score, Stream stream);

/// out[c], (m,) float64: as the host's. A block a candidate, a thread some of the other images; sums in float64, in an
/// order that does not depend on the device.
void common_line_scores(const CentralLines& lines, const double* rotations, const double* candidates,
                        const std::int64_t* own, std::size_t m, double* out, Stream stream);

}  // namespace verglas::cuda
