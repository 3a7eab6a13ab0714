// score: the exhaustive search of images against central slices at every in-plane angle and shift, on the
// device. What is computed is cpp/ops/score.h; its loops are these.
//
//   Stage 1  c_m = sum_r conj(a_m(r)) b_m(r): for every m a real matrix product
//            [re, im of 16 slices x rings] . [rings x re, im of 16 columns], a column being an (image, shift);
//            the four products serve the slice and its opposite. The power term's rings are further rows of the
//            even harmonics.
//   Stage 2  score(psi_q) = (Ce + Se) + (Co + So), Ce = sum over even m of eps_m Re c_m cos m psi_q, S with Im and
//            sin, o over odd m: four matrix products [16 angles x m] . [m x 16 columns] per slice, for psi_q
//            in the first quadrant only; psi_q + 180 degrees turns the sign of the odd sums, -psi_q that of the sines.
//   Both on tensor cores. TF32 keeps 11 bits of a float32, too few for log-likelihoods of a thousand nats, so
//   that every operand is split, x = hi + lo, and hi hi + hi lo + lo hi summed in float32: 22 bits. Largest
//   error over the largest L at R = 16 (tests/test_score.py): plain TF32 1.5e-4, that is 0.2 nats, 15 times
//   SCORE_FLOAT32; bfloat16 split the same way, 16 bits at twice the rate, 2.2e-6; TF32 split 3.2e-7, as good
//   as float32.
//
// A block holds 16 columns and passes over tiles of 16 slices; 16 harmonics at a time go through shared
// memory from stage 1 to stage 2, whose sums stay in registers. Scores exist in registers and one warp's
// shared memory only. The steps are the CPU's (math/score_settings.h) with a pass of its own for each of maxima,
// sums, limit (where lists are too long) and collect, which appends candidates for the caller to sort; choose
// and trim work on what the passes leave. Every score is made by one sequence of operations on its own row and
// column, so it does not depend on what else is in the tile or the batch; sums have one order. collect appends
// in any order: the sort restores it.
//
//   cost     per image, direction and shift: 2 size multiply-adds of stage 1 (a slice serves two directions) and
//            n_psi / 4 times 2 (max_m + 1) of stage 2, times 3 for the split; beyond registers and shared
//            memory 8 size bytes read per 16 slices and column, from the second-level cache
//   floor    operations over the tensor cores' rate; from device memory samples once, harmonics of shifted images
//            written and read once: 16 size bytes per image and shift
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/polar_weighted.h"
#include "math/score_settings.h"

namespace verglas::cuda {

using math::ScoreSettings;

/// What is finite and never chosen, as cpp/ops/score_kernel.h's.
constexpr float kNever = -1e30f;
/// Slice tiles of one block: more blocks than processors for any batch, and one order of the sums.
constexpr int kSliceTiles = 8;
/// Bins of the distance below the best score by which too long lists of candidates are cut.
constexpr int kScoreBins = 256;

/// Slices of the reference as score streams them: (slice tiles, layout.floats()).
///   harmonics (n, size) complex, power (n, n_rings, n_power) complex; tiles zeroed by the caller, written
void score_pack(const PolarTables& grid, const TileLayout& layout, const float* harmonics, const float* power,
                std::size_t n, float* tiles, Stream stream);

/// Power rows of the images' tiles: power_factor times cp (n, n_rings, n_power) complex of each column's image.
///   correlation: only columns 8 to 15 of a tile hold the power (of the images of columns 0 to 7), and nothing else
void score_power_rows(const PolarTables& grid, const TileLayout& layout, const ScoreSettings& settings,
                      const float* cp, const std::int32_t* image, std::size_t columns, float* tiles,
                      Stream stream);

struct ScoreProblem {
  PolarTables grid;
  TileLayout layout;
  ScoreSettings settings;
  const float* basis;   ///< (row tiles, m chunks, 4, kFragment): cos even, sin even, cos odd, sin odd, eps in
  const float* slices;  ///< of score_pack
  const float* prior;   ///< (n_slices, 2); kNever: absent
  std::size_t n_slices;
  const float* columns;  ///< (tiles, layout.floats())
  /// (tiles * kProductTile) of each column; -1: none. Images rise along the columns
  const std::int32_t* image;
  const std::int32_t* shift;  ///< (tiles * kProductTile)
  const float* log_shift;     ///< (tiles * kProductTile) its log prior
  const float* log_psi;       ///< (n_psi) or null
  const float* norm;          ///< (n) |X|^2 of correlations, else null
  std::size_t n_tiles, n_images, n_shifts;
  bool sides[2];  ///< whether slices, opposites are in use at all

  VG_HD int row_tiles() const { return (settings.n_psi / 4 + kProductTile - 1) / kProductTile; }
  VG_HD int chunks() const { return grid.max_m / kProductTile + 1; }
  VG_HD std::size_t slice_tiles() const { return (n_slices + kProductTile - 1) / kProductTile; }
  VG_HD std::size_t slice_chunks() const { return (slice_tiles() + kSliceTiles - 1) / kSliceTiles; }
};

/// Per image, between the passes. best is kept as ordered_bits, so that an atomic maximum of integers orders it.
struct ScoreState {
  std::uint32_t* best;     ///< (n, 2 n_slices), zeroed before maxima
  float *top, *threshold;  ///< (n) best score; candidates are at or above the threshold
  float* cut;              ///< (n) entries whose maximum is below it are passed over
  double* sums;            ///< (tiles * kProductTile, slice_chunks) of the pass of sums
  std::int64_t* counts;    ///< (tiles * kProductTile, slice_chunks)
  std::int32_t* bins;      ///< (n, kScoreBins) of the pass of limit, zeroed
  std::int32_t* last_bin;  ///< (n) candidates beyond this bin are left out
  std::uint8_t* wanted;    ///< (n) images whose candidates limit counts
  std::int64_t* cursor;    ///< (n) where the next candidate of an image goes, advanced by collect
  float* score;            ///< (candidates) written by collect
  std::int64_t* pose;      ///< (candidates) (entry n_psi + psi) n_shifts + shift
};

/// The passes over poses: of limit, only how many candidates lie how far below the top.
enum class ScorePass { kMaxima, kSums, kLimit, kCollect };
void score_pass(const ScoreProblem& problem, const ScoreState& state, ScorePass pass, Stream stream);

/// choose: top, threshold and cut of every image; an entry is passed over when its share cannot exceed its part
/// of what entries below the cut may hold.
void score_choose(const ScoreProblem& problem, const ScoreState& state, Stream stream);

/// After sums: log_sum (n) double and count (n) int64, the candidates of every image.
void score_totals(const ScoreProblem& problem, const ScoreState& state, double* log_sum, std::int64_t* count,
                  Stream stream);

/// limit, after its pass: last_bin, so that at least so many candidates (or all) stay; count is rewritten.
void score_limit(const ScoreProblem& problem, const ScoreState& state, std::int64_t* count, Stream stream);

/// trim sorted candidates, offsets (n + 1): how many are kept, and the mass they hold.
void score_trim(const ScoreSettings& settings, const float* score, const std::int64_t* offsets,
                const double* log_sum, std::size_t n, std::int64_t* kept, double* mass, Stream stream);

}  // namespace verglas::cuda
