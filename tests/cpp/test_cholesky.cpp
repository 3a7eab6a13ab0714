#include <random>

#include "check.h"
#include "math/cholesky.h"

namespace {

// A = M M^T of random M, with rows in units that differ by ten orders of magnitude.
template <int N>
void check_solve(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  double m[N][N + 2], unit[N], want[N], a[N * N], b[N], x[N] = {};
  for (int i = 0; i < N; ++i) {
    unit[i] = std::pow(10.0, 10.0 * i / N - 5.0);
    want[i] = normal(random) / unit[i];
    for (double& value : m[i]) value = normal(random) * unit[i];
  }
  for (int i = 0; i < N; ++i) {
    b[i] = 0.0;
    for (int j = 0; j < N; ++j) {
      a[i * N + j] = 0.0;
      for (int k = 0; k < N + 2; ++k) a[i * N + j] += m[i][k] * m[j][k];
      b[i] += a[i * N + j] * want[j];
    }
  }
  CHECK_NEAR(verglas::math::cholesky_solve<N>(a, b, x), 1, 0);
  for (int i = 0; i < N; ++i) CHECK_NEAR(x[i] * unit[i], want[i] * unit[i], 1e-9);
}

}  // namespace

int main() {
  for (unsigned seed = 0; seed < 50; ++seed) {
    check_solve<1>(seed);
    check_solve<3>(seed);
    check_solve<5>(seed);
  }
  const double singular[4] = {1, 1, 1, 1}, negative[4] = {1, 0, 0, -1}, b[2] = {1, 2};
  double x[2] = {};
  CHECK_NEAR(verglas::math::cholesky_solve<2>(singular, b, x), 0, 0);
  CHECK_NEAR(verglas::math::cholesky_solve<2>(negative, b, x), 0, 0);
  return check::report();
}
