// peaks: local maxima of a map, with a sub-pixel fit, on the device.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "math/peaks.h"

namespace verglas::cuda {

/// A peak, and its pixel's place in raster order.
struct FoundPeak {
  double index, x, y, value;
};

/// How many a map can have: no two are neighbours, so one for each 2 x 2 pixels.
inline std::size_t most_peaks(std::size_t height, std::size_t width) {
  return (height + 1) / 2 * ((width + 1) / 2);
}

/// found[0 .. *count): the peaks of math/peaks.h, in no order.
///   count   1 uint32 on the device, zero before;  found  most_peaks(height, width) on the device, written
///   cost    one read of the map (9 pixels, from cache, for one) and one atomic addition a peak
void peaks(const math::PeakMap& map, float threshold, FoundPeak* found, std::uint32_t* count, Stream stream);

}  // namespace verglas::cuda
