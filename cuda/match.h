// match: the largest of many linear combinations of a few maps at every pixel, and which it is, on the device.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"

namespace verglas::cuda {

/// best[p] = max over m of sum_k mix[m, k] maps[k, p], which[p] the m that gives it, the first of equal ones.
///   maps (depth, pixels), mix (rows, depth) float32; best (pixels) float32, which (pixels) int32, written
///   cost  2 rows depth pixels operations; a block of 64 pixels reads its maps once per 64 rows, the combinations
///         never leave it. Each is one chain of multiply-adds in rising k: the result does not depend on the blocks
void match(const float* maps, const float* mix, std::size_t rows, std::size_t depth, std::size_t pixels,
           float* best, std::int32_t* which, Stream stream);

}  // namespace verglas::cuda
