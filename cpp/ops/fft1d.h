// fft1d: transforms of the rows of an array. Not part of the public interface (arrays go through scipy.fft):
// it is how the tests reach math/fft1d.h, on every instruction-set level.
#pragma once
#include <complex>
#include <cstddef>

namespace verglas::cpu {

/// out[i, k] = sum_j x[i, j] exp(-+ 2 pi i jk / length), unnormalised; x, out (n, length).
void fft1d(const std::complex<float>* x, std::size_t n, int length, bool inverse, std::complex<float>* out);

/// Half transforms of real rows: x (n, length) -> out (n, length/2 + 1).
void rfft1d(const float* x, std::size_t n, int length, std::complex<float>* out);

/// Its unnormalised inverse: x (n, length/2 + 1) -> out (n, length), length times the rows.
void irfft1d(const std::complex<float>* x, std::size_t n, int length, float* out);

}  // namespace verglas::cpu
