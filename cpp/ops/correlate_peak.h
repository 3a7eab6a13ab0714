// Parts of the op correlate: the window of shifts searched, its peak, and the Newton step on the exact map.
#pragma once
#include <vector>

#include "math/fft2d.h"

namespace verglas::cpu::peak {

using Cell = math::RealFft2d::Cell;

/// Integer shifts lo .. hi on both axes, and the patch of the map kept for them: shifts first .. first +
/// count - 1, one more than searched on each side so that a fit finds its neighbours; the whole box needs
/// none (it wraps).
struct Window {
  Window(int n, int max_shift);
  int n, lo, hi, first, count, groups;
  bool whole;
  /// Position in the patch of shift s (a neighbour of a searched one).
  int at(int s) const { return whole ? ((s - first) % n + n) % n : s - first; }
};

struct Peak {
  double x, y, value;
};

/// Running maximum over the patch while its columns arrive in groups of kLanes; keeps the patch for the fit.
class Search {
 public:
  explicit Search(const Window& window);
  void start();
  /// column: n vectors, y = 0 .. n - 1; lanes are the shifts first + g kLanes + lane along x.
  void add(int g, const math::Lanes* column);
  Peak integer_peak() const;
  /// Vertex of the parabolas through the peak and its neighbours on each axis; false, and the peak as it was,
  /// if one of them is higher (a peak cut off by the limit of the search).
  bool parabola(Peak& peak) const;

 private:
  float patch(int sx, int sy) const {
    return patch_[static_cast<std::size_t>(window_.at(sy)) * stride_ + window_.at(sx)];
  }
  Window window_;
  int stride_;
  std::vector<float> patch_;
  std::vector<math::Lanes> bias_;  // 0 where a lane is a searched shift, -infinity elsewhere
  Peak best_;
};

/// C, its gradient and Hessian (in pixels) at any shift, from the spectra.
struct Derivatives {
  double value, x, y, xx, xy, yy;
};

class ExactMap {
 public:
  ExactMap(const math::RealFft2d& fft, int max_kx);
  /// C(s) = sum over the plane of conj(f) g exp(2 pi i k.s / n), not divided by n^2.
  Derivatives at(const Cell* f, const Cell* g, double sx, double sy);
  /// One or two Newton steps; a step is left undone if C is not concave there or it exceeds half a pixel.
  void newton(const Cell* f, const Cell* g, Peak& peak);

 private:
  struct Sums;
  void make_tables(double sx, double sy);
  template <int Sign>
  Sums sum(const Cell* f, const Cell* g) const;
  Derivatives shared_rows(const Cell& f0, const Cell& g0, const Cell& f_nyquist, const Cell& g_nyquist,
                          const Sums& positive, const Sums& negative) const;
  int n_, blocks_, max_kx_;
  bool nyquist_;
  double sx_ = 0, sy_ = 0;
  std::vector<float> cos_x_, sin_x_, cos_y_, sin_y_, freq_y_;
};

}  // namespace verglas::cpu::peak
