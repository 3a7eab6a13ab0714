#include "cuda/peaks.h"

namespace verglas::cuda {
namespace {

constexpr int kWide = 32, kHigh = 8;

__global__ void __launch_bounds__(kWide* kHigh)
    peaks_kernel(math::PeakMap map, float threshold, FoundPeak* __restrict__ found, std::uint32_t* count) {
  const std::size_t x = static_cast<std::size_t>(blockIdx.x) * kWide + threadIdx.x;
  const std::size_t y = static_cast<std::size_t>(blockIdx.y) * kHigh + threadIdx.y;
  if (x >= map.width || y >= map.height || !math::is_peak(map, y, x, threshold)) return;
  const math::Peak peak = math::peak_vertex(map, y, x);
  const std::uint32_t at = atomicAdd(count, std::uint32_t{1});
  found[at] = {static_cast<double>(y * map.width + x), peak.x, peak.y, peak.value};
}

}  // namespace

void peaks(const math::PeakMap& map, float threshold, FoundPeak* found, std::uint32_t* count, Stream stream) {
  if (map.width == 0 || map.height == 0) return;
  const dim3 blocks(static_cast<unsigned>((map.width + kWide - 1) / kWide),
                    static_cast<unsigned>((map.height + kHigh - 1) / kHigh));
  launch(peaks_kernel, {blocks, dim3(kWide, kHigh), 0, stream}, map, threshold, found, count);
}

}  // namespace verglas::cuda
