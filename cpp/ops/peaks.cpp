#include "ops/peaks.h"

#include <algorithm>
#include <cmath>

namespace verglas::cpu {
namespace {

/// Kept peaks in cells of the radius' side, so that only nine cells have to be asked.
class Kept {
 public:
  Kept(std::size_t height, std::size_t width, double radius) : radius_(radius), side_(std::max(radius, 1.0)) {
    columns_ = static_cast<std::size_t>(double(width) / side_) + 3;
    cells_.resize(columns_ * (static_cast<std::size_t>(double(height) / side_) + 3));
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

void keep_apart(std::vector<Peak>& found, std::size_t height, std::size_t width, double radius) {
  std::stable_sort(found.begin(), found.end(),
                   [](const Peak& a, const Peak& b) { return a.value > b.value; });
  Kept kept(height, width, radius);
  found.erase(std::remove_if(found.begin(), found.end(), [&](const Peak& peak) { return !kept.add(peak); }),
              found.end());
}

std::vector<Peak> peaks(const float* data, std::size_t height, std::size_t width, double radius,
                        float threshold, const std::uint8_t* mask, int num_threads) {
  const math::PeakMap map{data, height, width, mask};
  std::vector<std::vector<Peak>> rows(height);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::ptrdiff_t row = 0; row < static_cast<std::ptrdiff_t>(height); ++row) {
    const auto y = static_cast<std::size_t>(row);
    for (std::size_t x = 0; x < width; ++x)
      if (math::is_peak(map, y, x, threshold)) rows[y].push_back(math::peak_vertex(map, y, x));
  }
  std::vector<Peak> found;
  for (const auto& row : rows) found.insert(found.end(), row.begin(), row.end());
  keep_apart(found, height, width, radius);
  return found;
}

}  // namespace verglas::cpu
