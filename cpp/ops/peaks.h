// peaks: local maxima of a map, the lower ones within a radius of a higher one left out, with a sub-pixel fit.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "math/peaks.h"

namespace verglas::cpu {

using math::Peak;

/// Maxima of map (height, width) float32, highest first; equal ones in raster order.
///   A pixel counts if it is finite, at least `threshold`, allowed (mask null, or not 0 there), and higher
///   than its neighbours before it in raster order and not lower than those behind it: a plateau counts once.
///   Position and height are the vertex of the quadratic that fits the 3 x 3 neighbourhood best (least
///   squares), moved by at most half a pixel per axis; at the border, and where the quadratic has no maximum,
///   the pixel's. A peak is kept if every kept higher one is at least `radius` pixels away.
/// Cost: one pass over the map, n log n over the maxima. The result does not depend on num_threads.
std::vector<Peak> peaks(const float* map, std::size_t height, std::size_t width, double radius,
                        float threshold, const std::uint8_t* mask, int num_threads);

/// Sorts peaks, given in raster order, highest first, and leaves out those nearer than `radius` to a higher kept one.
void keep_apart(std::vector<Peak>& found, std::size_t height, std::size_t width, double radius);

}  // namespace verglas::cpu
