// What insert and polar_insert share: one sample's taps added to the sums, and slabs of z that threads own.
// A thread adds every sample that touches its slab, in the order of the input, so each grid point sees one
// order of additions however many threads and slabs there are: the sums are bitwise repeatable.
#pragma once
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstring>
#include <vector>

#include "ops/insert.h"

namespace verglas::cpu {

/// One pixel of an image, or sample of a ring, as it goes into the sums.
struct Sample {
  std::complex<double> value;
  double weight;
};

/// Adds one sample's taps on the planes z in [z_begin, z_end).
template <int W>
void add_taps(const Window<W>& window, const math::GridShape& grid, const math::SlicePoint& point,
              const Sample& sample, const InsertSums& sums, int z_begin, int z_end) {
  using L = Lanes<W>;
  const auto fz = math::footprint<W>(point.z);
  const int first = std::max(z_begin - fz.first, 0), last = std::min(z_end - fz.first, W);
  if (first >= last) return;
  const auto fy = math::footprint<W>(point.y), fx = math::footprint<W>(point.x);
  const auto wz = window(fz.t), wy = window(fy.t), wx = window(fx.t);
  const double re = sample.value.real(), im = point.mate ? -sample.value.imag() : sample.value.imag();
  typename L::WidePairs value_row = {};
  typename L::Wide weight_row = {};
  for (int x = 0; x < W; ++x) {
    value_row[2 * x] = re * wx[x];
    value_row[2 * x + 1] = im * wx[x];
    weight_row[x] = sample.weight * wx[x];
  }
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const std::size_t corner = fz.first * plane + fy.first * row + fx.first;
  for (int z = first; z < last; ++z) {
    for (int y = 0; y < W; ++y) {
      const double w = static_cast<double>(wz[z]) * wy[y];
      const std::size_t at = corner + z * plane + y * row;
      if (sums.values) {
        typename L::WidePairs values;
        std::memcpy(&values, sums.values + at, sizeof(values));
        values += w * value_row;
        std::memcpy(static_cast<void*>(sums.values + at), &values, sizeof(values));
      }
      if (sums.weights) {
        typename L::Wide weights;
        std::memcpy(&weights, sums.weights + at, sizeof(weights));
        weights += w * weight_row;
        std::memcpy(sums.weights + at, &weights, sizeof(weights));
      }
    }
  }
}

/// Bounds of slabs of equal work: slices in random directions put pixels at height z with density (R - |z|) /
/// R^2, so the quantiles of that triangle share the work.
inline std::vector<int> slab_bounds(const math::GridShape& grid, int slabs) {
  std::vector<int> bounds(slabs + 1);
  for (int s = 0; s <= slabs; ++s) {
    const double q = static_cast<double>(s) / slabs;
    const double z = q < 0.5 ? -1.0 + std::sqrt(2.0 * q) : 1.0 - std::sqrt(2.0 * (1.0 - q));
    bounds[s] = static_cast<int>(std::lround((z + 1.0) * 0.5 * grid.rows()));
  }
  return bounds;
}

}  // namespace verglas::cpu
