// The lines that a parallel ray is sampled on (radon): formulas that host and device share.
#pragma once
#include <cmath>

#include "math/macros.h"

namespace verglas::math {

/// One view of slices (z, x) from an angle: detector pixel t sees the line x cos - z sin = t, from pixels N // 2. It is
/// sampled once a row z (by_rows), or once a column x, at position slope * (t - width // 2) + offset(line), and each
/// sample counts abs(slope) = the length of the ray between two samples.
struct RadonView {
  double slope, per_line, middle;
  int line_middle;
  bool by_rows;

  /// Position on line l of the ray through the middle of the detector.
  VG_HD double offset(int line) const { return middle + (line - line_middle) * per_line; }
};

VG_HD RadonView radon_view(double angle_rad, int nz, int nx) {
  const double c = std::cos(angle_rad), s = std::sin(angle_rad);
  RadonView v{};
  v.by_rows = std::fabs(c) >= std::fabs(s);
  if (v.by_rows) {  // x = (t + z s) / c
    v.slope = 1.0 / c, v.per_line = s / c, v.middle = nx / 2, v.line_middle = nz / 2;
  } else {  // z = (x c - t) / s
    v.slope = -1.0 / s, v.per_line = c / s, v.middle = nz / 2, v.line_middle = nx / 2;
  }
  return v;
}

}  // namespace verglas::math
