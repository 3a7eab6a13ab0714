#include <limits>

#include "cuda/insert.h"
#include "cuda/insert_points.h"

namespace verglas::cuda {
namespace {

/// The pixel (kx, ky) of image i, weighted. Every Fourier pixel is read once: on the column kx = 0 only ky >=
/// 0, because (0, ky) and (0, -ky) are mates; the origin, its own mate, counts half.
__device__ Sample read_pixel(const math::GridShape& grid, const InsertInput& in, std::size_t i,
                             std::size_t at, int kx, int ky) {
  float weight = kx == 0 && ky == 0 ? 0.5f : 1.0f;
  if (in.shell_weight) weight *= in.shell_weight[i * (in.max_radius + 1) + math::shell_of(kx, ky)];
  const float c = in.ctf ? in.ctf[at] : 1.0f;
  Sample sample{make_float2(0.0f, 0.0f), c * c * weight};
  if (in.images) {
    float2 x = in.images[at];
    if (in.shifts_px) {  // the adjoint moves the particle back to the centre
      const double dx = in.shifts_px[2 * i], dy = in.shifts_px[2 * i + 1];
      x = multiply(x, phase_of((kx * dx + ky * dy) / grid.box));
    }
    sample.value = make_float2(x.x * (c * weight), x.y * (c * weight));
  }
  return sample;
}

__device__ bool is_inserted(const math::GridShape& grid, int kx, int ky, int max_radius) {
  return kx <= (grid.box - 1) / 2 && (kx > 0 || ky >= 0) && math::in_disc(kx, ky, max_radius);
}

/// `point_of(axes, kx, ky)` is where a pixel of the slice lies: planes have a kernel of their own, for the curved slice's
/// height costs registers.
template <int W, class PointOf>
__device__ void insert_pixel(const Window& window, const math::GridShape& grid, const InsertInput& in,
                             const InsertSums& sums, PointOf point_of) {
  const std::size_t image = blockIdx.x;
  __shared__ math::SliceAxes axes;
  __shared__ bool good;
  if (threadIdx.x == 0) {
    axes = math::slice_axes(in.matrices + 9 * image, grid);
    good = math::is_rotation(in.matrices + 9 * image);
    if (!good && blockIdx.y == 0) spoil(grid, sums);
  }
  __syncthreads();
  const int half = grid.box / 2 + 1;
  const TilePixel pixel = tile_pixel(blockIdx.y, tiles_along(half));
  if (!good || pixel.x >= half || pixel.y >= grid.box) return;
  const int kx = pixel.x, ky = math::frequency(pixel.y, grid.box);
  if (!is_inserted(grid, kx, ky, in.max_radius)) return;
  const std::size_t at = (image * grid.box + pixel.y) * half + pixel.x;
  const Sample sample = read_pixel(grid, in, image, at, kx, ky);
  add_taps<W>(window, grid, point_of(axes, kx, ky), sample, sums);
}

template <int W>
__global__ void __launch_bounds__(kTileThreads)
    insert_kernel(const __grid_constant__ Window window, math::GridShape grid, InsertInput in,
                  InsertSums sums) {
  insert_pixel<W>(window, grid, in, sums, [&](const math::SliceAxes& axes, int kx, int ky) {
    return math::slice_point(axes, grid, kx, ky);
  });
}

template <int W>
__global__ void __launch_bounds__(kTileThreads)
    curved_insert_kernel(const __grid_constant__ Window window, math::GridShape grid, InsertInput in,
                         InsertSums sums) {
  insert_pixel<W>(window, grid, in, sums, [&](const math::SliceAxes& axes, int kx, int ky) {
    return math::curved_point(axes, grid, kx, ky, in.curvature[blockIdx.x]);
  });
}

/// Weighted pixels, so that the search does not weight one once per tap.
__global__ void __launch_bounds__(kTileThreads)
    prepare_kernel(math::GridShape grid, InsertInput in, InsertScratch scratch, InsertSums sums) {
  const std::size_t image = blockIdx.x;
  if (threadIdx.x == 0 && blockIdx.y == 0 && !math::is_rotation(in.matrices + 9 * image)) spoil(grid, sums);
  const int half = grid.box / 2 + 1;
  const TilePixel pixel = tile_pixel(blockIdx.y, tiles_along(half));
  if (pixel.x >= half || pixel.y >= grid.box) return;
  const int kx = pixel.x, ky = math::frequency(pixel.y, grid.box);
  if (!is_inserted(grid, kx, ky, in.max_radius)) return;
  const std::size_t at = (image * grid.box + pixel.y) * half + pixel.x;
  const Sample sample = read_pixel(grid, in, image, at, kx, ky);
  scratch.values[at] = sample.value;
  scratch.weights[at] = sample.weight;
}

/// What the pixels near the point's foot give it: directly (sign 1), and by way of Friedel's mates (sign -1).
template <int W, class PointOf>
__device__ void add_near(const Window& window, const math::GridShape& grid, const GridPoint& p,
                         const Foot& foot, const InsertInput& in, const InsertScratch& scratch,
                         std::size_t image, PointSums& sums, PointOf point_of) {
  const int half = grid.box / 2 + 1;
  const auto axes = math::slice_axes(in.matrices + 9 * image, grid);
  for (int sign = 1; sign >= -1; sign -= 2) {
    const double u = sign * foot.u, v = sign * foot.v;
    const int ky_end = min(in.max_radius, static_cast<int>(std::floor(v + foot.reach)));
    for (int ky = max(-in.max_radius, static_cast<int>(std::ceil(v - foot.reach))); ky <= ky_end; ++ky) {
      const int kx_end = min((grid.box - 1) / 2, static_cast<int>(std::floor(u + foot.reach)));
      for (int kx = max(ky < 0 ? 1 : 0, static_cast<int>(std::ceil(u - foot.reach))); kx <= kx_end; ++kx) {
        if (!math::in_disc(kx, ky, in.max_radius)) continue;
        const auto point = point_of(axes, kx, ky);
        if (point.mate != (sign < 0)) continue;
        const std::size_t at = (image * grid.box + (ky < 0 ? ky + grid.box : ky)) * half + kx;
        add_tap<W>(window, p, point, {scratch.values[at], scratch.weights[at]}, sums);
      }
    }
  }
}

/// Slices of Cartesian pixels, weighted, for the ordered sums.
struct ImageSlices {
  static constexpr bool kCurved = false;
  InsertInput in;
  InsertScratch scratch;

  __device__ std::size_t n() const { return in.n; }
  __device__ const double* matrices() const { return in.matrices; }

  template <int W>
  __device__ void add(const Window& window, const math::GridShape& grid, const GridPoint& p,
                      std::size_t image, PointSums& sums) const {
    Foot foot;
    if (!foot_of<W>(p, in.matrices + 9 * image, static_cast<double>(grid.padded) / grid.box, foot)) return;
    add_near<W>(
        window, grid, p, foot, in, scratch, image, sums,
        [&](const math::SliceAxes& axes, int kx, int ky) { return math::slice_point(axes, grid, kx, ky); });
  }
};

/// The same on paraboloids.
struct CurvedSlices {
  static constexpr bool kCurved = true;
  InsertInput in;
  InsertScratch scratch;

  __device__ std::size_t n() const { return in.n; }
  __device__ const double* matrices() const { return in.matrices; }
  __device__ double sag(const math::GridShape& grid, std::size_t i) const {
    const double radius = in.max_radius + 0.5;
    return std::fabs(in.curvature[i]) * radius * radius * grid.padded / grid.box;
  }

  template <int W>
  __device__ void add(const Window& window, const math::GridShape& grid, const GridPoint& p,
                      std::size_t image, PointSums& sums) const {
    const double curvature = in.curvature[image];
    Foot foot;
    if (!curved_foot_of<W>(p, in.matrices + 9 * image, static_cast<double>(grid.padded) / grid.box, curvature,
                           foot))
      return;
    add_near<W>(window, grid, p, foot, in, scratch, image, sums,
                [&](const math::SliceAxes& axes, int kx, int ky) {
                  return math::curved_point(axes, grid, kx, ky, curvature);
                });
  }
};

__device__ double2 conjugate(double2 v) { return make_double2(v.x, -v.y); }
__device__ double conjugate(double v) { return v; }
__device__ double2 add(double2 a, double2 b) { return make_double2(a.x + b.x, a.y + b.y); }
__device__ double add(double a, double b) { return a + b; }
__device__ double2 zero(double2) { return make_double2(0.0, 0.0); }
__device__ double zero(double) { return 0.0; }

constexpr int kRowThreads = 128;

template <class T>
__global__ void __launch_bounds__(kRowThreads) fold_kernel(math::GridShape grid, T* array) {
  const int n = grid.rows(), halo = grid.halo;
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  const std::size_t lines = static_cast<std::size_t>(n) * n;
  if (i >= lines) return;
  T* here = array + i * grid.columns + halo;
  T* mate = array + (lines - 1 - i) * grid.columns + halo;  // the line (n - 1 - z, n - 1 - y)
  for (int x = 1; x <= halo; ++x) here[x] = add(here[x], conjugate(mate[-x]));
  if (here > mate) return;
  const T a = *here, b = *mate;  // x = 0 holds both members of a pair: each receives the other's conjugate
  *here = add(a, conjugate(b));
  *mate = add(b, conjugate(a));
}

/// The halo is now counted on its mates.
template <class T>
__global__ void __launch_bounds__(kRowThreads) clear_halo_kernel(math::GridShape grid, T* array) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (i >= static_cast<std::size_t>(grid.rows()) * grid.rows()) return;
  for (int x = 0; x < grid.halo; ++x) array[i * grid.columns + x] = zero(T());
}

template <class T>
__global__ void __launch_bounds__(kRowThreads)
    symmetrise_kernel(math::GridShape grid, const T* __restrict__ in, const int* __restrict__ matrices, int n,
                      T* __restrict__ out) {
  const int column = static_cast<int>(blockIdx.x * kRowThreads + threadIdx.x);
  if (column >= grid.columns) return;
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const int q[3] = {column - grid.halo, static_cast<int>(blockIdx.y) - grid.extent,
                    static_cast<int>(blockIdx.z) - grid.extent};
  T sum = zero(T());
  for (int i = 0; i < n && q[0] >= 0 && q[0] <= grid.extent; ++i) {
    const int* h = matrices + 9 * i;
    int p[3];
    for (int a = 0; a < 3; ++a) p[a] = h[3 * a] * q[0] + h[3 * a + 1] * q[1] + h[3 * a + 2] * q[2];
    const int sign = p[0] < 0 ? -1 : 1;
    const T value =
        in[(sign * p[2] + grid.extent) * plane + (sign * p[1] + grid.extent) * row + sign * p[0] + grid.halo];
    sum = add(sum, sign < 0 ? conjugate(value) : value);
  }
  out[blockIdx.z * plane + blockIdx.y * row + column] = sum;
}

void check_batch(std::size_t n) {
  if (n > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("matrices: more than 2^31 - 1 images in one call; split the batch");
}

dim3 pixel_blocks(const math::GridShape& grid, std::size_t n) {
  return dim3(static_cast<unsigned>(n), tiles_along(grid.box / 2 + 1) * tiles_along(grid.box));
}

template <class T>
void fold_array(const math::GridShape& grid, T* array, Stream stream) {
  if (!array) return;
  const std::size_t lines = static_cast<std::size_t>(grid.rows()) * grid.rows();
  const dim3 blocks(static_cast<unsigned>((lines + kRowThreads - 1) / kRowThreads));
  launch(fold_kernel<T>, {blocks, kRowThreads, 0, stream}, grid, array);
  launch(clear_halo_kernel<T>, {blocks, kRowThreads, 0, stream}, grid, array);
}

template <class T>
void symmetrise_array(const math::GridShape& grid, const T* in, const int* matrices, int n, T* out,
                      Stream stream) {
  if (!in) return;
  const dim3 blocks(static_cast<unsigned>((grid.columns + kRowThreads - 1) / kRowThreads),
                    static_cast<unsigned>(grid.rows()), static_cast<unsigned>(grid.rows()));
  launch(symmetrise_kernel<T>, {blocks, kRowThreads, 0, stream}, grid, in, matrices, n, out);
}

}  // namespace

void insert(const math::GridShape& grid, const math::WindowTable& window, const InsertInput& input,
            const InsertSums& sums, Stream stream) {
  if (input.n == 0 || (!sums.values && !sums.weights)) return;
  check_batch(input.n);
  with_width(window.width, [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch(input.curvature ? curved_insert_kernel<kWidth> : insert_kernel<kWidth>,
           {pixel_blocks(grid, input.n), kTileThreads, 0, stream}, window_of(window), grid, input, sums);
  });
}

void insert_ordered(const math::GridShape& grid, const math::WindowTable& window, const InsertInput& input,
                    const InsertScratch& scratch, const InsertSums& sums, Stream stream) {
  if (input.n == 0 || (!sums.values && !sums.weights)) return;
  check_batch(input.n);
  launch(prepare_kernel, {pixel_blocks(grid, input.n), kTileThreads, 0, stream}, grid, input, scratch, sums);
  if (input.curvature)
    launch_ordered(grid, window, CurvedSlices{input, scratch}, sums, stream);
  else
    launch_ordered(grid, window, ImageSlices{input, scratch}, sums, stream);
}

void fold_friedel(const math::GridShape& grid, const InsertSums& sums, Stream stream) {
  fold_array(grid, sums.values, stream);
  fold_array(grid, sums.weights, stream);
}

void symmetrise(const math::GridShape& grid, const InsertSums& in, const int* matrices, int n,
                const InsertSums& out, Stream stream) {
  symmetrise_array(grid, static_cast<const double2*>(in.values), matrices, n, out.values, stream);
  symmetrise_array(grid, static_cast<const double*>(in.weights), matrices, n, out.weights, stream);
}

}  // namespace verglas::cuda
