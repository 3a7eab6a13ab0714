// What is a peak of a map, and where its top lies between pixels.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "math/macros.h"

namespace verglas::math {

/// A map (height, width) and, where not null, the pixels that may be peaks (not 0).
struct PeakMap {
  const float* data;
  std::size_t height, width;
  const std::uint8_t* mask;
  VG_HD float at(std::size_t y, std::size_t x) const { return data[y * width + x]; }
};

struct Peak {
  double x, y, value;  // pixels, and the fitted height
};

/// Whether the pixel is finite, at least `threshold`, allowed, higher than neighbours before it in raster
/// order and not lower than those behind it: a plateau counts once, and no two peaks are neighbours.
VG_HD bool is_peak(const PeakMap& map, std::size_t y, std::size_t x, float threshold) {
  const float value = map.at(y, x);
  if (!std::isfinite(value) || value < threshold || (map.mask && !map.mask[y * map.width + x])) return false;
  const std::size_t y0 = y ? y - 1 : 0, y1 = y + 1 < map.height ? y + 1 : y;
  const std::size_t x0 = x ? x - 1 : 0, x1 = x + 1 < map.width ? x + 1 : x;
  for (std::size_t v = y0; v <= y1; ++v) {
    for (std::size_t u = x0; u <= x1; ++u) {
      if (v == y && u == x) continue;
      const bool before = v < y || (v == y && u < x);
      const float other = map.at(v, u);
      // written so that a NaN beside the pixel does not hide it
      if (before ? other >= value : other > value) return false;
    }
  }
  return true;
}

/// Vertex of the least-squares quadratic through the 3 x 3 neighbourhood, moved by at most half a pixel per
/// axis; the pixel itself at the border and where the quadratic has no maximum.
VG_HD Peak peak_vertex(const PeakMap& map, std::size_t y, std::size_t x) {
  constexpr double flat = 1e-9;  // of the squared curvatures along x and y
  const double centre = map.at(y, x);
  const Peak pixel{static_cast<double>(x), static_cast<double>(y), centre};
  if (y == 0 || x == 0 || y + 1 == map.height || x + 1 == map.width) return pixel;
  double row[3] = {0, 0, 0}, column[3] = {0, 0, 0}, total = 0;
  for (int v = 0; v < 3; ++v) {
    for (int u = 0; u < 3; ++u) {
      const double value = map.at(y + v - 1, x + u - 1) - centre;
      row[v] += value, column[u] += value, total += value;
    }
  }
  // a + gx u + gy v + hxx u^2/2 + hyy v^2/2 + hxy u v over u, v in -1, 0, 1: closed-form normal equations
  const double gx = (column[2] - column[0]) / 6, gy = (row[2] - row[0]) / 6;
  const double hxx = (column[0] + column[2] - 2 * column[1]) / 3, hyy = (row[0] + row[2] - 2 * row[1]) / 3;
  const double hxy = (map.at(y + 1, x + 1) + map.at(y - 1, x - 1) -
                      static_cast<double>(map.at(y + 1, x - 1)) - map.at(y - 1, x + 1)) /
                     4;
  const double mean = total / 9 - (hxx + hyy) / 3;  // the constant a, over the centre's value
  const double determinant = hxx * hyy - hxy * hxy;
  // A ridge is flat along one direction: what rounding leaves of its curvature is no maximum.
  if (!(hxx < 0 && determinant > flat * (hxx * hxx + hyy * hyy) && std::isfinite(total))) return pixel;
  const auto half = [](double d) { return d < -0.5 ? -0.5 : d > 0.5 ? 0.5 : d; };
  const double dx = half(-(hyy * gx - hxy * gy) / determinant),
               dy = half(-(hxx * gy - hxy * gx) / determinant);
  const double rise = mean + gx * dx + gy * dy + (hxx * dx * dx + hyy * dy * dy) / 2 + hxy * dx * dy;
  return {x + dx, y + dy, centre + rise};
}

}  // namespace verglas::math
