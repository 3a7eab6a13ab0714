#include "ops/project.h"

#include <algorithm>
#include <vector>

#include "ops/value_gather.h"

namespace verglas::cpu {
namespace {

constexpr int kPatchColumns = 16, kPatchRows = 4;

/// The pixels of a half transform that are computed, patch by patch: neighbours read the same part of the map, which
/// stays in the first-level cache meanwhile.
struct Pixels {
  std::vector<float> kx, ky;
  std::vector<int> column, row;

  Pixels(int box, int max_radius) {
    const int lowest = -(box / 2), end = (box + 1) / 2;
    for (int top = lowest; top < end; top += kPatchRows) {
      for (int left = 0; left <= box / 2; left += kPatchColumns) {
        for (int k = top; k < std::min(top + kPatchRows, end); ++k) {
          const int last = std::min(last_column(k, max_radius, box), left + kPatchColumns - 1);
          for (int c = left; c <= last; ++c) {
            kx.push_back(static_cast<float>(c));
            ky.push_back(static_cast<float>(k));
            column.push_back(c);
            row.push_back(k < 0 ? k + box : k);
          }
        }
      }
    }
  }
};

template <int W>
void project_image(ValueGather<W>& gather, const Pixels& pixels, const math::GridShape& grid,
                   const double* matrix, const ShiftPhases& phases, const float* ctf, double curvature,
                   Complex* image) {
  const std::size_t half = grid.box / 2 + 1;
  const auto axes = math::slice_axes(matrix, grid);
  std::fill(image, image + grid.box * half, Complex(0));
  Complex values[ValueGather<W>::kPixels];
  for (std::size_t begin = 0; begin < pixels.kx.size(); begin += ValueGather<W>::kPixels) {
    const int n = static_cast<int>(std::min<std::size_t>(ValueGather<W>::kPixels, pixels.kx.size() - begin));
    gather.run(axes, curvature, pixels.kx.data() + begin, pixels.ky.data() + begin, n, values);
    for (int i = 0; i < n; ++i) {
      const int kx = pixels.column[begin + i], row = pixels.row[begin + i];
      const std::size_t at = row * half + kx;
      Complex value = values[i];
      if (!phases.identity()) value = ShiftPhases::multiply(value, phases.at(kx, row));
      image[at] = ctf ? value * ctf[at] : value;
    }
  }
}

template <int W>
void project_all(const math::GridShape& grid, const WindowTable& table, const Complex* spectrum,
                 const double* matrices, std::size_t n, const SliceOptions& options, Complex* images,
                 int num_threads) {
  const Pixels pixels(grid.box, options.max_radius);
  const std::size_t image_size = static_cast<std::size_t>(grid.box) * (grid.box / 2 + 1);
#pragma omp parallel num_threads(num_threads)
  {
    ShiftPhases phases(grid.box);
    ValueGather<W> gather(table, grid, spectrum);
#pragma omp for schedule(dynamic, 4)
    for (std::size_t i = 0; i < n; ++i) {
      phases.set(options.shifts_px ? options.shifts_px + 2 * i : nullptr);
      project_image<W>(gather, pixels, grid, matrices + 9 * i, phases,
                       options.ctf ? options.ctf + i * image_size : nullptr,
                       options.curvature ? options.curvature[i] : 0.0, images + i * image_size);
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
