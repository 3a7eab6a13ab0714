// Small symmetric positive definite systems.
#pragma once
#include <cmath>

#include "math/macros.h"

namespace verglas::math {

/// x of A x = b, for a symmetric positive definite A (N x N, row-major); false where A is not positive
/// definite to rounding. Rows and columns are scaled to a unit diagonal first, so parameters may have any units.
template <int N>
VG_HD bool cholesky_solve(const double* a, const double* b, double* x) {
  double scale[N], lower[N][N], y[N];
  for (int i = 0; i < N; ++i) {
    if (!(a[i * N + i] > 0.0)) return false;
    scale[i] = 1.0 / std::sqrt(a[i * N + i]);
  }
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j <= i; ++j) {
      double sum = a[i * N + j] * scale[i] * scale[j];
      for (int k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
      if (i == j && !(sum > 1e-14)) return false;
      lower[i][j] = i == j ? std::sqrt(sum) : sum / lower[j][j];
    }
  }
  for (int i = 0; i < N; ++i) {
    double sum = b[i] * scale[i];
    for (int k = 0; k < i; ++k) sum -= lower[i][k] * y[k];
    y[i] = sum / lower[i][i];
  }
  for (int i = N - 1; i >= 0; --i) {
    double sum = y[i];
    for (int k = i + 1; k < N; ++k) sum -= lower[k][i] * y[k];
    y[i] = sum / lower[i][i];
  }
  for (int i = 0; i < N; ++i) x[i] = y[i] * scale[i];
  return true;
}

}  // namespace verglas::math
