// Real transforms of one small square image, laid out for kernels that stay in cache: columns first, with
// kLanes neighbouring columns in a vector, then rows, with kLanes neighbouring ky in a vector. Between the
// two stand transposes of kLanes x kLanes tiles. Large arrays go through scipy.fft.
//
// Layout of a spectrum: element [b * n + kx], lane l holds F(kx, ky = b * kLanes + l), ky = 0 .. (n - 1) / 2,
// kx in the usual order 0 .. n - 1; lanes beyond are zero. F = sum f(x, y) exp(-2 pi i (kx x + ky y) / n).
// The rows ky = 0 and, for even n, ky = n/2 are each their own mirror image, so they share lane 0 of block 0:
//   slot 0 and, for even n, slot n/2 hold (F(kx, 0), F(kx, n/2)), two real numbers, as (re, im);
//   slots 0 < kx < n/2 hold F(kx, 0);  slots kx > n/2 hold F(kx - n, n/2), or zero for odd n.
// Every (kx, ky) of the plane thus stands there once, up to Friedel symmetry.
#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "math/fft1d.h"
#include "math/lanes.h"

namespace verglas::math {

namespace fft2d {

template <int W, std::size_t... I>
inline void exchange(Lanes& a, Lanes& b, std::index_sequence<I...>) {
  constexpr int w = W;
  const Lanes low = __builtin_shufflevector(a, b, ((I & w) ? int(I) - w + kLanes : int(I))...);
  b = __builtin_shufflevector(a, b, ((I & w) ? int(I) + kLanes : int(I) + w)...);
  a = low;
}

/// In-place transpose of kLanes x kLanes floats: off-diagonal blocks of side 1, 2, 4, .. change places.
template <int W = 1>
inline void transpose(Lanes* row) {
  if constexpr (W < kLanes) {
    for (int i = 0; i < kLanes; ++i)
      if (!(i & W)) exchange<W>(row[i], row[i + W], std::make_index_sequence<kLanes>{});
    transpose<2 * W>(row);
  }
}

/// out[j] = column j of the tile whose rows are in[0 .. count); missing rows are zero. Writes `keep` columns.
inline void transpose_tile(const Complex<Lanes>* in, int count, Complex<Lanes>* out, int keep) {
  Lanes re[kLanes], im[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    re[i] = i < count ? in[i].re : Lanes{};
    im[i] = i < count ? in[i].im : Lanes{};
  }
  transpose(re);
  transpose(im);
  for (int j = 0; j < keep; ++j) out[j] = {re[j], im[j]};
}

}  // namespace fft2d

/// Plan of the transforms of n x n images (n a product of 2, 3, 5, 7); rows ky > max_ky are left out.
class RealFft2d {
 public:
  using Cell = Complex<Lanes>;

  explicit RealFft2d(int n, int max_ky) : n_(n), columns_(n), rows_(n) {
    const int all = (n + 1) / 2;
    kept_ = std::max(1, std::min(all, max_ky + 1));
  }

  int size() const { return n_; }
  int blocks() const { return (kept_ + kLanes - 1) / kLanes; }
  std::size_t spectrum_size() const { return static_cast<std::size_t>(blocks()) * n_; }
  /// Elements of each work array.
  std::size_t work_size() const { return static_cast<std::size_t>(column_stride()); }
  /// Elements of one group of kLanes columns in column-transform order.
  int column_stride() const { return std::max({columns_.storage(), n_, blocks() * kLanes}) + kLanes; }

  /// Transform of scale (image - offset), rows 0 .. max_ky.
  void forward(const float* image, float offset, float scale, Cell* spectrum, Cell* work,
               Cell* scratch) const {
    for (int x = 0; x < n_; x += kLanes) {
      const int count = std::min(kLanes, n_ - x);
      Lanes* reals = RealFft1d::reals(work);
      for (int y = 0; y < n_; ++y) {
        const float* p = image + static_cast<std::size_t>(y) * n_ + x;
        reals[y] = scale * ((count == kLanes ? load_lanes(p) : load_lanes(p, count)) - offset);
      }
      Cell* half = columns_.forward(work, scratch);
      half[0].im = n_ % 2 == 0 ? half[n_ / 2].re : Lanes{};  // both rows are real here
      for (int b = 0; b < blocks(); ++b)
        fft2d::transpose_tile(half + b * kLanes, std::min(kLanes, kept_ - b * kLanes),
                              spectrum + static_cast<std::size_t>(b) * n_ + x, count);
    }
    for (int b = 0; b < blocks(); ++b) {
      Cell* block = spectrum + static_cast<std::size_t>(b) * n_;
      const Cell* done = rows_.forward(block, scratch);
      if (done != block) std::copy(done, done + n_, block);
    }
    separate(spectrum);
  }

  /// Inverse along x of block b (n elements, overwritten), for the positions x = first .. first + kLanes
  /// groups, modulo n. columns: `groups` runs of column_stride() elements, of which this fills ky = b kLanes ..
  void inverse_rows(int b, Cell* block, Cell* scratch, int first, int groups, Cell* columns) const {
    if (b == 0) combine(block);
    const Cell* done = rows_.inverse(block, scratch);
    Cell tile[kLanes];
    for (int g = 0; g < groups; ++g) {
      int x = (first + g * kLanes) % n_;
      if (x < 0) x += n_;
      const Cell* in = done + x;
      if (x + kLanes > n_) {
        for (int l = 0; l < kLanes; ++l) tile[l] = done[(x + l) % n_];
        in = tile;
      }
      Cell* out = columns + static_cast<std::size_t>(g) * column_stride() + b * kLanes;
      fft2d::transpose_tile(in, kLanes, out, kLanes);
    }
  }

  /// Inverse along y of one run of columns (overwritten): returns n vectors, y = 0 .. n - 1, lanes =
  /// positions x. The result is n^2 times the image.
  const Lanes* inverse_columns(Cell* column, Cell* scratch) const {
    const Lanes shared = column[0].im;
    std::fill(column + kept_, column + columns_.half(), Cell{});
    if (n_ % 2 == 0) column[n_ / 2] = {shared, Lanes{}};
    return columns_.inverse(column, scratch);
  }

 private:
  /// Lane 0 of block 0 from the transform of a + i b (a, b the two real rows) to the slots described above.
  void separate(Cell* block) const {
    for (int kx = 1; 2 * kx < n_; ++kx) {
      Cell &p = block[kx], &q = block[n_ - kx];
      const float pr = p.re[0], pi = p.im[0], qr = q.re[0], qi = q.im[0];
      p.re[0] = 0.5f * (pr + qr);
      p.im[0] = 0.5f * (pi - qi);
      q.re[0] = 0.5f * (pi + qi);
      q.im[0] = 0.5f * (pr - qr);
    }
  }

  void combine(Cell* block) const {
    for (int kx = 1; 2 * kx < n_; ++kx) {
      Cell &p = block[kx], &q = block[n_ - kx];
      const float pr = p.re[0], pi = p.im[0], qr = q.re[0], qi = q.im[0];
      p.re[0] = pr + qi;
      p.im[0] = pi + qr;
      q.re[0] = pr - qi;
      q.im[0] = qr - pi;
    }
  }

  int n_, kept_;
  RealFft1d columns_;
  Fft1d rows_;
};

}  // namespace verglas::math
