// match: the largest of many linear combinations of a few maps at every pixel, and which it is.
#pragma once
#include <cstddef>
#include <cstdint>

namespace verglas::cpu {

/// best[p] = max over m of sum_k mix[m, k] maps[k, p], which[p] the m that gives it, the first of equal ones.
///   maps   (depth, pixels) float32
///   mix    (rows, depth) float32, rows >= 1
///   best   (pixels) float32, written;  which (pixels) int32, written
/// Each combination is one chain of fused multiply-adds in rising k: the result depends neither on
/// num_threads nor on how pixels are grouped. Cost: 2 rows depth pixels, none of the combinations leaves the cache.
void match(const float* maps, const float* mix, std::size_t rows, std::size_t depth, std::size_t pixels,
           float* best, std::int32_t* which, int num_threads);

}  // namespace verglas::cpu
