#include "cuda/insert_points.h"
#include "cuda/polar.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 128;
constexpr double kPi = 3.14159265358979323846;

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

/// What one slice gives one grid point: on each ring near its foot, the angles near the foot's.
template <int W>
__device__ void add_slice(const Window& window, const math::GridShape& volume, const GridPoint& p,
                          const PolarSlices& slices, const PolarTables& grid, std::size_t slice,
                          PointSums& sums) {
  const double* a = slices.matrices + 9 * slice;
  Foot foot;
  if (!foot_of<W>(p, a, static_cast<double>(volume.padded) / volume.box, foot)) return;
  const auto axes = math::slice_axes(a, volume);
  const int half = grid.half();
  const double radius = std::sqrt(foot.u * foot.u + foot.v * foot.v), step = 2 * kPi / grid.n_theta;
  // Seen from the origin, what lies within `reach` of the foot spans the angle asin(reach / radius) to either
  // side.
  const bool around = !(radius > foot.reach);
  const double span = around ? kPi : std::asin(foot.reach / radius);
  for (int sign = 1; sign >= -1; sign -= 2) {
    const double angle = std::atan2(sign * foot.v, sign * foot.u);
    const int begin = around ? 0 : static_cast<int>(std::ceil((angle - span) / step - 1e-6));
    const int end = around ? half - 1 : static_cast<int>(std::floor((angle + span) / step + 1e-6));
    for (int ring = 0; ring < grid.n_rings; ++ring) {
      const double r = grid.radii[ring];
      if (r < radius - foot.reach) continue;
      if (r > radius + foot.reach) break;
      for (int i = begin; i <= end; ++i) {
        const int t = i < 0 ? i + grid.n_theta : i;
        if (t >= half) continue;  // the other half circle: its mates are looked for with the other sign
        const auto point = math::slice_point(axes, volume, r * grid.cos_theta[t], r * grid.sin_theta[t]);
        if (point.mate != (sign < 0)) continue;
        const std::size_t at = (slice * grid.n_rings + ring) * half + t;
        add_tap<W>(window, p, point, read_sample(slices, at), sums);
      }
    }
  }
}

template <int W>
__global__ void __launch_bounds__(kBrick)
    ordered_kernel(const __grid_constant__ Window window, math::GridShape volume, PolarSlices slices,
                   PolarTables grid, InsertSums sums) {
  const GridPoint p = grid_point(volume);
  PointSums own = load_point(sums, p);
  for_slices_near<W>(volume, slices.matrices, slices.n, [&](std::size_t slice) {
    if (p.inside) add_slice<W>(window, volume, p, slices, grid, slice, own);
  });
  store_point(sums, p, own);
}

}  // namespace

void polar_insert(const math::GridShape& volume, const math::WindowTable& window, const PolarSlices& slices,
                  const PolarTables& grid, bool ordered, const InsertSums& sums, Stream stream) {
  if (slices.n == 0 || (!sums.values && !sums.weights)) return;
  const int points = grid.n_rings * grid.half();
  const auto n = static_cast<unsigned>(slices.n);
  if (ordered)
    launch(check_kernel, {(n + kThreads - 1) / kThreads, kThreads, 0, stream}, volume, slices, sums);
  with_width(window.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    if (ordered) {
      launch(ordered_kernel<W>, {brick_grid(volume), kBrick, 0, stream}, window_of(window), volume, slices,
             grid, sums);
    } else {
      const dim3 blocks(n, static_cast<unsigned>((points + kThreads - 1) / kThreads));
      launch(insert_kernel<W>, {blocks, kThreads, 0, stream}, window_of(window), volume, slices, grid, sums);
    }
  });
}

}  // namespace verglas::cuda
