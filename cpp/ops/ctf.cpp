#include "ops/ctf.h"

#include <algorithm>
#include <vector>

namespace verglas::cpu {
namespace {

// Rows of one image that a thread takes at a time: enough work to outweigh the coefficients, and small enough
// that a single large image occupies every thread.
constexpr int kRows = 32;

math::CtfCoefficients read_row(const double* row) { return math::ctf_coefficients(math::optics_params(row)); }

// The factor of the envelope that depends on kx, for every image; empty if no image has an envelope.
std::vector<float> envelopes_along_x(const double* params, std::size_t n, std::size_t half, double step) {
  std::vector<float> table;
  for (std::size_t i = 0; i < n; ++i) {
    const auto c = read_row(params + i * math::kOpticsColumns);
    if (c.b_quarter == 0.0) continue;
    if (table.empty()) table.assign(n * half, 1.0f);
    for (std::size_t ix = 0; ix < half; ++ix) table[i * half + ix] = math::ctf_envelope(c, step * ix, 0.0);
  }
  return table;
}

void fill_row(const math::CtfRow& row, float scale, const float* envelope, int half, float* out) {
  for (int ix = 0; ix < half; ++ix) out[ix] = math::ctf_row_value(row, ix) * scale;
  if (envelope == nullptr) return;
  for (int ix = 0; ix < half; ++ix) out[ix] *= envelope[ix];
}

}  // namespace

void ctf(const double* params, std::size_t n, int box, double pixel_size_A, float* out, int num_threads) {
  const double step = 1.0 / (box * pixel_size_A);
  const int half = box / 2 + 1;
  const std::vector<float> envelopes = envelopes_along_x(params, n, half, step);
  const int blocks = (box + kRows - 1) / kRows;
#pragma omp parallel for collapse(2) num_threads(num_threads) schedule(static)
  for (std::size_t i = 0; i < n; ++i) {
    for (int block = 0; block < blocks; ++block) {
      const auto c = read_row(params + i * math::kOpticsColumns);
      const float* envelope = envelopes.empty() ? nullptr : envelopes.data() + i * half;
      const int end = std::min(box, (block + 1) * kRows);
      for (int iy = block * kRows; iy < end; ++iy) {
        const double ky = step * (iy < (box + 1) / 2 ? iy : iy - box);
        const float scale = static_cast<float>(c.scale) * math::ctf_envelope(c, 0.0, ky);
        fill_row(math::ctf_row(c, ky, step), scale, envelope, half, out + (i * box + iy) * half);
      }
    }
  }
}

}  // namespace verglas::cpu
