#include "cuda/insert_points.h"
#include "cuda/polar.h"
#include "math/constants.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 128;
using math::kPi;

__device__ Sample read_sample(const PolarSlices& slices, std::size_t at) {
  return {slices.values ? slices.values[at] : make_float2(0.0f, 0.0f),
          slices.weights ? slices.weights[at] : 0.0f};
}

template <int W>
__global__ void __launch_bounds__(kThreads)
    insert_kernel(const __grid_constant__ Window window, math::GridShape volume, PolarSlices slices,
                  PolarTables grid, InsertSums sums) {
  __shared__ math::SliceAxes axes;
  __shared__ bool good;
  const std::size_t slice = blockIdx.x;
  if (threadIdx.x == 0) {
    axes = math::slice_axes(slices.matrices + 9 * slice, volume);
    good = math::is_rotation(slices.matrices + 9 * slice);
    if (!good && blockIdx.y == 0) spoil(volume, sums);
  }
  __syncthreads();
  const int half = grid.half(), points = grid.n_rings * half;
  const int i = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  if (!good || i >= points) return;
  const double r = grid.radii[i / half];
  add_taps<W>(window, volume,
              math::slice_point(axes, volume, r * grid.cos_theta[i % half], r * grid.sin_theta[i % half]),
              read_sample(slices, slice * points + i), sums);
}

/// Matrices that are no rotations, before the search passes them over.
__global__ void __launch_bounds__(kThreads)
    check_kernel(math::GridShape volume, PolarSlices slices, InsertSums sums) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < slices.n && !math::is_rotation(slices.matrices + 9 * i)) spoil(volume, sums);
}

/// Slices of samples on rings, for the ordered sums.
struct RingSlices {
  static constexpr bool kCurved = false;
  PolarSlices slices;
  PolarTables rings;

  __device__ std::size_t n() const { return slices.n; }
  __device__ const double* matrices() const { return slices.matrices; }

  /// On each ring near the point's foot, the angles near the foot's.
  template <int W>
  __device__ void add(const Window& window, const math::GridShape& volume, const GridPoint& p,
                      std::size_t slice, PointSums& sums) const {
    const double* a = slices.matrices + 9 * slice;
    Foot foot;
    if (!foot_of<W>(p, a, static_cast<double>(volume.padded) / volume.box, foot)) return;
    const auto axes = math::slice_axes(a, volume);
    const int half = rings.half();
    const double radius = std::sqrt(foot.u * foot.u + foot.v * foot.v), step = 2 * kPi / rings.n_theta;
    // Seen from the origin, what lies within `reach` of the foot spans the angle asin(reach / radius) to either side.
    const bool around = !(radius > foot.reach);
    const double span = around ? kPi : std::asin(foot.reach / radius);
    for (int sign = 1; sign >= -1; sign -= 2) {
      const double angle = std::atan2(sign * foot.v, sign * foot.u);
      const int begin = around ? 0 : static_cast<int>(std::ceil((angle - span) / step - 1e-6));
      const int end = around ? half - 1 : static_cast<int>(std::floor((angle + span) / step + 1e-6));
      for (int ring = 0; ring < rings.n_rings; ++ring) {
        const double r = rings.radii[ring];
        if (r < radius - foot.reach) continue;
        if (r > radius + foot.reach) break;
        for (int i = begin; i <= end; ++i) {
          const int t = i < 0 ? i + rings.n_theta : i;
          if (t >= half) continue;  // the other half circle: its mates are looked for with the other sign
          const auto point = math::slice_point(axes, volume, r * rings.cos_theta[t], r * rings.sin_theta[t]);
          if (point.mate != (sign < 0)) continue;
          const std::size_t at = (slice * rings.n_rings + ring) * half + t;
          add_tap<W>(window, p, point, read_sample(slices, at), sums);
        }
      }
    }
  }
};

}  // namespace

void polar_insert(const math::GridShape& volume, const math::WindowTable& window, const PolarSlices& slices,
                  const PolarTables& grid, bool ordered, const InsertSums& sums, Stream stream) {
  if (slices.n == 0 || (!sums.values && !sums.weights)) return;
  const int points = grid.n_rings * grid.half();
  const auto n = static_cast<unsigned>(slices.n);
  if (ordered) {
    launch(check_kernel, {(n + kThreads - 1) / kThreads, kThreads, 0, stream}, volume, slices, sums);
    return launch_ordered(volume, window, RingSlices{slices, grid}, sums, stream);
  }
  const dim3 blocks(n, static_cast<unsigned>((points + kThreads - 1) / kThreads));
  with_width(window.width, [&](auto width) {
    launch(insert_kernel<decltype(width)::value>, {blocks, kThreads, 0, stream}, window_of(window), volume,
           slices, grid, sums);
  });
}

}  // namespace verglas::cuda
