// The sums of maximise as polar samples of slices.
#include <algorithm>
#include <cmath>

#include "math/constants.h"
#include "math/small_gemm.h"
#include "ops/maximise.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::kLanes;

using math::kPi;

/// From harmonics back to samples of the half circle, as matrix products: the transpose of AngularTransform.
class AngularSynthesis {
 public:
  explicit AngularSynthesis(const PolarGrid& grid)
      : half_(grid.half()), even_(grid.max_m / 2 + 1), odd_((grid.max_m + 1) / 2) {
    for (int t = 0; t < half_; ++t) {
      for (int m = 0; m <= grid.max_m; ++m) {
        const double angle = 2 * kPi * ((static_cast<long>(m) * t) % grid.n_theta) / grid.n_theta;
        const double scale = (m == 0 ? 1.0 : 2.0) / grid.n_theta, c = scale * std::cos(angle),
                     s = scale * std::sin(angle);
        // even m: Re (b e^{i m theta});  odd m: i Im (b e^{i m theta})
        auto& table = m % 2 ? odd_table_ : even_table_;
        table.push_back(static_cast<float>(m % 2 ? s : c));
        table.push_back(static_cast<float>(m % 2 ? c : -s));
      }
    }
  }
  int half() const { return half_; }
  int even() const { return even_; }
  int odd() const { return odd_; }
  /// out (half, columns) from rows (re and im of each even m, columns); `count` of them from m = 0.
  void run_even(const float* x, int count, int columns, float* out) const {
    run(even_table_.data(), x, 2 * count, 2 * even_, columns, out);
  }
  void run_odd(const float* x, int columns, float* out) const {
    run(odd_table_.data(), x, 2 * odd_, 2 * odd_, columns, out);
  }

 private:
  int half_, even_, odd_;
  std::vector<float> even_table_, odd_table_;
  void run(const float* t, const float* x, int depth, int stride, int columns, float* out) const {
    const std::size_t row = columns;
    math::small_gemm(t, x, out, {half_, depth, columns, static_cast<std::size_t>(stride), row, row});
  }
};

}  // namespace

void MaximisePlan::slices(const std::int64_t* index, std::size_t n, cfloat* values, float* weights,
                          int num_threads) const {
  const AngularSynthesis synthesis(grid_);
  const int n_rings = grid_.n_rings, half = grid_.half();
  const int columns = static_cast<int>(math::round_up(n_rings, kLanes));
  const std::size_t points = static_cast<std::size_t>(n_rings) * half, row = columns;
#pragma omp parallel num_threads(num_threads)
  {
    AlignedFloats x[2], out[2];
    for (int p = 0; p < 2; ++p) x[p].resize(2 * synthesis.even() * row), out[p].resize(half * row);
#pragma omp for schedule(dynamic, 4)
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t s = static_cast<std::size_t>(index[i]);
      cfloat* value = values + i * points;
      float* weight = weights + i * points;
      if (!touched(s)) {
        std::fill_n(value, points, cfloat(0));
        std::fill_n(weight, points, 0.0f);
        continue;
      }
      for (auto& rows : x) std::fill_n(rows.data(), 2 * synthesis.even() * row, 0.0f);
      for (int m = 0; m <= grid_.max_m; ++m) {
        const double* from = numerator_[s].data() + rows_.offset[m];
        float* to = x[m % 2].data() + 2 * (m / 2) * row;
        for (int j = grid_.first_ring[m]; j < n_rings; ++j) {
          to[j] = static_cast<float>(from[j - grid_.first_ring[m]]);
          to[row + j] = static_cast<float>(from[rows_.length[m] + j - grid_.first_ring[m]]);
        }
      }
      synthesis.run_even(x[0].data(), synthesis.even(), columns, out[0].data());
      synthesis.run_odd(x[1].data(), columns, out[1].data());
      for (int j = 0; j < n_rings; ++j)
        for (int t = 0; t < half; ++t)
          value[j * half + t] = cfloat(out[0].data()[t * row + j], out[1].data()[t * row + j]);
      for (int k = 0; k < 2 * n_power_; ++k)
        std::copy_n(denominator_[s].data() + static_cast<std::size_t>(k) * n_rings, n_rings,
                    x[0].data() + k * row);
      synthesis.run_even(x[0].data(), n_power_, columns, out[0].data());
      for (int j = 0; j < n_rings; ++j)
        for (int t = 0; t < half; ++t) weight[j * half + t] = out[0].data()[t * row + j];
    }
  }
}

}  // namespace verglas::cpu
