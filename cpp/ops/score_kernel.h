// The inner kernels of score: from harmonics to scores at every in-plane angle, for one block of slices and
// kLanes pairs of (image, shift) in SIMD lanes.
//
// Stage 1.  For every m:  rr = sum_r Re a Re b, ii = sum_r Im a Im b, ri = sum_r Re a Im b, ir = sum_r Im a Re b.
//           The slice d and its opposite -d (rot + 180, 180 - tilt), whose harmonics are (-1)^m conj(a_m), share them:
//               c_m  = (rr + ii) + i (ri - ir)               c'_m = (-1)^m [(rr - ii) + i (ri + ir)]
//           so two directions cost what one does. (-1)^m is a half turn of psi and only renumbers the output.
// Stage 2.  score(psi_j) = sum_m eps_m Re(c_m exp(-i m psi_j)), psi_j = 2 pi (j + 1/2) / n_psi, n_psi a multiple of 8.
//           Angles come in sets of 16: +-psi_q (the products with cos and sin are shared) times eight turns
//           of 45 degrees (an 8-point real transform over the classes m mod 8). m and 8 - m fall into one
//           class by conjugation. That leaves 7/32 n_psi M multiply-adds instead of 2 n_psi M.
// The power term, priors of direction and shift are Fourier series in psi themselves and enter c_m before stage 2.
#pragma once
#include <cstdint>
#include <vector>

#include "math/simd.h"
#include "ops/polar.h"

namespace verglas::cpu {

/// Slices per block (stage 1 keeps 4 sums for each in registers) = columns per tile of stage 2. A block makes
/// two tiles: the slices themselves, then their opposites.
constexpr int kBlock = math::kVectorRegisters >= 32 ? 4 : 2;

/// Slices packed for stage 1: block-major, then m-major, [value][slice of the block][re, im].
struct PackedSlices {
  std::size_t n_slices = 0, n_blocks = 0;
  int n_power = 0;
  math::AlignedFloats a;            // (n_blocks, size, kBlock, 2)
  math::AlignedFloats power;        // (n_blocks, n_rings, n_power, kBlock, 2)
  math::AlignedFloats prior;        // (n_blocks, 2, kBlock): slices, opposites; kNever where absent
  std::vector<std::uint8_t> tiles;  // (n_blocks): bit 0 slices in use, bit 1 opposites in use
};

/// Log prior of what must never be chosen: finite, so that no NaN can arise from it.
constexpr float kNever = -1e30f;

/// Order of m in stage 2: class 0, class 4, then 1 (with 7), 2 (with 6), 3 (with 5).
struct PsiTables {
  int n_psi, max_m, n_base;     // n_base base angles psi_q
  int begin[6];                 // first slot of each class in the order above, and the end
  std::vector<int> slot;        // (max_m + 1)
  std::vector<float> sign;      // (max_m + 1): -1 where m mod 8 is 5, 6, 7: conjugated
  std::vector<float> cos, sin;  // (n_base, max_m + 1) by slot, eps_m and the sign of sin included
  PsiTables(int n_psi, int max_m);
};

/// Scratch of one thread: a tile of c_m in slot order, [tile][slot][re, im][kBlock] lanes.
struct KernelScratch {
  math::AlignedFloats c, scores;
};

/// What stage 1 adds to c beside the priors of the slices.
struct LaneTerms {
  const float* log_shift;  // (kLanes)
  /// (2 tiles, kBlock, 2 n_power - 1, kLanes): -q_m / 2, real and imaginary; null: no power
  const float* power;
};

void correlate_block(const PolarGrid& grid, const PsiTables& psi, const PackedSlices& slices,
                     std::size_t block, const float* b, const LaneTerms& terms, float* c);

/// q_m = sum_r conj(p_m) cp_m of the images in the lanes, as LaneTerms::power wants it (factor `scale`).
void power_block(const PolarGrid& grid, const PackedSlices& slices, std::size_t block, const float* cp,
                 float scale, float* q);

/// best[column] = max(best[column], max over psi), kBlock columns of one tile.
void psi_maxima(const PsiTables& psi, const float* c_tile, float* best);

/// scores[j][column], j the index of psi; `opposite` says that the tile holds opposites.
void psi_scores(const PsiTables& psi, const float* c_tile, bool opposite, float* scores);

}  // namespace verglas::cpu
