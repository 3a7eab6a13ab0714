#include "ops/score_cells.h"

#include <algorithm>
#include <cmath>

#include "math/constants.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::broadcast;
using math::kLanes;
using math::Lanes;
using math::load;
using math::store;

using math::kPi;
constexpr int kAngles = 4;  // tasks of one slice evaluated together

/// cos and sin of pi k / n_psi, k < 2 n_psi: the angle m psi_j is entry (2 j + 1) m mod 2 n_psi.
struct CircleTable {
  std::vector<float> cos, sin;
  explicit CircleTable(int n_psi) {
    for (int k = 0; k < 2 * n_psi; ++k) {
      cos.push_back(static_cast<float>(std::cos(kPi * k / n_psi)));
      sin.push_back(static_cast<float>(std::sin(kPi * k / n_psi)));
    }
  }
};

struct Workspace {
  std::vector<cfloat> y, cp;
  std::vector<float> ctf;
  AlignedFloats shift, b, c;
  LaneHarmonics::Scratch harmonics;
};

class ImageCells {
 public:
  ImageCells(const PolarGrid& grid, const CellReference& reference, const CellInput& in,
             const CircleTable& circle, const LaneHarmonics& lanes, const EvenHarmonics& even, Workspace& w)
      : grid_(grid), reference_(reference), in_(in), circle_(circle), lanes_(lanes), even_(even), w_(w) {}

  void run(std::size_t image, float* out) {
    const auto first = in_.task_offsets[image], last = in_.task_offsets[image + 1];
    n_shifts_ = static_cast<std::size_t>(in_.shift_offsets[image + 1] - in_.shift_offsets[image]);
    if (first == last || n_shifts_ == 0) return;
    prepare(image);
    for (auto t = first; t < last;) {
      auto end = t + 1;
      while (end < last && in_.task_slice[end] == in_.task_slice[t] &&
             in_.task_opposite[end] == in_.task_opposite[t])
        ++end;
      for (std::size_t v = 0; v < vectors(); ++v) {
        correlate(static_cast<std::size_t>(in_.task_slice[t]), in_.task_opposite[t] != 0, v);
        for (auto k = t; k < end; k += kAngles)
          evaluate(k, static_cast<int>(std::min<std::int64_t>(kAngles, end - k)), v,
                   out + (k - first) * n_shifts_);
      }
      t = end;
    }
  }

 private:
  const PolarGrid& grid_;
  const CellReference& reference_;
  const CellInput& in_;
  const CircleTable& circle_;
  const LaneHarmonics& lanes_;
  const EvenHarmonics& even_;
  Workspace& w_;
  std::size_t n_shifts_ = 0;

  std::size_t vectors() const { return (n_shifts_ + kLanes - 1) / kLanes; }

  void prepare(std::size_t image) {
    const std::size_t points = static_cast<std::size_t>(grid_.n_rings) * grid_.half();
    w_.y.assign(in_.samples + image * points, in_.samples + (image + 1) * points);
    w_.ctf.resize(points);
    w_.cp.resize(static_cast<std::size_t>(grid_.n_rings) * reference_.n_power);
    weight_samples(in_.ctf ? in_.ctf + image * math::kOpticsColumns : nullptr, in_.pixel_size_A,
                   in_.inv_sigma2 + image * grid_.n_rings, grid_, even_, w_.ctf.data(), w_.y.data(),
                   w_.cp.data());
    w_.shift.resize(2 * kLanes);
    w_.b.resize(vectors() * grid_.size * 2 * kLanes);
    w_.c.resize(2 * static_cast<std::size_t>(grid_.max_m + 1) * kLanes);
    const float* shifts = in_.shifts + 2 * in_.shift_offsets[image];
    for (std::size_t v = 0; v < vectors(); ++v) {
      for (std::size_t l = 0; l < kLanes; ++l) {
        const std::size_t s = std::min(v * kLanes + l, n_shifts_ - 1);
        w_.shift.data()[l] = shifts[2 * s];
        w_.shift.data()[kLanes + l] = shifts[2 * s + 1];
      }
      lanes_.run(reinterpret_cast<const float*>(w_.y.data()), true, w_.shift.data(), w_.shift.data() + kLanes,
                 w_.harmonics, w_.b.data() + v * grid_.size * 2 * kLanes);
    }
  }

  /// c_m of one slice (or its opposite, see score_kernel.h) for all m, eps_m and the power term included.
  void correlate(std::size_t slice, bool opposite, std::size_t v) {
    const cfloat* a = reference_.harmonics + slice * grid_.size;
    const float* b = w_.b.data() + v * grid_.size * 2 * kLanes;
    for (int m = 0; m <= grid_.max_m; ++m) {
      // Two rings at a time: enough independent sums to hide the latency of a multiply-add.
      Lanes rr[2] = {}, ii[2] = {}, ri[2] = {}, ir[2] = {};
      const int n = grid_.n_rings - grid_.first_ring[m];
      for (int r = 0; r < n; ++r, ++a, b += 2 * kLanes) {
        const Lanes br = load(b), bi = load(b + kLanes);
        rr[r & 1] += a->real() * br;
        ri[r & 1] += a->real() * bi;
        ir[r & 1] += a->imag() * br;
        ii[r & 1] += a->imag() * bi;
      }
      const float side = opposite ? -1.0f : 1.0f, eps = m == 0 ? 1.0f : opposite && m % 2 ? -2.0f : 2.0f;
      float* out = w_.c.data() + 2 * m * kLanes;
      store(out, eps * ((rr[0] + rr[1]) + side * (ii[0] + ii[1])));
      store(out + kLanes, eps * ((ri[0] + ri[1]) - side * (ir[0] + ir[1])));
    }
    for (int h = 0; h < reference_.n_power; ++h) {
      const cfloat q = power(slice, opposite, h) * (h ? -1.0f : -0.5f);
      float* out = w_.c.data() + 4 * h * kLanes;
      store(out, load(out) + q.real());
      store(out + kLanes, load(out + kLanes) + q.imag());
    }
  }

  cfloat power(std::size_t slice, bool opposite, int h) const {
    const cfloat* p = reference_.power + slice * grid_.n_rings * reference_.n_power + h;
    cfloat sum = 0;
    for (int j = 0; j < grid_.n_rings; ++j) {
      const cfloat pj = p[j * reference_.n_power], cj = w_.cp[j * reference_.n_power + h];
      const float s = opposite ? -pj.imag() : pj.imag();
      sum += cfloat(pj.real() * cj.real() + s * cj.imag(), pj.real() * cj.imag() - s * cj.real());
    }
    return sum;
  }

  /// Scores of up to kAngles tasks of the slice in w_.c; the last is repeated to fill the block.
  void evaluate(std::int64_t task, int count, std::size_t v, float* out) const {
    const int period = 2 * in_.n_psi;
    int step[kAngles], at[kAngles] = {};
    for (int k = 0; k < kAngles; ++k) step[k] = 2 * in_.task_psi[task + std::min(k, count - 1)] + 1;
    Lanes sum[kAngles] = {};
    for (int m = 0; m <= grid_.max_m; ++m) {
      const Lanes re = load(w_.c.data() + 2 * m * kLanes), im = load(w_.c.data() + (2 * m + 1) * kLanes);
#pragma GCC unroll 4
      for (int k = 0; k < kAngles; ++k) {
        sum[k] += circle_.cos[at[k]] * re;
        sum[k] += circle_.sin[at[k]] * im;
        at[k] += step[k];
        if (at[k] >= period) at[k] -= period;
      }
    }
    const std::size_t first = v * kLanes, n = std::min<std::size_t>(kLanes, n_shifts_ - first);
    for (int k = 0; k < count; ++k)
      for (std::size_t l = 0; l < n; ++l) out[k * n_shifts_ + first + l] = sum[k][l];
  }
};

}  // namespace

std::vector<std::int64_t> cell_offsets(const CellInput& in) {
  std::vector<std::int64_t> offsets{0};
  for (std::size_t i = 0; i < in.n; ++i)
    offsets.push_back(offsets.back() + (in.task_offsets[i + 1] - in.task_offsets[i]) *
                                           (in.shift_offsets[i + 1] - in.shift_offsets[i]));
  return offsets;
}

void score_cells(const PolarGrid& grid, const CellReference& reference, const CellInput& in, float* scores,
                 int num_threads) {
  const CircleTable circle(in.n_psi);
  const LaneHarmonics lanes(grid);
  const EvenHarmonics even(grid, reference.n_power);
  const auto offsets = cell_offsets(in);
#pragma omp parallel num_threads(num_threads)
  {
    Workspace workspace;
    ImageCells cells(grid, reference, in, circle, lanes, even, workspace);
#pragma omp for schedule(dynamic, 1)
    for (std::size_t i = 0; i < in.n; ++i) cells.run(i, scores + offsets[i]);
  }
}

}  // namespace verglas::cpu
