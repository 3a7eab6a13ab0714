#include "ops/polar_insert.h"

#include "ops/insert_taps.h"

namespace verglas::cpu {
namespace {

/// Inserts the samples of one slice whose taps touch the slab [z_begin, z_end).
template <int W>
void insert_slice(const Window<W>& window, const math::GridShape& volume, const double* matrix,
                  const PolarGrid& grid, const cfloat* values, const float* weights, const InsertSums& sums,
                  int z_begin, int z_end) {
  const auto axes = math::slice_axes(matrix, volume);
  const int half = grid.half();
  // Height of a unit ring's highest point: rings that stay below the slab (or above it) are passed over whole.
  const double steepness = std::hypot(axes.x[2], axes.y[2]);
  const double low = z_begin - volume.extent - W / 2 - 1, high = z_end - volume.extent + W / 2 + 1;
  for (int j = 0; j < grid.n_rings; ++j) {
    const double r = grid.radii[j], reach = r * steepness;
    if (reach < low || -reach > high) continue;
    for (int t = 0; t < half; ++t) {
      const auto point = math::slice_point(axes, volume, r * grid.cos_theta[t], r * grid.sin_theta[t]);
      const auto place = TapPlace::of<W>(point);
      if (place.z.first >= z_end || place.z.first + W <= z_begin) continue;
      const std::size_t at = static_cast<std::size_t>(j) * half + t;
      const std::complex<double> value = values ? std::complex<double>(values[at]) : 0.0;
      const Sample sample = {point.mate ? std::conj(value) : value, weights ? weights[at] : 0.0};
      add_taps<W>(window, volume, place, sample, sums, {z_begin, z_end, 0, volume.rows()});
    }
  }
}

template <int W>
void insert_slices(const math::GridShape& volume, const WindowTable& table, const PolarSlices& slices,
                   const PolarGrid& grid, const InsertSums& sums, int num_threads) {
  const Window<W> window(table);
  const int slabs = num_threads == 1 ? 1 : 2 * num_threads;
  const auto bounds = slab_bounds(volume, slabs);
  const std::size_t points = static_cast<std::size_t>(grid.n_rings) * grid.half();
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 1)
  for (int s = 0; s < slabs; ++s) {
    for (std::size_t i = 0; i < slices.n; ++i)
      insert_slice<W>(window, volume, slices.matrices + 9 * i, grid,
                      slices.values ? slices.values + i * points : nullptr,
                      slices.weights ? slices.weights + i * points : nullptr, sums, bounds[s], bounds[s + 1]);
  }
}

}  // namespace

void polar_insert(const math::GridShape& volume, const WindowTable& window, const PolarSlices& slices,
                  const PolarGrid& grid, const InsertSums& sums, int num_threads) {
  math::with_width(window.width, [&](auto width) {
    insert_slices<decltype(width)::value>(volume, window, slices, grid, sums, num_threads);
  });
}

}  // namespace verglas::cpu
