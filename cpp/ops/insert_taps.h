// What insert and polar_insert share: one sample's taps added to the sums, within the rows that a thread owns.
// A thread adds every sample that touches its rows, in the order of the input, so each grid point sees one order of
// additions however many threads and parts there are: the sums are bitwise repeatable.
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

/// Where the taps of a sample begin on each axis, and its place between them.
struct TapPlace {
  math::Footprint z, y, x;

  template <int W>
  static TapPlace of(const math::SlicePoint& point) {
    return {math::footprint<W>(point.z), math::footprint<W>(point.y), math::footprint<W>(point.x)};
  }
};

/// Rows of the grid that one thread owns: z in [z_begin, z_end), y in [y_begin, y_end).
struct GridRows {
  int z_begin, z_end, y_begin, y_end;
};

/// The x axis of one sample's taps: its values and weights on a row of the grid, before z and y weigh the row.
template <int W>
struct TapRow {
  using L = Lanes<W>;
  typename L::WidePairs values = {};
  typename L::Wide weights = {};

  TapRow(const typename L::Vec& wx, const Sample& sample) {
    for (int x = 0; x < W; ++x) {
      values[2 * x] = sample.value.real() * wx[x];
      values[2 * x + 1] = sample.value.imag() * wx[x];
      weights[x] = sample.weight * wx[x];
    }
  }

  void add_to(const InsertSums& sums, std::size_t at, double w) const {
    if (sums.values) {
      typename L::WidePairs total;
      std::memcpy(&total, sums.values + at, sizeof(total));
      total += w * values;
      std::memcpy(static_cast<void*>(sums.values + at), &total, sizeof(total));
    }
    if (sums.weights) {
      typename L::Wide total;
      std::memcpy(&total, sums.weights + at, sizeof(total));
      total += w * weights;
      std::memcpy(sums.weights + at, &total, sizeof(total));
    }
  }
};

/// Adds one sample's taps on these rows.
template <int W>
void add_taps(const Window<W>& window, const math::GridShape& grid, const TapPlace& place,
              const Sample& sample, const InsertSums& sums, const GridRows& rows) {
  const int z_first = std::max(rows.z_begin - place.z.first, 0),
            z_last = std::min(rows.z_end - place.z.first, W);
  const int y_first = std::max(rows.y_begin - place.y.first, 0),
            y_last = std::min(rows.y_end - place.y.first, W);
  if (z_first >= z_last || y_first >= y_last) return;
  const auto wz = window(place.z.t), wy = window(place.y.t);
  const TapRow<W> taps(window(place.x.t), sample);
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const std::size_t corner = place.z.first * plane + place.y.first * row + place.x.first;
  const auto add = [&](int z, int y) {
    taps.add_to(sums, corner + z * plane + y * row, static_cast<double>(wz[z]) * wy[y]);
  };
  if (z_last - z_first == W && y_last - y_first == W) {  // counts that the compiler knows: most samples
    for (int z = 0; z < W; ++z)
      for (int y = 0; y < W; ++y) add(z, y);
  } else {
    for (int z = z_first; z < z_last; ++z)
      for (int y = y_first; y < y_last; ++y) add(z, y);
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
