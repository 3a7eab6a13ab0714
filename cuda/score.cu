#include <cmath>
#include <stdexcept>

#include "cuda/score.h"
#include "cuda/score_bits.h"
#include "cuda/wmma.h"

namespace verglas::cuda {
namespace {

namespace wmma = nvcuda::wmma;

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kSlicesOfWarp = kProductTile / kWarps;
constexpr int kCombos = 2;  // (side, row tile of angles) whose sums a warp holds at once
constexpr int kSums = 4;    // cos even, sin even, cos odd, sin odd

// Harmonics on their way from stage 1 to stage 2: [slot][re, im][side][slice][column]; slots 0 to 7 are even
// m, 8 to 15 odd. Eight floats between slots spread a fragment's rows over all banks.
constexpr int kParts = kProductTile * kProductTile;
constexpr int kSlot = 4 * kParts + 8;
constexpr int kHarmonicFloats = kProductTile * kSlot;
constexpr int kScratchFloats = kSums * kParts;  // of one warp: scores at four angles
constexpr std::size_t kShared = sizeof(float) * (kHarmonicFloats + kWarps * kScratchFloats + 2 * kParts);

using Left = wmma::fragment<wmma::matrix_a, kProductTile, kProductTile, kDepth, wmma::precision::tf32,
                            wmma::col_major>;
using Right = wmma::fragment<wmma::matrix_b, kProductTile, kProductTile, kDepth, wmma::precision::tf32,
                             wmma::row_major>;
using Sum = wmma::fragment<wmma::accumulator, kProductTile, kProductTile, kDepth, float>;

/// x = hi + lo, each with the 11 bits that the tensor cores read.
template <class Fragment>
struct Split {
  Fragment hi, lo;
  __device__ void load(const float* from, unsigned stride) {
    wmma::load_matrix_sync(hi, from, stride);
#pragma unroll
    for (int i = 0; i < Fragment::num_elements; ++i) {
      const float x = hi.x[i];
      hi.x[i] = wmma::__float_to_tf32(x);
      lo.x[i] = wmma::__float_to_tf32(x - hi.x[i]);
    }
  }
};

/// sum += a b to 22 bits; the small products first.
__device__ __forceinline__ void multiply_add(Sum& sum, const Split<Left>& a, const Split<Right>& b) {
  wmma::mma_sync(sum, a.lo, b.hi, sum);
  wmma::mma_sync(sum, a.hi, b.lo, sum);
  wmma::mma_sync(sum, a.hi, b.hi, sum);
}

/// Which side of the slices, which angles.
struct Combo {
  int side, rows;
  bool used;
};

__device__ __forceinline__ Combo combo_of(const ScoreProblem& p, int number) {
  const int sides = p.sides[0] && p.sides[1] ? 2 : 1;
  return {sides == 2 ? number % 2 : (p.sides[0] ? 0 : 1), number / sides, number < sides * p.row_tiles()};
}

/// What a thread of passes 2 and 3 keeps for its column while it goes through the slices.
struct Column {
  int image, shift, local;
  float prior, top, threshold, cut, scale_norm;
};

template <ScorePass kPass, bool kAdjusted>
class BlockSearch {
 public:
  __device__ BlockSearch(const ScoreProblem& problem, const ScoreState& state, float* shared)
      : p_(problem),
        state_(state),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        harmonics_(shared),
        scratch_(shared + kHarmonicFloats + warp_ * kScratchFloats),
        maxima_(shared + kHarmonicFloats + kWarps * kScratchFloats),
        tile_(blockIdx.x) {
    columns_ = p_.columns + tile_ * p_.layout.floats();
    read_column();
  }

  __device__ void run() {
    const std::size_t first = static_cast<std::size_t>(blockIdx.y) * kSliceTiles;
    for (std::size_t s = first; s < first + kSliceTiles && s < p_.slice_tiles(); ++s) {
      if (kPass != ScorePass::kMaxima && !tile_matters(s)) continue;
      if (kPass == ScorePass::kMaxima) {
        __syncthreads();  // the maxima of the tile before have been read
        for (int i = threadIdx.x; i < 2 * kParts; i += kThreads) maxima_[i] = kNever;
      }
      const int sides = p_.sides[0] && p_.sides[1] ? 2 : 1, combos = sides * p_.row_tiles();
      for (int c = 0; c < combos; c += kCombos) pass(s, combo_of(p_, c), combo_of(p_, c + 1));
      if (kPass == ScorePass::kMaxima) {
        __syncthreads();
        publish_maxima(s);
      }
    }
    if (kPass == ScorePass::kSums) publish_sums();
  }

 private:
  const ScoreProblem& p_;
  const ScoreState& state_;
  const int warp_, lane_;
  float *harmonics_, *scratch_, *maxima_;
  const std::size_t tile_;
  const float* columns_;
  Column column_;
  double sum_ = 0.0;
  long long count_ = 0;

  /// The lane's column; lanes l and l + 16 share one. Of correlations columns 8 to 15 hold powers only.
  __device__ void read_column() {
    column_.local = lane_ % kProductTile;
    const std::size_t at = tile_ * kProductTile + column_.local;
    const bool real = !(p_.settings.correlation && column_.local >= kProductTile / 2);
    column_.image = real ? p_.image[at] : -1;
    column_.shift = p_.shift[at];
    column_.prior = p_.settings.correlation ? 0.0f : p_.log_shift[at];
    if (column_.image < 0) return;
    if (p_.norm) column_.scale_norm = p_.norm[column_.image];
    if (kPass == ScorePass::kMaxima) return;
    column_.top = state_.top[column_.image];
    column_.threshold = state_.threshold[column_.image];
    column_.cut = state_.cut[column_.image];
    if (kPass == ScorePass::kLimit && !state_.wanted[column_.image]) column_.image = -1;
  }

  __device__ bool entry_matters(std::size_t slice, int side) const {
    if (column_.image < 0 || slice >= p_.n_slices || !(p_.prior[2 * slice + side] > kNever)) return false;
    const std::size_t entries = 2 * p_.n_slices;
    return from_ordered_bits(state_.best[column_.image * entries + 2 * slice + side]) >= column_.cut;
  }

  /// Whether any column's image has an entry of the tile of slices to look at; asked by the whole block.
  __device__ bool tile_matters(std::size_t s) const {
    bool any = false;
    for (int e = 2 * warp_ + lane_ / kProductTile; e < 2 * kProductTile; e += 2 * kWarps)
      any = any || entry_matters(s * kProductTile + e / 2, e % 2);
    return __syncthreads_or(any) != 0;
  }

  __device__ int slice_of(int i) const { return warp_ * kSlicesOfWarp + i; }

  /// Two (side, angles) of all 16 x 16 pairs, through all harmonics.
  __device__ void pass(std::size_t s, const Combo& one, const Combo& two) {
    Sum sums[kSlicesOfWarp][kCombos][kSums];
#pragma unroll
    for (int i = 0; i < kSlicesOfWarp; ++i)
#pragma unroll
      for (int c = 0; c < kCombos; ++c)
#pragma unroll
        for (int k = 0; k < kSums; ++k) wmma::fill_fragment(sums[i][c][k], 0.0f);
    for (int chunk = 0; chunk < p_.chunks(); ++chunk) {
      __syncthreads();  // stage 2 of the chunk before has read its harmonics
      for (int slot = warp_; slot < kProductTile; slot += kWarps) correlate(s, chunk, slot);
      __syncthreads();
      turn(chunk, one, two, sums);
    }
#pragma unroll
    for (int i = 0; i < kSlicesOfWarp; ++i) {
      take(s, slice_of(i), one, sums[i][0]);
      if (two.used) take(s, slice_of(i), two, sums[i][1]);
    }
  }

  /// Stage 1 of one harmonic: 16 slices against 16 columns.
  __device__ void correlate(std::size_t s, int chunk, int slot) {
    const int m = chunk * kProductTile + (slot < kDepth ? 2 * slot : 2 * (slot - kDepth) + 1);
    Sum rr, ii, ri, ir;
    wmma::fill_fragment(rr, 0.0f);
    wmma::fill_fragment(ii, 0.0f);
    wmma::fill_fragment(ri, 0.0f);
    wmma::fill_fragment(ir, 0.0f);
    if (m <= p_.grid.max_m) {
      const float* slices = p_.slices + s * p_.layout.floats();
      const int end = p_.layout.first[m + 1];
      for (int f = p_.layout.first[m]; f < end; ++f) {
        const std::size_t at = static_cast<std::size_t>(f) * 2 * kFragment;
        Split<Right> re, im;
        re.load(columns_ + at, kProductTile);
        im.load(columns_ + at + kFragment, kProductTile);
        Split<Left> a;
        a.load(slices + at, kProductTile);
        multiply_add(rr, a, re);
        multiply_add(ri, a, im);
        a.load(slices + at + kFragment, kProductTile);
        multiply_add(ir, a, re);
        multiply_add(ii, a, im);
      }
    }
    // The slice: (rr + ii) + i (ri - ir); its opposite: (-1)^m [(rr - ii) + i (ri + ir)].
    const float sign = m % 2 ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < Sum::num_elements; ++i) {
      const float a = rr.x[i], b = ii.x[i], c = ri.x[i], d = ir.x[i];
      rr.x[i] = a + b;
      ii.x[i] = sign * (a - b);
      ri.x[i] = c - d;
      ir.x[i] = sign * (c + d);
    }
    float* to = harmonics_ + slot * kSlot;
    wmma::store_matrix_sync(to, rr, kProductTile, wmma::mem_row_major);
    wmma::store_matrix_sync(to + kParts, ii, kProductTile, wmma::mem_row_major);
    wmma::store_matrix_sync(to + 2 * kParts, ri, kProductTile, wmma::mem_row_major);
    wmma::store_matrix_sync(to + 3 * kParts, ir, kProductTile, wmma::mem_row_major);
  }

  /// Stage 2 of 16 harmonics.
  __device__ void turn(int chunk, const Combo& one, const Combo& two,
                       Sum (&sums)[kSlicesOfWarp][kCombos][kSums]) const {
    const std::size_t row = static_cast<std::size_t>(p_.chunks()) * kSums * kFragment;
    const float* basis = p_.basis + static_cast<std::size_t>(chunk) * kSums * kFragment;
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      // cosines meet real parts, sines imaginary ones
      const float* from = harmonics_ + (k < 2 ? 0 : kDepth * kSlot) + k % 2 * 2 * kParts;
      Split<Left> angles;
      angles.load(basis + one.rows * row + k * kFragment, kProductTile);
#pragma unroll
      for (int c = 0; c < kCombos; ++c) {
        const Combo& combo = c ? two : one;
        if (!combo.used) continue;
        if (c && two.rows != one.rows) angles.load(basis + two.rows * row + k * kFragment, kProductTile);
#pragma unroll
        for (int i = 0; i < kSlicesOfWarp; ++i) {
          Split<Right> value;
          value.load(from + combo.side * kParts + slice_of(i) * kProductTile, kSlot);
          multiply_add(sums[i][c][k], angles, value);
        }
      }
    }
  }

  /// Sums of one slice at 16 base angles become scores at 64.
  __device__ void take(std::size_t s, int slice, const Combo& combo, Sum (&sums)[kSums]) {
    if (kPass != ScorePass::kMaxima) {
      const std::size_t number = s * kProductTile + slice;
      if (!__any_sync(0xffffffffu, entry_matters(number, combo.side))) return;
    }
#pragma unroll
    for (int i = 0; i < Sum::num_elements; ++i) {
      const float even = sums[0].x[i] + sums[1].x[i], odd = sums[2].x[i] + sums[3].x[i];
      const float even_back = sums[0].x[i] - sums[1].x[i], odd_back = sums[2].x[i] - sums[3].x[i];
      if (kPass == ScorePass::kMaxima && !kAdjusted) {
        // the larger of even +- odd, at +psi and at -psi
        sums[0].x[i] = fmaxf(even + fabsf(odd), even_back + fabsf(odd_back));
      } else {
        sums[0].x[i] = even + odd;
        sums[1].x[i] = even - odd;
        sums[2].x[i] = even_back + odd_back;
        sums[3].x[i] = even_back - odd_back;
      }
    }
    const int stored = kPass == ScorePass::kMaxima && !kAdjusted ? 1 : kSums;
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      if (k < stored)
        wmma::store_matrix_sync(scratch_ + k * kParts, sums[k], kProductTile, wmma::mem_row_major);
    }
    __syncwarp();
    if (kPass == ScorePass::kMaxima && !kAdjusted) {
      keep_maxima(slice, combo);
    } else {
      scan(s, slice, combo);
    }
    __syncwarp();  // before the next slice overwrites the scratch
  }

  /// Rows beyond the last base angle repeat it, so they do no harm.
  __device__ void keep_maxima(int slice, const Combo& combo) {
    float best = kNever;
#pragma unroll
    for (int r = 0; r < kProductTile / 2; ++r)
      best = fmaxf(best,
                   scratch_[(lane_ / kProductTile * (kProductTile / 2) + r) * kProductTile + column_.local]);
    merge_maxima(slice, combo, best);
  }

  __device__ void merge_maxima(int slice, const Combo& combo, float best) {
    best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, kProductTile));
    float* at = maxima_ + combo.side * kParts + slice * kProductTile + column_.local;
    if (lane_ < kProductTile) *at = fmaxf(*at, best);
  }

  /// One score, without the priors of slice and shift.
  __device__ float value_at(int k, int row, int psi) const {
    float value = scratch_[k * kParts + row * kProductTile + column_.local];
    if (kAdjusted) {
      if (p_.settings.correlation) {
        // Without power the cross term is zero too: any factor will do.
        const float product =
            scratch_[k * kParts + row * kProductTile + column_.local + kProductTile / 2] * column_.scale_norm;
        value = __fmul_rn(value, product > 0.0f ? 1.0f / sqrtf(product) : 1.0f);
      }
      if (p_.log_psi) value = __fadd_rn(value, p_.log_psi[psi]);
    }
    return value;
  }

  /// Every score of one slice, by the lanes of its columns.
  __device__ void scan(std::size_t s, int slice, const Combo& combo) {
    const std::size_t number = s * kProductTile + slice;
    const int n_psi = p_.settings.n_psi, quarter = n_psi / 4;
    float best = kNever;
    const bool mine = kPass == ScorePass::kMaxima ? column_.image >= 0 : entry_matters(number, combo.side);
    const float prior = mine && number < p_.n_slices ? prior_of(number, combo.side) : kNever;
    for (int r = 0; mine && r < kProductTile / 2; ++r) {
      const int row = lane_ / kProductTile * (kProductTile / 2) + r, q = combo.rows * kProductTile + row;
      if (q >= quarter) break;
      const int psi[kSums] = {q, q + n_psi / 2, n_psi - 1 - q, n_psi / 2 - 1 - q};
#pragma unroll
      for (int k = 0; k < kSums; ++k) {
        const float value = value_at(k, row, psi[k]);
        if (kPass == ScorePass::kMaxima) {
          best = fmaxf(best, value);
        } else {
          use(number, combo.side, psi[k], __fadd_rn(value, prior));
        }
      }
    }
    if (kPass == ScorePass::kMaxima) merge_maxima(slice, combo, best);
  }

  /// Log prior of slice and shift; of correlations zero.
  __device__ float prior_of(std::size_t slice, int side) const {
    return p_.settings.correlation ? 0.0f : p_.prior[2 * slice + side] + column_.prior;
  }

  __device__ void use(std::size_t slice, int side, int psi, float score) {
    if (kPass == ScorePass::kSums) {
      sum_ += expf(score - column_.top);
      count_ += score >= column_.threshold;
      return;
    }
    if (!(score >= column_.threshold)) return;
    const int bin = score_bin(column_.top, column_.threshold, score);
    if (kPass == ScorePass::kLimit) {
      atomicAdd(state_.bins + static_cast<std::size_t>(column_.image) * kScoreBins + bin, 1);
    } else if (bin <= state_.last_bin[column_.image]) {
      const auto slot = atomicAdd(reinterpret_cast<unsigned long long*>(state_.cursor + column_.image), 1ull);
      state_.score[slot] = score;
      state_.pose[slot] = ((2 * static_cast<std::int64_t>(slice) + side) * p_.settings.n_psi + psi) *
                              static_cast<std::int64_t>(p_.n_shifts) +
                          column_.shift;
    }
  }

  /// The tile's maxima, priors added, to the images: one thread per entry goes along the columns.
  __device__ void publish_maxima(std::size_t s) {
    const int e = threadIdx.x;
    if (e >= 2 * kProductTile) return;
    const std::size_t slice = s * kProductTile + e / 2;
    const int side = e % 2;
    if (slice >= p_.n_slices || !p_.sides[side]) return;
    const float prior = p_.prior[2 * slice + side];
    if (!(prior > kNever)) return;
    const int columns = p_.settings.correlation ? kProductTile / 2 : kProductTile;
    float best = kNever;
    for (int c = 0; c < columns; ++c) {
      const std::size_t at = tile_ * kProductTile + c;
      const int image = p_.image[at];
      if (image < 0) break;
      const float value = maxima_[side * kParts + e / 2 * kProductTile + c];
      best = fmaxf(best, p_.settings.correlation ? value : __fadd_rn(value, prior + p_.log_shift[at]));
      if (c + 1 < columns && p_.image[at + 1] == image) continue;
      atomicMax(state_.best + image * 2 * p_.n_slices + 2 * slice + side, ordered_bits(best));
      best = kNever;
    }
  }

  /// Sums and counts of each column over this block's slices, lanes and warps in their order.
  __device__ void publish_sums() {
    __syncthreads();
    double* sums = reinterpret_cast<double*>(harmonics_);
    long long* counts = reinterpret_cast<long long*>(sums + kThreads);
    sums[threadIdx.x] = sum_;
    counts[threadIdx.x] = count_;
    __syncthreads();
    if (threadIdx.x >= kProductTile) return;
    double sum = 0.0;
    long long count = 0;
    for (int t = threadIdx.x; t < kThreads; t += kProductTile) {
      sum += sums[t];
      count += counts[t];
    }
    const std::size_t at = (tile_ * kProductTile + threadIdx.x) * p_.slice_chunks() + blockIdx.y;
    state_.sums[at] = sum;
    state_.counts[at] = count;
  }
};

template <ScorePass kPass, bool kAdjusted>
__global__ void __launch_bounds__(kThreads, 1) score_kernel(ScoreProblem problem, ScoreState state) {
  VG_DYNAMIC_SHARED(float, shared);
  BlockSearch<kPass, kAdjusted>(problem, state, shared).run();
}

template <ScorePass kPass>
void run_pass(const ScoreProblem& p, const ScoreState& state, Stream stream) {
  const Launch how{dim3(static_cast<unsigned>(p.n_tiles), static_cast<unsigned>(p.slice_chunks())),
                   dim3(kThreads), kShared, stream};
  if (p.settings.correlation || p.log_psi) {
    launch(score_kernel<kPass, true>, how, p, state);
  } else {
    launch(score_kernel<kPass, false>, how, p, state);
  }
}

}  // namespace

void score_pass(const ScoreProblem& problem, const ScoreState& state, ScorePass pass, Stream stream) {
  if (problem.n_tiles == 0 || problem.n_slices == 0 || !(problem.sides[0] || problem.sides[1])) return;
  switch (pass) {
    case ScorePass::kMaxima:
      return run_pass<ScorePass::kMaxima>(problem, state, stream);
    case ScorePass::kSums:
      return run_pass<ScorePass::kSums>(problem, state, stream);
    case ScorePass::kLimit:
      return run_pass<ScorePass::kLimit>(problem, state, stream);
    case ScorePass::kCollect:
      return run_pass<ScorePass::kCollect>(problem, state, stream);
  }
}

}  // namespace verglas::cuda
