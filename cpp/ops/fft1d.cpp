#include "ops/fft1d.h"

#include <algorithm>
#include <vector>

#include "math/fft1d.h"
#include "math/lanes.h"

namespace verglas::cpu {
namespace {

using math::Complex;
using math::kLanes;
using math::Lanes;
using Row = std::vector<Complex<Lanes>>;

/// Calls block(first, count) for every kLanes rows.
template <class Block>
void for_blocks(std::size_t n, Block block) {
  for (std::size_t first = 0; first < n; first += kLanes)
    block(first, static_cast<int>(std::min<std::size_t>(kLanes, n - first)));
}

void load(const std::complex<float>* x, int count, int length, Complex<Lanes>* row) {
  for (int l = 0; l < count; ++l)
    for (int j = 0; j < length; ++j) {
      row[j].re[l] = x[static_cast<std::size_t>(l) * length + j].real();
      row[j].im[l] = x[static_cast<std::size_t>(l) * length + j].imag();
    }
}

void store(const Complex<Lanes>* row, int count, int length, std::complex<float>* out) {
  for (int l = 0; l < count; ++l)
    for (int j = 0; j < length; ++j)
      out[static_cast<std::size_t>(l) * length + j] = {row[j].re[l], row[j].im[l]};
}

}  // namespace

void fft1d(const std::complex<float>* x, std::size_t n, int length, bool inverse, std::complex<float>* out) {
  const math::Fft1d plan(length);
  Row row(length), scratch(length);
  for_blocks(n, [&](std::size_t first, int count) {
    load(x + first * length, count, length, row.data());
    const Complex<Lanes>* y =
        inverse ? plan.inverse(row.data(), scratch.data()) : plan.forward(row.data(), scratch.data());
    store(y, count, length, out + first * length);
  });
}

void rfft1d(const float* x, std::size_t n, int length, std::complex<float>* out) {
  const math::RealFft1d plan(length);
  Row row(plan.storage()), scratch(plan.storage());
  for_blocks(n, [&](std::size_t first, int count) {
    Lanes* reals = math::RealFft1d::reals(row.data());
    for (int l = 0; l < count; ++l)
      for (int j = 0; j < length; ++j) reals[j][l] = x[(first + l) * length + j];
    store(plan.forward(row.data(), scratch.data()), count, plan.half(), out + first * plan.half());
  });
}

void irfft1d(const std::complex<float>* x, std::size_t n, int length, float* out) {
  const math::RealFft1d plan(length);
  Row row(plan.storage()), scratch(plan.storage());
  for_blocks(n, [&](std::size_t first, int count) {
    load(x + first * plan.half(), count, plan.half(), row.data());
    const Lanes* y = plan.inverse(row.data(), scratch.data());
    for (int l = 0; l < count; ++l)
      for (int j = 0; j < length; ++j) out[(first + l) * length + j] = y[j][l];
  });
}

}  // namespace verglas::cpu
