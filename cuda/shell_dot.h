// shell_dot: inner products of half transforms, shell by shell, on the device.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"

namespace verglas::cuda {

/// out[i, s] = sum over the full plane, round(|k|) = s <= max_radius, of Re[conj(a_i[k]) b_j[k]], j = b_of_a[i].
///   a (n, box, box/2 + 1), b (m, box, box/2 + 1) complex64; b_of_a (n) int64 below m, or null for j = i
///   out     (n, max_radius + 1) float64, written; an index out of range gives NaN
///   cost    one read of both arrays. One block an image, float64 sums, each shell's by one thread in raster order:
///           bitwise repeatable, whatever the batch
void shell_dot(const float2* a, const float2* b, const std::int64_t* b_of_a, std::size_t n, std::size_t m,
               int box, int max_radius, double* out, Stream stream);

}  // namespace verglas::cuda
