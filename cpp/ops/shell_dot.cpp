#include "ops/shell_dot.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "math/slice.h"

namespace verglas::cpu {
namespace {

/// Shell of every pixel with |kx|, |ky| <= max_radius; max_radius + 1 stands for all that lie beyond.
std::vector<std::int32_t> shell_table(int radius) {
  std::vector<std::int32_t> shell(static_cast<std::size_t>(radius + 1) * (radius + 1));
  for (int y = 0; y <= radius; ++y)
    for (int x = 0; x <= radius; ++x)
      shell[static_cast<std::size_t>(y) * (radius + 1) + x] = std::min(radius + 1, math::shell_of(x, y));
  return shell;
}

}  // namespace

void shell_dot(const std::complex<float>* a, const std::complex<float>* b, const std::int64_t* b_of_a,
               std::size_t n, int box, int max_radius, double* out, int num_threads) {
  const auto shell = shell_table(max_radius);
  const std::size_t columns = box / 2 + 1, image = box * columns;
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::size_t i = 0; i < n; ++i) {
    const auto* x = a + i * image;
    const auto* y = b + (b_of_a ? static_cast<std::size_t>(b_of_a[i]) : i) * image;
    std::vector<double> once(max_radius + 2), twice(max_radius + 2);
    for (int ky = -max_radius; ky <= max_radius; ++ky) {
      const std::size_t row = static_cast<std::size_t>(ky < 0 ? ky + box : ky) * columns;
      const auto* s = shell.data() + static_cast<std::size_t>(std::abs(ky)) * (max_radius + 1);
      const auto product = [&](int kx) {
        const auto p = x[row + kx], q = y[row + kx];
        return double(p.real()) * q.real() + double(p.imag()) * q.imag();
      };
      once[s[0]] += product(0);  // the mates of kx = 0 are in the array themselves
      for (int kx = 1; kx <= max_radius; ++kx) twice[s[kx]] += product(kx);
    }
    for (int k = 0; k <= max_radius; ++k) out[i * (max_radius + 1) + k] = once[k] + 2 * twice[k];
  }
}

}  // namespace verglas::cpu
