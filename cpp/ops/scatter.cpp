#include "ops/scatter.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "math/trig.h"

namespace verglas::cpu {
namespace {

// One register tile of the matrix product: kRows broadcast values against two vectors.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 8;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 4;
#else
constexpr int kLanes = 4, kRows = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
constexpr int kColumns = 2 * kLanes;
constexpr int kStride = 16;  // phases computed directly, see fill_phases
constexpr int kBlock = 128;  // atoms per block: both tables of a 256 px box stay in the L2 cache

int round_up(int n, int m) { return (n + m - 1) / m * m; }

/// Frequencies of one axis: cosines of k = 0..cosines-1, then sines of k = 1..sines. Together they are `box`
/// numbers: the sine of k = 0 is nothing, and that of an even box's Nyquist is dropped.
struct Axis {
  explicit Axis(int box) : cosines(box / 2 + 1), sines((box - 1) / 2), size(box) {}
  int sine(int k) const { return k == 0 || k > sines ? -1 : cosines + k - 1; }
  int cosines, sines, size;
};

/// Atoms grouped by type, and what does not depend on the pose.
struct Prepared {
  std::vector<double> xyz;         // (n, 3) in turns per Fourier pixel
  std::vector<float> weight;       // (n)
  std::vector<float> decay;        // (n, cosines): exp(-B k^2/4)
  std::vector<std::size_t> first;  // (n_types + 1): where each type starts
  std::vector<float> form;         // (n_types, radius_squared): f_t at integer |k|^2
  std::size_t n_radii;
};

Prepared prepare(const ScatterModel& m, ScatterGrid grid, int dimensions) {
  const Axis axis(grid.box);
  const double step = 1.0 / (grid.box * grid.pixel_size_A);
  Prepared p;
  p.first.assign(m.n_types + 1, 0);
  for (std::size_t a = 0; a < m.n_atoms; ++a) ++p.first[m.types[a] + 1];
  for (int t = 0; t < m.n_types; ++t) p.first[t + 1] += p.first[t];
  std::vector<std::size_t> next(p.first.begin(), p.first.end() - 1);
  p.xyz.resize(3 * m.n_atoms);
  p.weight.resize(m.n_atoms);
  p.decay.resize(m.n_atoms * axis.cosines);
  for (std::size_t a = 0; a < m.n_atoms; ++a) {
    const double* row = m.atoms + 5 * a;
    const std::size_t to = next[m.types[a]]++;
    for (int c = 0; c < 3; ++c) p.xyz[3 * to + c] = row[c] * step;
    p.weight[to] = static_cast<float>(row[3]);
    for (int k = 0; k < axis.cosines; ++k)
      p.decay[to * axis.cosines + k] = static_cast<float>(std::exp(-0.25 * row[4] * step * step * k * k));
  }
  const std::size_t edge = grid.box / 2;
  p.n_radii = dimensions * edge * edge + 1;
  p.form.resize(m.n_types * p.n_radii);
  for (int t = 0; t < m.n_types; ++t) {
    for (std::size_t r2 = 0; r2 < p.n_radii; ++r2) {
      double f = 0;
      for (int j = 0; j < m.n_terms; ++j) {
        const double* term = m.factors + 2 * (static_cast<std::size_t>(t) * m.n_terms + j);
        f += term[0] * std::exp(-0.25 * term[1] * step * step * static_cast<double>(r2));
      }
      p.form[t * p.n_radii + r2] = static_cast<float>(f);
    }
  }
  return p;
}

/// What one thread needs: tables of one block of atoms, laid out in panels of the tile's width, and the products.
struct Scratch {
  Scratch(int box, int sets)
      : rows(round_up(box, kRows)),
        columns(round_up(box, kColumns)),
        line(round_up(box + kColumns, kLanes)),
        phases(2 * round_up(box / 2 + 1, kStride)),
        y(static_cast<std::size_t>(sets) * kBlock * rows),
        x(static_cast<std::size_t>(kBlock) * columns),
        sums(static_cast<std::size_t>(sets) * rows * columns) {}
  float* y_set(int s) { return y.data() + static_cast<std::size_t>(s) * kBlock * rows; }
  float* sums_set(int s) { return sums.data() + static_cast<std::size_t>(s) * rows * columns; }
  int rows, columns;
  std::vector<float> line, phases, y, x, sums;
};

/// cosine[k], sine[k] of 2 pi k u for k < n, a multiple of kStride: exp(i(p + q)) = exp(ip) exp(iq), so that
/// only the first kStride and every kStride-th are computed from the phase itself. Error below 1e-6.
void fill_phases(double u, int n, float* cosine, float* sine) {
  float c0[kStride], s0[kStride];
  for (int i = 0; i < kStride; ++i) c0[i] = math::cos_turns(i * u);
  for (int i = 0; i < kStride; ++i) s0[i] = math::sin_turns(i * u);
  for (int k = 0; k < n; k += kStride) {
    const float c = math::cos_turns(k * u), s = math::sin_turns(k * u);
    for (int i = 0; i < kStride; ++i) cosine[k + i] = c * c0[i] - s * s0[i];
    for (int i = 0; i < kStride; ++i) sine[k + i] = s * c0[i] + c * s0[i];
  }
}

/// line[k] = decay cos(2 pi k u), line[cosines + k - 1] = decay sin(2 pi k u), zeros up to `padded`.
void fill_line(const Axis& axis, double u, const float* decay, int padded, Scratch& s) {
  float *line = s.line.data(), *cosine = s.phases.data(), *sine = cosine + s.phases.size() / 2;
  fill_phases(u, static_cast<int>(s.phases.size() / 2), cosine, sine);
  for (int k = 0; k < axis.cosines; ++k) line[k] = decay[k] * cosine[k];
  for (int k = 1; k <= axis.sines; ++k) line[axis.cosines + k - 1] = decay[k] * sine[k];
  for (int k = axis.size; k < padded; ++k) line[k] = 0;
}

/// Writes one atom's line into panels [panel][atom of the block][width].
template <int kWidth>
void pack(const float* line, int padded, int slot, float scale, float* panels) {
  for (int p = 0; p < padded / kWidth; ++p) {
    float* to = panels + (static_cast<std::size_t>(p) * kBlock + slot) * kWidth;
    for (int i = 0; i < kWidth; ++i) to[i] = scale * line[p * kWidth + i];
  }
}

/// sums += y^T x over n atoms for one register tile.
void add_tile(const float* y, const float* x, int n, float* sums, int stride) {
  Vec acc[kRows][2] = {};
  for (int a = 0; a < n; ++a) {
    Vec x0, x1;
    __builtin_memcpy(&x0, x + a * kColumns, sizeof(Vec));
    __builtin_memcpy(&x1, x + a * kColumns + kLanes, sizeof(Vec));
    const float* row = y + a * kRows;
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      acc[i][0] += row[i] * x0;
      acc[i][1] += row[i] * x1;
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int l = 0; l < kLanes; ++l) sums[i * stride + l] += acc[i][0][l];
    for (int l = 0; l < kLanes; ++l) sums[i * stride + kLanes + l] += acc[i][1][l];
  }
}

void multiply_block(Scratch& s, int set, int n) {
  for (int column = 0; column < s.columns; column += kColumns) {
    const float* x = s.x.data() + static_cast<std::size_t>(column) * kBlock;
    for (int row = 0; row < s.rows; row += kRows)
      add_tile(s.y_set(set) + static_cast<std::size_t>(row) * kBlock, x, n,
               s.sums_set(set) + static_cast<std::size_t>(row) * s.columns + column, s.columns);
  }
}

/// Coefficient of (+-ky, kx) from the products of (cos, sin) tables: (Cy -+ i Sy)(Cx - i Sx), summed.
std::complex<float> coefficient(const float* sums, int stride, const Axis& axis, int ky, int kx,
                                bool negative) {
  const int sy = axis.sine(ky), sx = axis.sine(kx);
  const float cc = sums[ky * stride + kx], ss = sy < 0 || sx < 0 ? 0.0f : sums[sy * stride + sx];
  const float sc = sy < 0 ? 0.0f : sums[sy * stride + kx], cs = sx < 0 ? 0.0f : sums[ky * stride + sx];
  return negative ? std::complex<float>(cc + ss, sc - cs) : std::complex<float>(cc - ss, -sc - cs);
}

void image_type(const Prepared& p, const Axis& axis, int type, const double* r, const double* shift,
                Scratch& s) {
  std::fill(s.sums.begin(), s.sums.end(), 0.0f);
  for (std::size_t a0 = p.first[type]; a0 < p.first[type + 1]; a0 += kBlock) {
    const int n = static_cast<int>(std::min<std::size_t>(kBlock, p.first[type + 1] - a0));
    for (int i = 0; i < n; ++i) {
      const double* v = p.xyz.data() + 3 * (a0 + i);
      const float* decay = p.decay.data() + (a0 + i) * axis.cosines;
      fill_line(axis, r[0] * v[0] + r[1] * v[1] + r[2] * v[2] - shift[0], decay, s.columns, s);
      pack<kColumns>(s.line.data(), s.columns, i, 1.0f, s.x.data());
      fill_line(axis, r[3] * v[0] + r[4] * v[1] + r[5] * v[2] - shift[1], decay, s.rows, s);
      pack<kRows>(s.line.data(), s.rows, i, p.weight[a0 + i], s.y.data());
    }
    multiply_block(s, 0, n);
  }
}

void add_plane(const Prepared& p, const Axis& axis, int type, const Scratch& s, std::complex<float>* out) {
  const float* form = p.form.data() + type * p.n_radii;
  for (int iy = 0; iy < axis.size; ++iy) {
    const bool negative = iy >= axis.cosines;
    const int ky = negative ? axis.size - iy : iy;
    std::complex<float>* row = out + static_cast<std::size_t>(iy) * axis.cosines;
    for (int kx = 0; kx < axis.cosines; ++kx)
      row[kx] += form[ky * ky + kx * kx] * coefficient(s.sums.data(), s.columns, axis, ky, kx, negative);
  }
}

/// Products for the planes +-kz of one type: set 0 weighted by cos(2 pi kz z), set 1 by sin(2 pi kz z).
void plane_type(const Prepared& p, const Axis& axis, int type, int kz, Scratch& s) {
  std::fill(s.sums.begin(), s.sums.end(), 0.0f);
  const bool with_sine = axis.sine(kz) >= 0;
  for (std::size_t a0 = p.first[type]; a0 < p.first[type + 1]; a0 += kBlock) {
    const int n = static_cast<int>(std::min<std::size_t>(kBlock, p.first[type + 1] - a0));
    for (int i = 0; i < n; ++i) {
      const double* v = p.xyz.data() + 3 * (a0 + i);
      const float* decay = p.decay.data() + (a0 + i) * axis.cosines;
      const float weight = p.weight[a0 + i] * decay[kz];
      fill_line(axis, v[0], decay, s.columns, s);
      pack<kColumns>(s.line.data(), s.columns, i, 1.0f, s.x.data());
      fill_line(axis, v[1], decay, s.rows, s);
      pack<kRows>(s.line.data(), s.rows, i, weight * math::cos_turns(kz * v[2]), s.y_set(0));
      if (with_sine) pack<kRows>(s.line.data(), s.rows, i, weight * math::sin_turns(kz * v[2]), s.y_set(1));
    }
    multiply_block(s, 0, n);
    if (with_sine) multiply_block(s, 1, n);
  }
}

void add_planes(const Prepared& p, const Axis& axis, int type, int kz, Scratch& s, std::complex<float>* out) {
  const float* form = p.form.data() + type * p.n_radii;
  const std::size_t plane = static_cast<std::size_t>(axis.size) * axis.cosines;
  const bool with_sine = axis.sine(kz) >= 0;
  for (int iy = 0; iy < axis.size; ++iy) {
    const bool negative = iy >= axis.cosines;
    const int ky = negative ? axis.size - iy : iy;
    for (int kx = 0; kx < axis.cosines; ++kx) {
      const float f = form[kz * kz + ky * ky + kx * kx];
      const auto even = f * coefficient(s.sums_set(0), s.columns, axis, ky, kx, negative);
      const auto odd = with_sine ? f * coefficient(s.sums_set(1), s.columns, axis, ky, kx, negative)
                                 : std::complex<float>(0);
      // (Cz - i Sz) at +kz, (Cz + i Sz) at -kz
      const std::size_t at = static_cast<std::size_t>(iy) * axis.cosines + kx;
      out[kz * plane + at] += std::complex<float>(even.real() + odd.imag(), even.imag() - odd.real());
      if (with_sine)
        out[(axis.size - kz) * plane + at] +=
            std::complex<float>(even.real() - odd.imag(), even.imag() + odd.real());
    }
  }
}

}  // namespace

void scatter(const ScatterModel& model, const double* matrices, const double* shifts_A, std::size_t n_images,
             ScatterGrid grid, std::complex<float>* out, int num_threads) {
  const Axis axis(grid.box);
  const Prepared p = prepare(model, grid, 2);
  const double step = 1.0 / (grid.box * grid.pixel_size_A);
  const std::size_t image_size = static_cast<std::size_t>(grid.box) * axis.cosines;
#pragma omp parallel num_threads(num_threads)
  {
    Scratch scratch(grid.box, 1);
#pragma omp for schedule(dynamic)
    for (std::size_t i = 0; i < n_images; ++i) {
      const double shift[2] = {shifts_A[2 * i] * step, shifts_A[2 * i + 1] * step};
      std::complex<float>* image = out + i * image_size;
      std::fill(image, image + image_size, std::complex<float>(0));
      for (int t = 0; t < model.n_types; ++t) {
        image_type(p, axis, t, matrices + 9 * i, shift, scratch);
        add_plane(p, axis, t, scratch, image);
      }
    }
  }
}

void scatter_volume(const ScatterModel& model, ScatterGrid grid, std::complex<float>* out, int num_threads) {
  const Axis axis(grid.box);
  const Prepared p = prepare(model, grid, 3);
  const std::size_t size = static_cast<std::size_t>(grid.box) * grid.box * axis.cosines;
  std::fill(out, out + size, std::complex<float>(0));
#pragma omp parallel num_threads(num_threads)
  {
    Scratch scratch(grid.box, 2);
#pragma omp for schedule(dynamic)
    for (int kz = 0; kz < axis.cosines; ++kz) {
      for (int t = 0; t < model.n_types; ++t) {
        plane_type(p, axis, t, kz, scratch);
        add_planes(p, axis, t, kz, scratch, out);
      }
    }
  }
}

}  // namespace verglas::cpu
