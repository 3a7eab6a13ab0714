// shell_dot: inner products of half transforms, shell by shell.
#pragma once
#include <complex>
#include <cstddef>
#include <cstdint>

namespace verglas::cpu {

/// out[i, s] = sum over the full plane, round(|k|) = s <= max_radius, of Re[conj(a_i[k]) b_j[k]], j = b_of_a[i].
///   a          (n, box, box/2 + 1) complex64, phase-centred half transforms
///   b          (m, box, box/2 + 1) complex64; b == a gives the power of each shell
///   b_of_a     (n,) indices below m, or null for j = i
///   out        (n, max_radius + 1) float64, written
///   cost       one read of both arrays; float64 sums in one fixed order per image, parallel over images
void shell_dot(const std::complex<float>* a, const std::complex<float>* b, const std::int64_t* b_of_a,
               std::size_t n, int box, int max_radius, double* out, int num_threads);

}  // namespace verglas::cpu
