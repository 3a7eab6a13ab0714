#include "ops/project.h"

#include <algorithm>

namespace verglas::cpu {
namespace {

template <int W>
void project_image(const Window<W>& window, const math::GridShape& grid, const Complex* spectrum,
                   const double* matrix, const ShiftPhases& phases, const float* ctf, double curvature,
                   int max_radius, Complex* image) {
  const int box = grid.box, half = box / 2 + 1;
  const auto axes = math::slice_axes(matrix, grid);
  std::fill(image, image + static_cast<std::size_t>(box) * half, Complex(0));
  for (int row = 0; row < box; ++row) {
    const int ky = math::frequency(row, box);
    Complex* out = image + static_cast<std::size_t>(row) * half;
    const float* factor = ctf ? ctf + static_cast<std::size_t>(row) * half : nullptr;
    const int last = last_column(ky, max_radius, box);
    for (int kx = 0; kx <= last; ++kx) {
      Complex value = gather<W>(window, grid, spectrum, math::curved_point(axes, grid, kx, ky, curvature));
      if (!phases.identity()) value = ShiftPhases::multiply(value, phases.at(kx, row));
      out[kx] = factor ? value * factor[kx] : value;
    }
  }
}

template <int W>
void project_all(const math::GridShape& grid, const WindowTable& table, const Complex* spectrum,
                 const double* matrices, std::size_t n, const SliceOptions& options, Complex* images,
                 int num_threads) {
  const Window<W> window(table);
  const std::size_t image_size = static_cast<std::size_t>(grid.box) * (grid.box / 2 + 1);
#pragma omp parallel num_threads(num_threads)
  {
    ShiftPhases phases(grid.box);
#pragma omp for schedule(dynamic, 4)
    for (std::size_t i = 0; i < n; ++i) {
      phases.set(options.shifts_px ? options.shifts_px + 2 * i : nullptr);
      project_image<W>(window, grid, spectrum, matrices + 9 * i, phases,
                       options.ctf ? options.ctf + i * image_size : nullptr,
                       options.curvature ? options.curvature[i] : 0.0, options.max_radius,
                       images + i * image_size);
    }
  }
}

}  // namespace

void project(const math::GridShape& grid, const WindowTable& window, const Complex* spectrum,
             const double* matrices, std::size_t n, const SliceOptions& options, Complex* images,
             int num_threads) {
  math::with_width(window.width, [&](auto width) {
    project_all<decltype(width)::value>(grid, window, spectrum, matrices, n, options, images, num_threads);
  });
}

}  // namespace verglas::cpu
