#include "ops/grid.h"
#include "ops/polar.h"

namespace verglas::cpu {
namespace {

template <int W>
void slice_all(const math::GridShape& volume, const WindowTable& table, const cfloat* spectrum,
               const double* matrices, std::size_t n, const PolarGrid& grid, cfloat* samples,
               int num_threads) {
  const Window<W> window(table);
  const int half = grid.half();
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 4)
  for (std::size_t i = 0; i < n; ++i) {
    const auto axes = math::slice_axes(matrices + 9 * i, volume);
    cfloat* out = samples + i * grid.n_rings * half;
    for (int j = 0; j < grid.n_rings; ++j) {
      const double r = grid.radii[j];
      for (int t = 0; t < half; ++t) {
        const auto point = math::slice_point(axes, volume, r * grid.cos_theta[t], r * grid.sin_theta[t]);
        *out++ = gather<W>(window, volume, spectrum, point);
      }
    }
  }
}

}  // namespace

void polar_slices(const math::GridShape& volume, const WindowTable& window, const cfloat* spectrum,
                  const double* matrices, std::size_t n, const PolarGrid& grid, cfloat* samples,
                  int num_threads) {
  math::with_width(window.width, [&](auto width) {
    slice_all<decltype(width)::value>(volume, window, spectrum, matrices, n, grid, samples, num_threads);
  });
}

}  // namespace verglas::cpu
