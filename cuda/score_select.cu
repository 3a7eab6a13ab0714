// What stands around the passes of score: packing, and the choice of what the next pass looks at.
#include <cmath>

#include "cuda/score.h"
#include "cuda/score_bits.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 256;

/// One block: one slice. Its harmonics, then the rows of its power.
__global__ void __launch_bounds__(kThreads)
    pack_kernel(PolarTables grid, TileLayout layout, const float* harmonics, const float* power,
                float* tiles) {
  const std::size_t slice = blockIdx.x;
  float* tile = tiles + slice / kProductTile * layout.floats() + slice % kProductTile;
  for (int m = threadIdx.x; m <= grid.max_m; m += kThreads) {
    const int begin = layout.first[m], rings = grid.n_rings - grid.first_ring[m];
    const float* from = harmonics + 2 * (slice * grid.size + grid.offset[m]);
    for (int j = 0; j < rings; ++j) {
      float* to = tile + TileLayout::at(begin, j);
      to[0] = from[2 * j];
      to[kFragment] = from[2 * j + 1];
    }
    const int h = m / 2;
    if (m % 2 || h >= layout.n_power) continue;
    for (int j = 0; j < grid.n_rings; ++j) {
      const float* value = power + 2 * ((slice * grid.n_rings + j) * layout.n_power + h);
      float* to = tile + TileLayout::at(begin, rings + j);
      to[0] = value[0];
      to[kFragment] = value[1];
    }
  }
}

/// One block: one tile of columns; threads go over (harmonic, ring) and columns.
__global__ void __launch_bounds__(kThreads)
    power_rows_kernel(PolarTables grid, TileLayout layout, const float* cp, const std::int32_t* image,
                      float scale, bool correlation, float* tiles) {
  const int local = threadIdx.x % kProductTile;
  const bool own = !correlation || local >= kProductTile / 2;
  const std::size_t column = static_cast<std::size_t>(blockIdx.x) * kProductTile +
                             (correlation ? local % (kProductTile / 2) : local);
  const int i = image[column];
  if (!own || i < 0) return;
  float* tile = tiles + blockIdx.x * layout.floats() + local;
  for (int row = threadIdx.x / kProductTile; row < layout.n_power * grid.n_rings;
       row += kThreads / kProductTile) {
    const int h = row / grid.n_rings, j = row % grid.n_rings;
    const float* value = cp + 2 * ((static_cast<std::size_t>(i) * grid.n_rings + j) * layout.n_power + h);
    float* to = tile + TileLayout::at(layout.first[2 * h], grid.n_rings - grid.first_ring[2 * h] + j);
    to[0] = scale * value[0];
    to[kFragment] = scale * value[1];
  }
}

/// Sum of one number of each thread, the same in all threads; in one order.
__device__ double block_sum(double value, double* shared) {
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (static_cast<int>(threadIdx.x) < step) shared[threadIdx.x] += shared[threadIdx.x + step];
    __syncthreads();
  }
  return shared[0];
}

__device__ double block_maximum(double value, double* shared) {
  __syncthreads();
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (static_cast<int>(threadIdx.x) < step)
      shared[threadIdx.x] = fmax(shared[threadIdx.x], shared[threadIdx.x + step]);
    __syncthreads();
  }
  return shared[0];
}

/// One block: one image.
__global__ void __launch_bounds__(kThreads)
    choose_kernel(ScoreState state, std::size_t entries, double poses_of_entry, ScoreSettings settings) {
  __shared__ double shared[kThreads];
  const std::size_t image = blockIdx.x;
  const std::uint32_t* best = state.best + image * entries;
  double top = kNever;
  for (std::size_t e = threadIdx.x; e < entries; e += kThreads)
    top = fmax(top, static_cast<double>(from_ordered_bits(best[e])));
  top = block_maximum(top, shared);
  const double share = settings.share_passed_over(), all = poses_of_entry * static_cast<double>(entries);
  const double reach = log(2.0 * all / share);
  double near = 0.0, least = 0.0;  // every entry holds at least its maximum
  for (std::size_t e = threadIdx.x; e < entries; e += kThreads) {
    const double below = from_ordered_bits(best[e]) - top;
    if (below < -reach) continue;
    near += 1.0;
    least += exp(below);
  }
  near = block_sum(near, shared);
  least = block_sum(least, shared);
  if (threadIdx.x != 0) return;
  const float peak = static_cast<float>(top);
  float threshold = peak - static_cast<float>(settings.reach_nats(all)), cut = peak;
  if (!settings.correlation) {
    // Entries below the cut together hold at most `near` times what one may.
    cut = fminf(threshold, peak + static_cast<float>(log(0.5 * share * least / (poses_of_entry * near))));
  }
  if (!(peak > 0.5f * kNever)) threshold = cut = INFINITY;  // no pose at all, or NaN
  state.top[image] = peak;
  state.threshold[image] = threshold;
  state.cut[image] = cut;
}

/// One thread: one image; its columns follow each other, `step` apart from tile to tile.
__global__ void __launch_bounds__(kThreads)
    totals_kernel(ScoreProblem p, ScoreState state, double* log_sum, std::int64_t* count) {
  const std::size_t image = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (image >= p.n_images) return;
  const std::size_t real = p.settings.correlation ? kProductTile / 2 : kProductTile,
                    chunks = p.slice_chunks();
  double total = 0.0;
  std::int64_t number = 0;
  for (std::size_t s = 0; s < p.n_shifts; ++s) {
    const std::size_t flat = image * p.n_shifts + s, column = flat / real * kProductTile + flat % real;
    for (std::size_t c = 0; c < chunks; ++c) {
      total += state.sums[column * chunks + c];
      number += state.counts[column * chunks + c];
    }
  }
  log_sum[image] = state.top[image] + log(total);
  count[image] = number;
}

__global__ void __launch_bounds__(kThreads)
    limit_kernel(std::size_t n, ScoreState state, std::int64_t limit, std::int64_t* count) {
  const std::size_t image = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (image >= n || !state.wanted[image]) return;
  const std::int32_t* bins = state.bins + image * kScoreBins;
  std::int64_t total = 0;
  int bin = 0;
  for (; bin < kScoreBins - 1; ++bin) {
    total += bins[bin];
    if (total >= limit) break;
  }
  if (total < limit) total += bins[bin];
  state.last_bin[image] = bin;
  count[image] = total;
}

__global__ void __launch_bounds__(kThreads)
    trim_kernel(const float* score, const std::int64_t* offsets, const double* log_sum, std::size_t n,
                ScoreSettings settings, std::int64_t* kept, double* mass) {
  const std::size_t image = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (image >= n) return;
  const std::int64_t begin = offsets[image];
  std::int64_t most = offsets[image + 1] - begin, count = 0;
  const auto limit = static_cast<std::int64_t>(settings.limit());
  most = most < limit ? most : limit;
  const double enough = settings.enough();
  double held = 0.0;
  while (count < most && held < enough) held += exp(score[begin + count++] - log_sum[image]);
  kept[image] = count;
  mass[image] = held;
}

dim3 blocks_for(std::size_t n) { return dim3(static_cast<unsigned>((n + kThreads - 1) / kThreads)); }

}  // namespace

void score_pack(const PolarTables& grid, const TileLayout& layout, const float* harmonics, const float* power,
                std::size_t n, float* tiles, Stream stream) {
  if (n == 0) return;
  launch(pack_kernel, {dim3(static_cast<unsigned>(n)), dim3(kThreads), 0, stream}, grid, layout, harmonics,
         power, tiles);
}

void score_power_rows(const PolarTables& grid, const TileLayout& layout, const ScoreSettings& settings,
                      const float* cp, const std::int32_t* image, std::size_t columns, float* tiles,
                      Stream stream) {
  if (columns == 0) return;
  launch(power_rows_kernel, {dim3(static_cast<unsigned>(columns / kProductTile)), dim3(kThreads), 0, stream},
         grid, layout, cp, image, settings.power_factor(), settings.correlation, tiles);
}

void score_choose(const ScoreProblem& p, const ScoreState& state, Stream stream) {
  if (p.n_images == 0) return;
  launch(choose_kernel, {dim3(static_cast<unsigned>(p.n_images)), dim3(kThreads), 0, stream}, state,
         2 * p.n_slices, static_cast<double>(p.settings.n_psi) * static_cast<double>(p.n_shifts), p.settings);
}

void score_totals(const ScoreProblem& p, const ScoreState& state, double* log_sum, std::int64_t* count,
                  Stream stream) {
  if (p.n_images == 0) return;
  launch(totals_kernel, {blocks_for(p.n_images), dim3(kThreads), 0, stream}, p, state, log_sum, count);
}

void score_limit(const ScoreProblem& p, const ScoreState& state, std::int64_t* count, Stream stream) {
  if (p.n_images == 0) return;
  launch(limit_kernel, {blocks_for(p.n_images), dim3(kThreads), 0, stream}, p.n_images, state,
         static_cast<std::int64_t>(p.settings.limit()), count);
}

void score_trim(const ScoreSettings& settings, const float* score, const std::int64_t* offsets,
                const double* log_sum, std::size_t n, std::int64_t* kept, double* mass, Stream stream) {
  if (n == 0) return;
  launch(trim_kernel, {blocks_for(n), dim3(kThreads), 0, stream}, score, offsets, log_sum, n, settings, kept,
         mass);
}

}  // namespace verglas::cuda
