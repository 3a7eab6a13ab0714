// Scores as integers of the same order, and the bin that a score below the best falls into.
#pragma once
#include <cstdint>

#include "cuda/device.h"
#include "cuda/score.h"
#include "math/macros.h"

namespace verglas::cuda {

/// Rises with x; 0 is below every float, so zeroed memory is an empty maximum.
inline __device__ std::uint32_t ordered_bits(float x) {
  const std::uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
/// Below every score where there is none.
inline __device__ float from_ordered_bits(std::uint32_t bits) {
  if (bits == 0) return kNever;
  return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

/// 0 at the top, kScoreBins - 1 at the threshold.
inline __device__ int score_bin(float top, float threshold, float score) {
  const float range = top - threshold;
  const int bin = range > 0.0f ? static_cast<int>((top - score) / range * kScoreBins) : 0;
  return bin < 0 ? 0 : bin < kScoreBins ? bin : kScoreBins - 1;
}

}  // namespace verglas::cuda
