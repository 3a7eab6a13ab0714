#include "ops/polar.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "math/constants.h"
#include "math/polar_window.h"
#include "math/small_gemm.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::kLanes;
using math::round_up;

using math::kPi;
constexpr int kWindow = math::kPolarTaps;
constexpr int kRowFloats =
    16;  // one window row, 6 complex values, padded to a power of two with zero weights

typedef float Row __attribute__((vector_size(kRowFloats * sizeof(float)), aligned(4)));

/// The part of the padded transform around the origin: ky = -kMargin..reach, kx = -reach..reach, and the
/// interpolation weights of every polar point in it.
class ImageSampler {
 public:
  explicit ImageSampler(const PolarGrid& grid) : grid_(grid) {
    const math::PolarWindow window(grid.box, grid.radii.back());
    reach_ = window.reach;
    fold_ = grid.box / 2 + 1;
    make_tables(window);
    make_points(window);
  }

  /// Scratch for one image; one per thread.
  struct Scratch {
    AlignedFloats even, odd, e_rows, o_rows, folded, sums, plane;
  };

  void run(const float* image, Scratch& s, cfloat* samples) const {
    transform_rows(image, s);
    transform_columns(s);
    gather(s.plane.data(), samples);
  }

 private:
  static constexpr int kMargin = kWindow / 2 + 1;
  const PolarGrid& grid_;
  int reach_, fold_;
  std::vector<float> cos_,
      sin_;  // (reach + 1, fold): cos and sin of 2 pi k x / padded, over the window's transform
  struct Point {
    std::size_t start;
    float wx[kRowFloats], wy[kWindow];
  };
  std::vector<Point> points_;

  std::size_t row_stride() const { return 2 * (2 * static_cast<std::size_t>(reach_) + 1) + kRowFloats; }
  std::size_t image_columns() const { return round_up(grid_.box, kLanes); }
  std::size_t ky_columns() const { return round_up(reach_ + 1, kLanes); }

  void make_tables(const math::PolarWindow& window) {
    for (int k = 0; k <= reach_; ++k) {
      for (int x = 0; x < fold_; ++x) {
        const auto wave = window.wave(k, x);
        cos_.push_back(wave.cosine);
        sin_.push_back(wave.sine);
      }
    }
  }

  void make_points(const math::PolarWindow& window) {
    for (int j = 0; j < grid_.n_rings; ++j) {
      for (int t = 0; t < grid_.half(); ++t) {
        const double r = grid_.radii[j] * window.factor;
        const auto u = window.taps(r * grid_.cos_theta[t]), v = window.taps(r * grid_.sin_theta[t]);
        Point p = {};
        for (int i = 0; i < kWindow; ++i) {
          p.wx[2 * i] = p.wx[2 * i + 1] = u.weight[i];
          p.wy[i] = v.weight[i];
        }
        p.start = static_cast<std::size_t>(v.first + kMargin) * row_stride() + 2 * (u.first + reach_);
        points_.push_back(p);
      }
    }
  }

  /// E(ky, x) = sum_y f cos, O(ky, x) = sum_y f sin for ky >= 0, with y and -y added before the product.
  void transform_rows(const float* image, Scratch& s) const {
    const int n = grid_.box, centre = n / 2;
    const std::size_t columns = image_columns(), size = fold_ * columns;
    s.even.resize(size);
    s.odd.resize(size);
    for (int y = 0; y < fold_; ++y) {
      float *e = s.even.data() + y * columns, *o = s.odd.data() + y * columns;
      // An even box has no partner for y = -N/2; y = 0 is its own.
      const float* plus =
          y > 0 && centre + y < n ? image + static_cast<std::size_t>(centre + y) * n : nullptr;
      const float* minus = image + static_cast<std::size_t>(centre - y) * n;
      for (int x = 0; x < n; ++x) {
        const float a = plus ? plus[x] : 0.0f;
        e[x] = minus[x] + a;
        o[x] = a - minus[x];
      }
    }
    s.e_rows.resize((reach_ + 1) * columns);
    s.o_rows.resize((reach_ + 1) * columns);
    const math::GemmShape shape = {
        reach_ + 1, fold_, static_cast<int>(columns), static_cast<std::size_t>(fold_), columns, columns};
    math::small_gemm(cos_.data(), s.even.data(), s.e_rows.data(), shape);
    math::small_gemm(sin_.data(), s.odd.data(), s.o_rows.data(), shape);
  }

  /// rows (ky, x) -> even[x][ky], odd[x][ky], x and -x added and subtracted.
  void fold_transposed(const float* rows, float* even, float* odd) const {
    const int n = grid_.box, centre = n / 2;
    const std::size_t columns = image_columns(), width = ky_columns();
    for (int k = 0; k <= reach_; ++k) {
      const float* row = rows + k * columns;
      for (int x = 0; x < fold_; ++x) {
        const float a = x > 0 && centre + x < n ? row[centre + x] : 0.0f, b = row[centre - x];
        even[x * width + k] = a + b;
        odd[x * width + k] = a - b;
      }
    }
  }

  void transform_columns(Scratch& s) const {
    const std::size_t width = ky_columns(), folded = fold_ * width, block = (reach_ + 1) * width;
    s.folded.resize(4 * folded);
    s.sums.resize(4 * block);
    float* f = s.folded.data();
    fold_transposed(s.e_rows.data(), f, f + folded);
    fold_transposed(s.o_rows.data(), f + 2 * folded, f + 3 * folded);
    const math::GemmShape shape = {
        reach_ + 1, fold_, static_cast<int>(width), static_cast<std::size_t>(fold_), width, width};
    for (int i = 0; i < 4; ++i)
      math::small_gemm(i % 2 ? sin_.data() : cos_.data(), f + i * folded, s.sums.data() + i * block, shape);
    fill_plane(s.sums.data(), block, s.plane);
  }

  /// F(kx, ky) = sum_x (E - iO) exp(-i a x) and F(-kx, ky) from the same four sums; ky < 0 by Friedel symmetry.
  void fill_plane(const float* sums, std::size_t block, AlignedFloats& plane) const {
    const std::size_t width = ky_columns(), stride = row_stride();
    plane.resize((reach_ + 1 + kMargin) * stride);
    for (int kx = 0; kx <= reach_; ++kx) {
      const float* p = sums + kx * width;
      for (int ky = 0; ky <= reach_; ++ky, ++p) {
        const float ec = p[0], es = p[block], oc = p[2 * block], os = p[3 * block];
        float* row = plane.data() + (ky + kMargin) * stride;
        float *plus = row + 2 * (reach_ + kx), *minus = row + 2 * (reach_ - kx);
        plus[0] = ec - os, plus[1] = -(es + oc);
        minus[0] = ec + os, minus[1] = es - oc;
      }
    }
    for (int ky = 1; ky <= std::min(kMargin, reach_); ++ky) {
      float* row = plane.data() + (kMargin - ky) * stride;
      const float* other = plane.data() + (kMargin + ky) * stride;
      for (int x = 0; x <= 2 * reach_; ++x) {
        row[2 * x] = other[2 * (2 * reach_ - x)];
        row[2 * x + 1] = -other[2 * (2 * reach_ - x) + 1];
      }
    }
  }

  void gather(const float* plane, cfloat* samples) const {
    const std::size_t stride = row_stride();
    for (std::size_t i = 0; i < points_.size(); ++i) {
      const Point& p = points_[i];
      const float* from = plane + p.start;
      Row acc = {};
      for (int y = 0; y < kWindow; ++y) acc += p.wy[y] * *reinterpret_cast<const Row*>(from + y * stride);
      acc *= *reinterpret_cast<const Row*>(p.wx);
      float re = 0, im = 0;
      for (int x = 0; x < kWindow; ++x) re += acc[2 * x], im += acc[2 * x + 1];
      samples[i] = {re, im};
    }
  }
};

}  // namespace

PolarGrid::PolarGrid(int box_, int n_theta_, const double* r, const std::int32_t* limits, int rings,
                     double spacing)
    : box(box_), n_theta(n_theta_), n_rings(rings), max_m(0), size(0) {
  if (box < 1 || rings < 1) throw std::invalid_argument("polar grid: expected a box and at least one ring");
  if (n_theta < 2 || n_theta % 2)
    throw std::invalid_argument("polar grid: n_theta: expected an even number, got " +
                                std::to_string(n_theta));
  for (int j = 0; j < rings; ++j) {
    if (limits[j] < 0 || (j > 0 && (limits[j] < limits[j - 1] || !(r[j] > r[j - 1]))))
      throw std::invalid_argument("polar grid: radii must rise and harmonic limits must not fall, at ring " +
                                  std::to_string(j));
    radii.push_back(r[j]);
    limit.push_back(limits[j]);
    weights.push_back(static_cast<float>(2 * kPi * r[j] * spacing / n_theta));
  }
  max_m = limit.back();
  if (n_theta < 2 * max_m + 2)
    throw std::invalid_argument("polar grid: n_theta: expected at least " + std::to_string(2 * max_m + 2) +
                                " for harmonics up to " + std::to_string(max_m) + ", got " +
                                std::to_string(n_theta));
  offset.push_back(0);
  for (int m = 0, first = 0; m <= max_m; ++m) {
    while (limit[first] < m) ++first;
    first_ring.push_back(first);
    offset.push_back(offset.back() + rings - first);
  }
  size = offset.back();
  for (int t = 0; t < half(); ++t) {
    cos_theta.push_back(std::cos(2 * kPi * t / n_theta));
    sin_theta.push_back(std::sin(2 * kPi * t / n_theta));
  }
}

AngularTransform::AngularTransform(const PolarGrid& grid) : half_(grid.half()) {
  for (int m = 0; m <= grid.max_m; ++m) {
    auto& table = m % 2 ? odd_ : even_;
    for (int part = 0; part < 2; ++part) {
      for (int j = 0; j < half_; ++j) {
        const double angle = 2 * kPi * ((static_cast<long>(m) * j) % grid.n_theta) / grid.n_theta;
        // even: 2 Re f (cos - i sin);  odd: 2i Im f (cos - i sin) = 2 Im f (sin + i cos)
        const double value =
            m % 2 ? (part ? std::cos(angle) : std::sin(angle)) : (part ? -std::sin(angle) : std::cos(angle));
        table.push_back(static_cast<float>(2 * value));
      }
    }
  }
}

void AngularTransform::run(const float* re, const float* im, int columns, int limit, float* out) const {
  const std::size_t row = columns;
  // Two rows (real, imaginary) per m of one parity; the next m of that parity stands four rows further on.
  // Pairs of rows are written one m at a time so that out stays in the order of m.
  for (int parity = 0; parity < 2; ++parity) {
    const auto& table = parity ? odd_ : even_;
    const float* x = parity ? im : re;
    const int count = parity ? (limit + 1) / 2 : limit / 2 + 1;
    math::GemmShape shape = {count, half_, columns, 2 * static_cast<std::size_t>(half_), row, 4 * row};
    for (int part = 0; part < 2; ++part)
      math::small_gemm(table.data() + part * half_, x, out + (2 * parity + part) * row, shape);
  }
}

void polar(const float* images, std::size_t n, const PolarGrid& grid, cfloat* samples, int num_threads) {
  const ImageSampler sampler(grid);
  const std::size_t pixels = static_cast<std::size_t>(grid.box) * grid.box;
  const std::size_t points = static_cast<std::size_t>(grid.n_rings) * grid.half();
#pragma omp parallel num_threads(num_threads)
  {
    ImageSampler::Scratch scratch;
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < n; ++i) sampler.run(images + i * pixels, scratch, samples + i * points);
  }
}

void polar_harmonics(const cfloat* samples, std::size_t n, const PolarGrid& grid, float scale,
                     cfloat* harmonics, int num_threads) {
  const AngularTransform transform(grid);
  const int half = grid.half();
#pragma omp parallel num_threads(num_threads)
  {
    AlignedFloats re(static_cast<std::size_t>(half) * kLanes), im(re.size());
    AlignedFloats out(2 * static_cast<std::size_t>(grid.max_m + 1) * kLanes);
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < n; ++i) {
      const cfloat* from = samples + i * grid.n_rings * half;
      cfloat* to = harmonics + i * grid.size;
      for (int first = 0; first < grid.n_rings; first += kLanes) {
        const int last = std::min(grid.n_rings, first + kLanes);
        for (int t = 0; t < half; ++t) {
          for (int j = first; j < last; ++j) {
            re.data()[t * kLanes + j - first] = from[j * half + t].real();
            im.data()[t * kLanes + j - first] = from[j * half + t].imag();
          }
        }
        transform.run(re.data(), im.data(), kLanes, grid.limit[last - 1], out.data());
        for (int m = 0; m <= grid.limit[last - 1]; ++m) {
          const float* row = out.data() + 2 * m * kLanes;
          for (int j = std::max(first, grid.first_ring[m]); j < last; ++j)
            to[grid.offset[m] + j - grid.first_ring[m]] =
                scale * cfloat(row[j - first], row[kLanes + j - first]);
        }
      }
    }
  }
}

}  // namespace verglas::cpu
