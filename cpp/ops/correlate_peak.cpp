#include "ops/correlate_peak.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "math/trig.h"

namespace verglas::cpu::peak {

using math::kLanes;
using math::Lanes;
typedef std::int32_t LaneInts __attribute__((vector_size(kLanes * sizeof(std::int32_t))));

Window::Window(int size, int max_shift) : n(size), whole(2 * max_shift + 1 >= size) {
  lo = whole ? -(n / 2) : -max_shift;
  hi = whole ? (n - 1) / 2 : max_shift;
  first = whole ? lo : lo - 1;
  count = whole ? n : hi - lo + 3;
  groups = (count + kLanes - 1) / kLanes;
}

Search::Search(const Window& window)
    : window_(window),
      stride_(window.groups * kLanes),
      patch_(static_cast<std::size_t>(window.count) * stride_),
      bias_(window.groups) {
  for (int i = 0; i < stride_; ++i) {
    const int s = window_.first + i;
    bias_[i / kLanes][i % kLanes] =
        s >= window_.lo && s <= window_.hi ? 0.0f : -std::numeric_limits<float>::infinity();
  }
  start();
}

void Search::start() { best_ = {0, 0, -std::numeric_limits<double>::infinity()}; }

void Search::add(int g, const Lanes* column) {
  Lanes most = Lanes{} - std::numeric_limits<float>::infinity();
  LaneInts row = {};
  const Lanes bias = bias_[g];
  int y = (window_.first % window_.n + window_.n) % window_.n;
  float* out = patch_.data() + g * kLanes;
  for (int j = 0; j < window_.count; ++j, out += stride_) {
    const Lanes value = column[y];
    y = y + 1 == window_.n ? 0 : y + 1;
    math::store_lanes(out, value);
    const int s = window_.first + j;
    if (s < window_.lo || s > window_.hi) continue;
    const Lanes candidate = value + bias;
    const auto higher = candidate > most;
    most = higher ? candidate : most;
    row = higher ? LaneInts{} + j : row;
  }
  for (int l = 0; l < kLanes; ++l)
    if (most[l] > best_.value)
      best_ = {static_cast<double>(window_.first + g * kLanes + l),
               static_cast<double>(window_.first + row[l]), most[l]};
}

Peak Search::integer_peak() const { return best_; }

bool Search::parabola(Peak& peak) const {
  const int x = static_cast<int>(peak.x), y = static_cast<int>(peak.y);
  const double c = patch(x, y);
  double value = c;
  double* coordinate[2] = {&peak.x, &peak.y};
  double offset[2];
  for (int axis = 0; axis < 2; ++axis) {
    const double a = axis == 0 ? patch(x - 1, y) : patch(x, y - 1);
    const double b = axis == 0 ? patch(x + 1, y) : patch(x, y + 1);
    const double curvature = a - 2 * c + b;
    if (a > c || b > c || !(curvature < 0)) return false;
    offset[axis] = 0.5 * (a - b) / curvature;
    value -= 0.25 * (a - b) * offset[axis];
  }
  for (int axis = 0; axis < 2; ++axis) *coordinate[axis] += offset[axis];
  peak.value = value;
  return true;
}

// Sums over kx of P, kappa P and kappa^2 P, each times exp(2 pi i kappa sx); kappa = kx / n.
struct ExactMap::Sums {
  Cell zeroth{}, first{}, second{};
};

namespace {

inline Cell product(const Cell& f, const Cell& g) {
  return {f.re * g.re + f.im * g.im, f.re * g.im - f.im * g.re};
}

double total(const Lanes& v) {
  double sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += v[l];
  return sum;
}

constexpr double kTwoPi = math::fft1d::kTwoPi;
constexpr double kLongestStep = 0.5;   // pixels; a longer one leaves the peak that was found
constexpr double kCloseEnough = 0.03;  // pixels; the error after a step is of third order in it (C is even
                                       // about a symmetric peak), below 1e-3

}  // namespace

ExactMap::ExactMap(const math::RealFft2d& fft, int max_kx)
    : n_(fft.size()),
      blocks_(fft.blocks()),
      max_kx_(std::min(max_kx, (n_ - 1) / 2)),
      nyquist_(n_ % 2 == 0 && max_kx >= n_ / 2),
      cos_x_(n_),
      sin_x_(n_),
      cos_y_(blocks_ * kLanes),
      sin_y_(cos_y_.size()),
      freq_y_(cos_y_.size()) {}

void ExactMap::make_tables(double sx, double sy) {
  sx_ = sx;
  sy_ = sy;
  for (int k = 0; k <= max_kx_; ++k) {
    cos_x_[k] = math::cos_turns(k * (sx / n_));
    sin_x_[k] = math::sin_turns(k * (sx / n_));
  }
  for (int k = 0; k < static_cast<int>(cos_y_.size()); ++k) {
    freq_y_[k] = static_cast<float>(k) / n_;
    cos_y_[k] = math::cos_turns(k * (sy / n_));
    sin_y_[k] = math::sin_turns(k * (sy / n_));
  }
  cos_y_[0] = sin_y_[0] = 0;  // lane 0 of block 0 holds two rows of its own kind: shared_rows
}

/// Over kx = Sign, 2 Sign, .. Sign max_kx; kx = 0 and +-n/2 are the caller's.
template <int Sign>
ExactMap::Sums ExactMap::sum(const Cell* f, const Cell* g) const {
  Sums s;
  for (int k = 1; k <= max_kx_; ++k) {
    const int slot = Sign > 0 ? k : n_ - k;
    const float kappa = static_cast<float>(Sign * k) / n_;
    const Cell p = times(product(f[slot], g[slot]), cos_x_[k], Sign * sin_x_[k]);
    s.zeroth = s.zeroth + p;
    s.first = s.first + kappa * p;
    s.second = s.second + (kappa * kappa) * p;
  }
  return s;
}

Derivatives ExactMap::at(const Cell* f, const Cell* g, double sx, double sy) {
  make_tables(sx, sy);
  const float nyquist_cos = math::cos_turns(0.5 * sx), nyquist_sin = math::sin_turns(0.5 * sx);
  Lanes value{}, x{}, y{}, xx{}, xy{}, yy{};
  Derivatives d{};
  for (int b = 0; b < blocks_; ++b) {
    const Cell *fb = f + static_cast<std::size_t>(b) * n_, *gb = g + static_cast<std::size_t>(b) * n_;
    const Sums positive = sum<1>(fb, gb), negative = sum<-1>(fb, gb);
    if (b == 0) d = shared_rows(fb[0], gb[0], fb[n_ / 2], gb[n_ / 2], positive, negative);
    Sums s = {positive.zeroth + negative.zeroth + product(fb[0], gb[0]), positive.first + negative.first,
              positive.second + negative.second};
    if (nyquist_) {  // kx = +-n/2 together: cos(pi sx), and its derivatives in place of i kappa exp(..)
      const Cell p = product(fb[n_ / 2], gb[n_ / 2]);
      s.zeroth = s.zeroth + nyquist_cos * p;
      s.first = s.first + (0.5f * nyquist_sin) * math::times_i<1>(p);
      s.second = s.second + (0.25f * nyquist_cos) * p;
    }
    const Lanes c = math::load_lanes(&cos_y_[b * kLanes]), w = math::load_lanes(&sin_y_[b * kLanes]);
    const Lanes kappa = math::load_lanes(&freq_y_[b * kLanes]);
    const Lanes re0 = s.zeroth.re * c - s.zeroth.im * w, im0 = s.zeroth.re * w + s.zeroth.im * c;
    const Lanes re1 = s.first.re * c - s.first.im * w, im1 = s.first.re * w + s.first.im * c;
    value += re0;
    x -= im1;
    y -= kappa * im0;
    xx -= s.second.re * c - s.second.im * w;
    xy -= kappa * re1;
    yy -= kappa * kappa * re0;
  }
  d.value += 2 * total(value);
  d.x += 2 * kTwoPi * total(x);
  d.y += 2 * kTwoPi * total(y);
  d.xx += 2 * kTwoPi * kTwoPi * total(xx);
  d.xy += 2 * kTwoPi * kTwoPi * total(xy);
  d.yy += 2 * kTwoPi * kTwoPi * total(yy);
  return d;
}

/// The rows ky = 0 (the positive columns of lane 0) and ky = n/2 (its negative columns), each its own mirror image.
Derivatives ExactMap::shared_rows(const Cell& f0, const Cell& g0, const Cell& f_nyquist,
                                  const Cell& g_nyquist, const Sums& positive, const Sums& negative) const {
  const double cx = std::cos(0.5 * kTwoPi * sx_), nx = std::sin(0.5 * kTwoPi * sx_);
  const double cy = std::cos(0.5 * kTwoPi * sy_), ny = std::sin(0.5 * kTwoPi * sy_);
  const double pi = 0.5 * kTwoPi;
  double row[2], row_x[2], row_xx[2];
  for (int r = 0; r < 2; ++r) {
    const Sums& s = r == 0 ? positive : negative;
    const double corner = r == 0 ? f0.re[0] * g0.re[0] : f0.im[0] * g0.im[0];
    const double last = !nyquist_ ? 0.0
                        : r == 0  ? f_nyquist.re[0] * g_nyquist.re[0]
                                  : f_nyquist.im[0] * g_nyquist.im[0];
    row[r] = 2.0 * s.zeroth.re[0] + corner + last * cx;
    row_x[r] = -2.0 * kTwoPi * s.first.im[0] - last * pi * nx;
    row_xx[r] = -2.0 * kTwoPi * kTwoPi * s.second.re[0] - last * pi * pi * cx;
  }
  Derivatives d;
  d.value = row[0] + cy * row[1];
  d.x = row_x[0] + cy * row_x[1];
  d.y = -pi * ny * row[1];
  d.xx = row_xx[0] + cy * row_xx[1];
  d.xy = -pi * ny * row_x[1];
  d.yy = -pi * pi * cy * row[1];
  return d;
}

void ExactMap::newton(const Cell* f, const Cell* g, Peak& peak) {
  for (int step = 0; step < 2; ++step) {
    const Derivatives d = at(f, g, peak.x, peak.y);
    peak.value = d.value;
    const double determinant = d.xx * d.yy - d.xy * d.xy;
    if (!(d.xx < 0 && determinant > 0)) return;
    const double dx = (d.xy * d.y - d.yy * d.x) / determinant, dy = (d.xy * d.x - d.xx * d.y) / determinant;
    const double most = std::max(std::fabs(dx), std::fabs(dy));
    if (!(most <= kLongestStep)) return;
    peak.x += dx;
    peak.y += dy;
    peak.value += 0.5 * (d.x * dx + d.y * dy);  // g.step + step.H.step / 2 with H step = -g
    if (most < kCloseEnough) return;
  }
}

}  // namespace verglas::cpu::peak
