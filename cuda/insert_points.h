// What insert and polar_insert share on the device: a sample's taps added by atomics; bricks of grid points,
// the search for the samples that reach a grid point, and the kernel that sums them in order.
#pragma once
#include "cuda/insert.h"
#include "math/rotation.h"

#if defined(__CUDACC__) || defined(VERGLAS_CUDA_EMULATE)

namespace verglas::cuda {

/// One pixel of an image, or sample of a ring, as it goes into the sums.
struct Sample {
  float2 value;
  float weight;
};

/// A matrix that is no rotation must not go unnoticed: NaN at the origin.
__device__ inline void spoil(const math::GridShape& grid, const InsertSums& sums) {
  const std::size_t origin =
      (static_cast<std::size_t>(grid.extent) * grid.rows() + grid.extent) * grid.columns + grid.halo;
  const double nan = __longlong_as_double(0x7ff8000000000000ll);
  if (sums.values) atomicAdd(&sums.values[origin].x, nan);
  if (sums.weights) atomicAdd(&sums.weights[origin], nan);
}

/// Adds one sample's taps with atomics.
template <int W>
__device__ void add_taps(const Window& window, const math::GridShape& grid, const math::SlicePoint& point,
                         const Sample& sample, const InsertSums& sums) {
  const auto fz = math::footprint<W>(point.z), fy = math::footprint<W>(point.y),
             fx = math::footprint<W>(point.x);
  float wx[W];
  taps<W>(window, fx.t, wx);
  const double re = sample.value.x, im = point.mate ? -sample.value.y : sample.value.y;
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const std::size_t corner = fz.first * plane + fy.first * row + fx.first;
#pragma unroll 1
  for (int z = 0; z < W; ++z) {
    const double wz = tap<W>(window, z, fz.t);  // not an array: indexed by a variable it would live in memory
#pragma unroll 1
    for (int y = 0; y < W; ++y) {
      const double w = wz * tap<W>(window, y, fy.t);
      const std::size_t at = corner + z * plane + y * row;
#pragma unroll
      for (int x = 0; x < W; ++x) {
        if (sums.values) {
          atomicAdd(&sums.values[at + x].x, w * (re * wx[x]));
          atomicAdd(&sums.values[at + x].y, w * (im * wx[x]));
        }
        if (sums.weights) atomicAdd(&sums.weights[at + x], w * (static_cast<double>(sample.weight) * wx[x]));
      }
    }
  }
}

/// Bricks of 8 x 8 x 4 grid points, a thread each.
constexpr int kBrickX = 8, kBrickY = 8, kBrickZ = 4, kBrick = kBrickX * kBrickY * kBrickZ;
constexpr double kBrickRadius = 5.2;  // half the diagonal between outermost points, rounded up

inline dim3 brick_grid(const math::GridShape& grid) {
  const auto along = [](int n, int brick) { return static_cast<unsigned>((n + brick - 1) / brick); };
  return dim3(along(grid.columns, kBrickX), along(grid.rows(), kBrickY), along(grid.rows(), kBrickZ));
}

/// The thread's grid point: array index, and coordinates from the origin.
struct GridPoint {
  int ix, iy, iz;
  double x, y, z;
  bool inside;
  std::size_t at;
};

__device__ inline GridPoint grid_point(const math::GridShape& grid) {
  const int t = static_cast<int>(threadIdx.x);
  GridPoint p;
  p.ix = static_cast<int>(blockIdx.x) * kBrickX + t % kBrickX;
  p.iy = static_cast<int>(blockIdx.y) * kBrickY + t / kBrickX % kBrickY;
  p.iz = static_cast<int>(blockIdx.z) * kBrickZ + t / (kBrickX * kBrickY);
  p.x = p.ix - grid.halo;
  p.y = p.iy - grid.extent;
  p.z = p.iz - grid.extent;
  p.inside = p.ix < grid.columns && p.iy < grid.rows() && p.iz < grid.rows();
  p.at = (static_cast<std::size_t>(p.iz) * grid.rows() + p.iy) * grid.columns + p.ix;
  return p;
}

/// The slice of one image as a grid point sees it: where the point's foot lies in the image, and how far from
/// it, in Fourier pixels, samples can reach the point.
struct Foot {
  double u, v, reach;
};

/// False where no sample of the slice reaches the point: it is farther than the window's corner from the plane.
template <int W>
__device__ bool foot_of(const GridPoint& p, const double* a, double scale, Foot& foot) {
  const double d = a[6] * p.x + a[7] * p.y + a[8] * p.z;
  const double rest = 0.75 * W * W - d * d;
  if (!(rest > 0.0)) return false;
  foot.u = (a[0] * p.x + a[1] * p.y + a[2] * p.z) / scale;
  foot.v = (a[3] * p.x + a[4] * p.y + a[5] * p.z) / scale;
  foot.reach = std::sqrt(rest) / scale + 1e-6;
  return true;
}

/// The same for a curved slice: from the most that it may stand off its plane near the foot.
template <int W>
__device__ bool curved_foot_of(const GridPoint& p, const double* a, double scale, double curvature,
                               Foot& foot) {
  foot.u = (a[0] * p.x + a[1] * p.y + a[2] * p.z) / scale;
  foot.v = (a[3] * p.x + a[4] * p.y + a[5] * p.z) / scale;
  const double farthest = std::sqrt(foot.u * foot.u + foot.v * foot.v) + 0.8660254038 * W / scale;
  const double off = std::fabs(a[6] * p.x + a[7] * p.y + a[8] * p.z);
  const double d = std::fmax(0.0, off - std::fabs(curvature) * scale * farthest * farthest);
  const double rest = 0.75 * W * W - d * d;
  if (!(rest > 0.0)) return false;
  foot.reach = std::sqrt(rest) / scale + 1e-6;
  return true;
}

struct PointSums {
  double re, im, weight;
};

/// Adds what a sample at `point` gives the grid point, if its taps reach it.
template <int W>
__device__ void add_tap(const Window& window, const GridPoint& p, const math::SlicePoint& point,
                        const Sample& sample, PointSums& sums) {
  const auto fx = math::footprint<W>(point.x), fy = math::footprint<W>(point.y),
             fz = math::footprint<W>(point.z);
  const int jx = p.ix - fx.first, jy = p.iy - fy.first, jz = p.iz - fz.first;
  if (jx < 0 || jx >= W || jy < 0 || jy >= W || jz < 0 || jz >= W) return;
  const double w = static_cast<double>(tap<W>(window, jz, fz.t)) * tap<W>(window, jy, fy.t);
  const double wx = tap<W>(window, jx, fx.t);
  sums.re += w * (sample.value.x * wx);
  sums.im += w * ((point.mate ? -sample.value.y : sample.value.y) * wx);
  sums.weight += w * (sample.weight * wx);
}

/// Calls visit(i) for the slices, in order, whose surface comes near the thread's brick; every thread of the
/// block must come, and all visit together.
template <int W, class Slices, class Visit>
__device__ void for_slices_near(const math::GridShape& grid, const double* matrices, std::size_t n,
                                const Slices& slices, Visit visit) {
  __shared__ int hits[kBrick], hits_of_warp[kBrick / 32];
  const int t = static_cast<int>(threadIdx.x);
  const double x = static_cast<int>(blockIdx.x) * kBrickX - grid.halo + 0.5 * (kBrickX - 1),
               y = static_cast<int>(blockIdx.y) * kBrickY - grid.extent + 0.5 * (kBrickY - 1),
               z = static_cast<int>(blockIdx.z) * kBrickZ - grid.extent + 0.5 * (kBrickZ - 1);
  const double near = kBrickRadius + 0.8660254038 * W;
  for (std::size_t first = 0; first < n; first += kBrick) {
    bool hit = false;
    if (first + t < n) {
      const double* a = matrices + 9 * (first + t);
      double reach = near;
      if constexpr (Slices::kCurved) reach += slices.sag(grid, first + t);
      hit = std::fabs(a[6] * x + a[7] * y + a[8] * z) <= reach && math::is_rotation(a);
    }
    const unsigned votes = __ballot_sync(0xffffffffu, hit);
    if (t % 32 == 0) hits_of_warp[t / 32] = __popc(votes);
    __syncthreads();
    int before = __popc(votes & ((1u << t % 32) - 1u)), count = 0;
    for (int w = 0; w < kBrick / 32; ++w) {
      if (w < t / 32) before += hits_of_warp[w];
      count += hits_of_warp[w];
    }
    if (hit) hits[before] = t;
    __syncthreads();
    for (int h = 0; h < count; ++h) visit(first + hits[h]);
    __syncthreads();
  }
}

/// The thread's point of the sums, taken out of memory and put back.
__device__ inline PointSums load_point(const InsertSums& sums, const GridPoint& p) {
  PointSums s{0.0, 0.0, 0.0};
  if (p.inside && sums.values) s.re = sums.values[p.at].x, s.im = sums.values[p.at].y;
  if (p.inside && sums.weights) s.weight = sums.weights[p.at];
  return s;
}
__device__ inline void store_point(const InsertSums& sums, const GridPoint& p, const PointSums& s) {
  if (p.inside && sums.values) sums.values[p.at] = make_double2(s.re, s.im);
  if (p.inside && sums.weights) sums.weights[p.at] = s.weight;
}

/// The sums, bitwise repeatable for any batches: one thread per grid point looks through the slices, in
/// order, for the samples whose taps reach it. No atomics, one read and one write of the sums.
///   Slices   n(), matrices() (n, 9), and add<W>(window, grid, p, i, sums): what slice i gives grid point p; where
///            kCurved, sag(grid, i): how far it stands off its plane at most, grid steps
template <int W, class Slices>
__global__ void __launch_bounds__(kBrick)
    ordered_kernel(const __grid_constant__ Window window, math::GridShape grid, Slices slices,
                   InsertSums sums) {
  const GridPoint p = grid_point(grid);
  PointSums own = load_point(sums, p);
  for_slices_near<W>(grid, slices.matrices(), slices.n(), slices, [&](std::size_t i) {
    if (p.inside) slices.template add<W>(window, grid, p, i, own);
  });
  store_point(sums, p, own);
}

template <class Slices>
void launch_ordered(const math::GridShape& grid, const math::WindowTable& window, const Slices& slices,
                    const InsertSums& sums, Stream stream) {
  with_width(window.width, [&](auto width) {
    launch(ordered_kernel<decltype(width)::value, Slices>, {brick_grid(grid), kBrick, 0, stream},
           window_of(window), grid, slices, sums);
  });
}

}  // namespace verglas::cuda

#endif
