#include "cuda/shell_dot.h"
#include "math/slice.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLines = 8;  // rows of the image between two barriers

/// The least kx >= 0 with kx^2 >= n.
__device__ int root_above(long long n) {
  if (n <= 0) return 0;
  int k = static_cast<int>(std::sqrt(static_cast<double>(n)));
  while (static_cast<long long>(k) * k >= n) --k;
  while (static_cast<long long>(k) * k < n) ++k;
  return k;
}

/// Dynamic shared memory: kLines (max_radius + 1) products, max_radius + 1 sums.
__global__ void __launch_bounds__(kThreads)
    shell_dot_kernel(const float2* __restrict__ a, const float2* __restrict__ b,
                     const std::int64_t* __restrict__ b_of_a, std::size_t m, int box, int max_radius,
                     double* __restrict__ out) {
  VG_DYNAMIC_SHARED(double, products);
  const int columns = max_radius + 1, t = static_cast<int>(threadIdx.x);
  double* sums = products + kLines * columns;
  const std::size_t image = blockIdx.x, half = box / 2 + 1, pixels = box * half;
  const std::int64_t other = b_of_a ? b_of_a[image] : static_cast<std::int64_t>(image);
  if (other < 0 || other >= static_cast<std::int64_t>(m)) {
    for (int s = t; s < columns; s += kThreads)
      out[image * columns + s] = __longlong_as_double(0x7ff8000000000000ll);
    return;
  }
  const float2 *x = a + image * pixels, *y = b + static_cast<std::size_t>(other) * pixels;
  for (int s = t; s < columns; s += kThreads) sums[s] = 0.0;
  for (int first = -max_radius; first <= max_radius; first += kLines) {
    const int lines = min(kLines, max_radius - first + 1);
    __syncthreads();
    for (int i = t; i < lines * columns; i += kThreads) {
      const int ky = first + i / columns, kx = i % columns;
      const std::size_t at = static_cast<std::size_t>(ky < 0 ? ky + box : ky) * half + kx;
      const float2 p = x[at], q = y[at];
      const double product = static_cast<double>(p.x) * q.x + static_cast<double>(p.y) * q.y;
      products[i] = kx == 0 ? product : 2.0 * product;  // the mates of kx = 0 are in the array themselves
    }
    __syncthreads();
    // Shell s holds s^2 - s < k^2 <= s^2 + s: on each row a run of columns.
    for (int s = t; s < columns; s += kThreads) {
      const long long below = static_cast<long long>(s) * s - s, above = static_cast<long long>(s) * s + s;
      double sum = sums[s];
      for (int line = 0; line < lines; ++line) {
        const long long ky2 = static_cast<long long>(first + line) * (first + line);
        const int begin = s == 0 ? (ky2 == 0 ? 0 : columns) : root_above(below + 1 - ky2);
        const int end = min(columns, root_above(above + 1 - ky2));
        for (int kx = begin; kx < end; ++kx) sum += products[line * columns + kx];
      }
      sums[s] = sum;
    }
  }
  __syncthreads();
  for (int s = t; s < columns; s += kThreads) out[image * columns + s] = sums[s];
}

}  // namespace

void shell_dot(const float2* a, const float2* b, const std::int64_t* b_of_a, std::size_t n, std::size_t m,
               int box, int max_radius, double* out, Stream stream) {
  if (n == 0) return;
  const std::size_t shared = static_cast<std::size_t>(kLines + 1) * (max_radius + 1) * sizeof(double);
  launch(shell_dot_kernel, {dim3(static_cast<unsigned>(n)), kThreads, shared, stream}, a, b, b_of_a, m, box,
         max_radius, out);
}

}  // namespace verglas::cuda
