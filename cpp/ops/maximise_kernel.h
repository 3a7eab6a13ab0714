// The inner loops of maximise: one image's candidates on one slice, added to the sums of the slice.
#pragma once
#include <cmath>
#include <complex>
#include <cstring>
#include <vector>

#include "math/simd.h"
#include "ops/maximise.h"

namespace verglas::cpu::maximise_kernel {

constexpr int kRow = RowLayout::kRow;
typedef float Row __attribute__((vector_size(kRow * sizeof(float)), aligned(4)));
typedef double WideRow __attribute__((vector_size(kRow * sizeof(double)), aligned(8)));

inline const Row& row_at(const float* p) { return *reinterpret_cast<const Row*>(p); }
inline WideRow& wide_at(double* p) { return *reinterpret_cast<WideRow*>(p); }

/// One candidate of an image, filed under its slice.
struct Entry {
  std::int32_t image, pair, shift;
  std::uint8_t opposite;
  double psi, gamma;
};

/// What the candidates of one (image, slice) share: sum of gamma e^{-i m psi} for each (opposite, shift).
struct Phases {
  int stride;  // harmonics, rounded up to kRow
  std::vector<std::int32_t> pair;
  std::size_t direct = 0;     // the first so many pairs are of the slice, the rest of its opposite
  std::vector<double> sums;   // (pairs, re and im, stride)
  std::vector<float> single;  // the same in float32

  explicit Phases(int max_m) : stride(static_cast<int>(math::round_up(max_m + 1, kRow))) {}

  /// Entries sorted by (opposite, shift, psi).
  void build(const Entry* begin, const Entry* end) {
    pair.clear();
    sums.clear();
    direct = 0;
    for (const Entry* e = begin; e != end; ++e) {
      if (e == begin || e->opposite != e[-1].opposite || e->shift != e[-1].shift) {
        pair.push_back(e->pair);
        sums.resize(2 * stride * pair.size(), 0.0);
        direct += e->opposite == 0;
      }
      add(e->psi, e->gamma, sums.data() + 2 * stride * (pair.size() - 1));
    }
    single.assign(sums.begin(), sums.end());
  }

 private:
  /// re, im += gamma e^{-i m psi}, kRow harmonics at a time: powers 0 .. kRow - 1 of the phase, times its kRow-th.
  void add(double psi, double gamma, double* re) const {
    const std::complex<double> phase(std::cos(psi), -std::sin(psi));
    std::complex<double> power = gamma;
    WideRow c, d;
    for (int l = 0; l < kRow; ++l) {
      c[l] = power.real();
      d[l] = power.imag();
      power = {power.real() * phase.real() - power.imag() * phase.imag(),
               power.real() * phase.imag() + power.imag() * phase.real()};
    }
    const double step_re = std::cos(kRow * psi), step_im = -std::sin(kRow * psi);
    for (int m = 0; m < stride; m += kRow) {
      wide_at(re + m) += c;
      wide_at(re + stride + m) += d;
      const WideRow next = c * step_re - d * step_im;
      d = c * step_im + d * step_re;
      c = next;
    }
  }
};

/// sum over pairs first .. last - 1 of phase[m] b[m], V rows of rings side by side.
template <int V>
inline void sum_pairs(const Phases& phases, std::size_t first, std::size_t last, int m, const float* b,
                      std::size_t image_size, int length, Row* re, Row* im) {
  for (int v = 0; v < V; ++v) re[v] = im[v] = Row{};
  for (std::size_t p = first; p < last; ++p) {
    const float* phase = phases.single.data() + 2 * phases.stride * p + m;
    const float c = phase[0], d = phase[phases.stride];
    const float* from = b + phases.pair[p] * image_size;
    for (int v = 0; v < V; ++v) {
      const Row x = row_at(from + v * kRow), y = row_at(from + length + v * kRow);
      re[v] += c * x - d * y;
      im[v] += c * y + d * x;
    }
  }
}

/// Where one (image, slice) adds to, and what it needs. Arrays over rings are padded with zeros by kRow.
struct Group {
  const Phases* phases;
  const float* b;            // of the chunk, (pairs, rows.size())
  const float* h;            // of the image, (n_power, re and im, n_rings)
  const double* inv_sigma2;  // of the image
  double *numerator, *denominator;
  const float *reference, *power;  // of the slice, or null
  double *cross_sum, *power_sum;   // (n_rings + kRow), zeroed
};

template <int V>
inline void add_rows(const Group& g, const PolarGrid& grid, const RowLayout& rows, int m, int at) {
  const Phases& phases = *g.phases;
  const int length = rows.length[m];
  const std::size_t offset = rows.offset[m] + at;
  Row re[V], im[V];
  sum_pairs<V>(phases, 0, phases.direct, m, g.b + offset, rows.size(), length, re, im);
  if (phases.direct < phases.pair.size()) {
    Row other_re[V], other_im[V];
    sum_pairs<V>(phases, phases.direct, phases.pair.size(), m, g.b + offset, rows.size(), length, other_re,
                 other_im);
    const float sign = m % 2 ? -1.0f : 1.0f;
    for (int v = 0; v < V; ++v) re[v] += sign * other_re[v], im[v] -= sign * other_im[v];
  }
  const int ring = grid.first_ring[m] + at;
  for (int v = 0; v < V; ++v) {
    const WideRow x = __builtin_convertvector(re[v], WideRow), y = __builtin_convertvector(im[v], WideRow);
    WideRow s;
    std::memcpy(&s, g.inv_sigma2 + ring + v * kRow, sizeof s);
    wide_at(g.numerator + offset + v * kRow) += x * s;
    wide_at(g.numerator + offset + length + v * kRow) += y * s;
    if (!g.reference) continue;
    const Row a = row_at(g.reference + offset + v * kRow),
              b = row_at(g.reference + offset + length + v * kRow);
    const double twice = m == 0 ? 1.0 : 2.0;
    wide_at(g.cross_sum + ring + v * kRow) +=
        twice * (__builtin_convertvector(a, WideRow) * x + __builtin_convertvector(b, WideRow) * y);
  }
}

/// The weights, and the power of the slice seen through them: even harmonics only.
inline void add_power(const Group& g, int n_rings, int n_power) {
  const Phases& phases = *g.phases;
  for (int k = 0; k < n_power; ++k) {
    double c = 0, d = 0, other_c = 0, other_d = 0;
    for (std::size_t p = 0; p < phases.pair.size(); ++p) {
      const double* phase = phases.sums.data() + 2 * phases.stride * p + 2 * k;
      (p < phases.direct ? c : other_c) += phase[0];
      (p < phases.direct ? d : other_d) += phase[phases.stride];
    }
    const std::size_t at = 2 * static_cast<std::size_t>(k) * n_rings;
    const double twice = k == 0 ? 1.0 : 2.0;
    // phase h + conj(other h)
    const double rr = c + other_c, ri = d + other_d, ir = d - other_d, ii = c - other_c;
    for (int j = 0; j < n_rings; ++j) {
      const double x = g.h[at + j], y = g.h[at + n_rings + j];
      const double re = rr * x - ri * y, im = ir * x + ii * y;
      g.denominator[at + j] += re * g.inv_sigma2[j];
      g.denominator[at + n_rings + j] += im * g.inv_sigma2[j];
      if (g.power) g.power_sum[j] += twice * (g.power[at + j] * re + g.power[at + n_rings + j] * im);
    }
  }
}

inline void add_group(const Group& g, const PolarGrid& grid, const RowLayout& rows, int n_power) {
  for (int m = 0; m <= grid.max_m; ++m) {
    int at = 0;
    for (; at + 2 * kRow <= rows.length[m]; at += 2 * kRow) add_rows<2>(g, grid, rows, m, at);
    if (at < rows.length[m]) add_rows<1>(g, grid, rows, m, at);
  }
  add_power(g, grid.n_rings, n_power);
}

}  // namespace verglas::cpu::maximise_kernel
