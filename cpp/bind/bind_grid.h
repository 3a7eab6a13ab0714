// The grid as Python hands it over, checked once for project and insert, on the CPU and on CUDA.
#pragma once
#include "bind/arrays.h"
#include "math/rotation.h"
#include "math/slice.h"
#include "math/window.h"

namespace verglas::bind {

/// Mirrors math::GridShape and math::WindowTable; holds the table of window polynomials alive.
struct GridArguments {
  GridArguments(int box, int padded, int extent, int halo, int columns, py::array_t<float> window)
      : shape{box, padded, extent, halo, columns}, table(std::move(window)) {
    const auto w = input<float>(table, "window", {kAny, kAny});
    const auto width = w.shape[1];
    if (width != 2 && width != 4 && width != 6 && width != 8)
      throw std::invalid_argument("window: expected 2, 4, 6 or 8 taps, got " + std::to_string(width));
    if (w.shape[0] < 1 || w.shape[0] > math::kMaxDegree + 1)
      throw std::invalid_argument("window: expected 1 to " + std::to_string(math::kMaxDegree + 1) +
                                  " coefficients per tap, got " + std::to_string(w.shape[0]));
    const int lanes = width == 6 ? 8 : static_cast<int>(width);
    if (box < 1 || padded < box || extent < 1 || halo < static_cast<int>(width) / 2 ||
        columns < halo + 1 + extent + lanes)
      throw std::invalid_argument("grid: inconsistent geometry (make it with verglas.ops.grid)");
  }
  math::GridShape shape;
  py::array_t<float> table;
};

inline math::GridShape grid_shape(const GridArguments& g) { return g.shape; }

inline math::WindowTable window_table(const GridArguments& g) {
  return {static_cast<int>(g.table.shape(1)), static_cast<int>(g.table.shape(0)) - 1, g.table.data()};
}

/// The largest radius whose taps stay inside the grid.
inline int checked_radius(const math::GridShape& grid, int max_radius, int width) {
  const double reach = (max_radius + 0.5) * grid.padded / grid.box + width / 2 + 1;
  if (max_radius < 0 || max_radius > (grid.box - 1) / 2 || reach > grid.extent + 1)
    throw std::invalid_argument("max_radius: expected 0 to what the grid was made for, got " +
                                std::to_string(max_radius));
  return max_radius;
}

/// Curvatures of slices (n), finite, none so strong that a slice of this radius leaves the grid.
inline const double* checked_curvatures(const math::GridShape& grid, const double* curvature, std::size_t n,
                                        int max_radius, int width) {
  const double radius = max_radius + 0.5, scale = static_cast<double>(grid.padded) / grid.box;
  for (std::size_t i = 0; i < n; ++i) {
    const double sag = curvature[i] * radius;
    if (!(radius * scale * std::sqrt(1.0 + sag * sag) + width / 2 < grid.extent + 1))
      throw std::invalid_argument("curvature: slice " + std::to_string(i) + " leaves the grid with " +
                                  std::to_string(curvature[i]) + " per Fourier pixel at max_radius " +
                                  std::to_string(max_radius));
  }
  return curvature;
}

/// Radii that rise from 1 on, none beyond what the grid was made for.
inline View<const std::int32_t> rising_radii(const math::GridShape& grid, const py::handle& object,
                                             int width) {
  auto radii = input<std::int32_t>(object, "radii", {kAny});
  if (radii.shape[0] < 1) throw std::invalid_argument("radii: expected at least one");
  for (std::size_t r = 0; r < radii.shape[0]; ++r) {
    checked_radius(grid, radii.data[r], width);
    if (radii.data[r] < 1 || (r > 0 && radii.data[r] <= radii.data[r - 1]))
      throw std::invalid_argument("radii: expected ascending values from 1 on, got " +
                                  std::to_string(radii.data[r]));
  }
  return radii;
}

inline int checked_steps(int steps) {
  if (steps < 0) throw std::invalid_argument("steps: expected 0 or more, got " + std::to_string(steps));
  return steps;
}

/// Anything but a rotation, NaN included, would point outside the grid.
inline void check_rotation(const double* a, const char* name, std::size_t number) {
  if (!math::is_rotation(a))
    throw std::invalid_argument(
        std::string(name) + ": matrix " + std::to_string(number) +
        " is not a rotation (its rows are not orthonormal and right-handed, or not finite)");
}

/// Rotation matrices (n, 3, 3), checked.
inline View<const double> rotations(const py::handle& object, const char* name, py::ssize_t n = kAny) {
  const auto m = input<double>(object, name, {n, 3, 3});
  for (std::size_t i = 0; i < m.shape[0]; ++i) check_rotation(m.data + 9 * i, name, i);
  return m;
}

}  // namespace verglas::bind
