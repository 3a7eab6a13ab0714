#include "ops/ctf.h"

namespace verglas::cpu {
namespace {

math::OpticsParams read_row(const double* row) {
  return {row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]};
}

void fill_image(const math::CtfCoefficients& c, int box, double step, float* out) {
  const int half = box / 2 + 1;
  for (int iy = 0; iy < box; ++iy) {
    const double ky = step * (iy < (box + 1) / 2 ? iy : iy - box);
    float* row = out + static_cast<std::size_t>(iy) * half;
    for (int ix = 0; ix < half; ++ix) row[ix] = math::ctf_value(c, step * ix, ky);
    if (c.b_quarter != 0.0) {
      for (int ix = 0; ix < half; ++ix) row[ix] *= math::ctf_envelope(c, step * ix, ky);
    }
  }
}

}  // namespace

void ctf(const double* params, std::size_t n, int box, double pixel_size_A, float* out, int num_threads) {
  const double step = 1.0 / (box * pixel_size_A);
  const std::size_t image_size = static_cast<std::size_t>(box) * (box / 2 + 1);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::size_t i = 0; i < n; ++i) {
    fill_image(math::ctf_coefficients(read_row(params + i * math::kOpticsColumns)), box, step,
               out + i * image_size);
  }
}

}  // namespace verglas::cpu
