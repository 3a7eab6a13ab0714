#include "ops/rotate.h"

#include <algorithm>

namespace verglas::cpu {
namespace {

template <int W>
void rotate_all(const math::GridShape& grid, const WindowTable& table, const Complex* spectrum,
                const double* matrix, int max_radius, Complex* rotated, int num_threads) {
  const Window<W> window(table);
  const int box = grid.box, half = box / 2 + 1;
  const auto axes = math::slice_axes(matrix, grid);
  const double limit = (max_radius + 0.5) * (max_radius + 0.5);
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 1)
  for (int plane = 0; plane < box; ++plane) {
    const double kz = math::frequency(plane, box);
    for (int row = 0; row < box; ++row) {
      const double ky = math::frequency(row, box);
      Complex* out = rotated + (static_cast<std::size_t>(plane) * box + row) * half;
      std::fill_n(out, half, Complex(0));
      for (int kx = 0; kx <= (box - 1) / 2 && kx * kx + ky * ky + kz * kz < limit; ++kx)
        out[kx] = gather<W>(window, grid, spectrum, math::space_point(axes, grid, kx, ky, kz));
    }
  }
}

}  // namespace

void rotate(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
            const double* matrix, int max_radius, Complex* rotated, int num_threads) {
  math::with_width(window.width, [&](auto width) {
    rotate_all<decltype(width)::value>(grid, window, spectrum, matrix, max_radius, rotated, num_threads);
  });
}

}  // namespace verglas::cpu
