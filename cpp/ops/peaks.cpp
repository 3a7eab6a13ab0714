#include "ops/peaks.h"

#include <algorithm>
#include <cmath>

namespace verglas::cpu {
namespace {

constexpr double kFlat = 1e-9;  // of the squared curvatures along x and y

struct Map {
  const float* data;
  std::size_t height, width;
  const std::uint8_t* mask;
  float at(std::size_t y, std::size_t x) const { return data[y * width + x]; }
};

/// Whether the pixel is higher than neighbours before it in raster order and not lower than those behind it.
bool is_maximum(const Map& map, std::size_t y, std::size_t x, float value) {
  const std::size_t y0 = y ? y - 1 : 0, y1 = std::min(y + 1, map.height - 1);
  const std::size_t x0 = x ? x - 1 : 0, x1 = std::min(x + 1, map.width - 1);
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

/// Vertex of the least-squares quadratic through the 3 x 3 neighbourhood.
Peak refined(const Map& map, std::size_t y, std::size_t x) {
  const double centre = map.at(y, x);
  const Peak pixel{double(x), double(y), centre};
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
  const double hxy =
      (map.at(y + 1, x + 1) + map.at(y - 1, x - 1) - double(map.at(y + 1, x - 1)) - map.at(y - 1, x + 1)) / 4;
  const double mean = total / 9 - (hxx + hyy) / 3;  // the constant a, over the centre's value
  const double determinant = hxx * hyy - hxy * hxy;
  // A ridge is flat along one direction: what rounding leaves of its curvature is no maximum.
  if (!(hxx < 0 && determinant > kFlat * (hxx * hxx + hyy * hyy) && std::isfinite(total))) return pixel;
  const double dx = std::clamp(-(hyy * gx - hxy * gy) / determinant, -0.5, 0.5);
  const double dy = std::clamp(-(hxx * gy - hxy * gx) / determinant, -0.5, 0.5);
  const double rise = mean + gx * dx + gy * dy + (hxx * dx * dx + hyy * dy * dy) / 2 + hxy * dx * dy;
  return {x + dx, y + dy, centre + rise};
}

/// Kept peaks in cells of the radius' side, so that only nine cells have to be asked.
class Kept {
 public:
  Kept(const Map& map, double radius) : radius_(radius), side_(std::max(radius, 1.0)) {
    columns_ = static_cast<std::size_t>(double(map.width) / side_) + 3;
    cells_.resize(columns_ * (static_cast<std::size_t>(double(map.height) / side_) + 3));
  }
  bool add(const Peak& peak) {
    // peaks lie at most half a pixel outside the map: the margin of one cell takes them
    const auto cx = static_cast<std::size_t>(peak.x / side_ + 1),
               cy = static_cast<std::size_t>(peak.y / side_ + 1);
    for (std::size_t y = cy - 1; y <= cy + 1; ++y) {
      for (std::size_t x = cx - 1; x <= cx + 1; ++x) {
        for (const Peak& other : cells_[y * columns_ + x]) {
          if (std::hypot(other.x - peak.x, other.y - peak.y) < radius_) return false;
        }
      }
    }
    cells_[cy * columns_ + cx].push_back(peak);
    return true;
  }

 private:
  double radius_, side_;
  std::size_t columns_;
  std::vector<std::vector<Peak>> cells_;
};

}  // namespace

std::vector<Peak> peaks(const float* data, std::size_t height, std::size_t width, double radius,
                        float threshold, const std::uint8_t* mask, int num_threads) {
  const Map map{data, height, width, mask};
  std::vector<std::vector<Peak>> rows(height);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::ptrdiff_t row = 0; row < static_cast<std::ptrdiff_t>(height); ++row) {
    const auto y = static_cast<std::size_t>(row);
    for (std::size_t x = 0; x < width; ++x) {
      const float value = map.at(y, x);
      if (!std::isfinite(value) || value < threshold || (mask && !mask[y * width + x])) continue;
      if (is_maximum(map, y, x, value)) rows[y].push_back(refined(map, y, x));
    }
  }
  std::vector<Peak> found;
  for (const auto& row : rows) found.insert(found.end(), row.begin(), row.end());
  std::stable_sort(found.begin(), found.end(),
                   [](const Peak& a, const Peak& b) { return a.value > b.value; });
  Kept kept(map, radius);
  found.erase(std::remove_if(found.begin(), found.end(), [&](const Peak& peak) { return !kept.add(peak); }),
              found.end());
  return found;
}

}  // namespace verglas::cpu
