#include <limits>

#include "cuda/score_cells.h"

namespace verglas::cuda {
namespace {

constexpr int kRows = 16, kThreads = kRows * kProductTile;
constexpr int kPerThread = 4, kChunk = kRows * kPerThread;  // harmonics

struct Complex {
  float re, im;
};

/// The power term of harmonic 2 h, its factor eps / 2 included.
__device__ Complex power_term(const CellProblem& p, std::size_t slice, bool opposite, std::size_t image,
                              int h) {
  float re = 0.0f, im = 0.0f;
  for (int j = 0; j < p.grid.n_rings; ++j) {
    const float* a = p.power + 2 * ((slice * p.grid.n_rings + j) * p.n_power + h);
    const float* c = p.cp + 2 * ((image * p.grid.n_rings + j) * p.n_power + h);
    const float s = opposite ? -a[1] : a[1];
    re += a[0] * c[0] + s * c[1];
    im += a[0] * c[1] - s * c[0];
  }
  const float factor = h ? -1.0f : -0.5f;
  return {factor * re, factor * im};
}

/// c_m of the slice or its opposite (cpp/ops/score_kernel.h) at one column, eps_m and the power term included.
__device__ Complex correlate(const CellProblem& p, std::size_t slice, bool opposite, const float* columns,
                             int m) {
  const float* a = p.harmonics + 2 * (slice * p.grid.size + p.grid.offset[m]);
  const int rings = p.grid.n_rings - p.grid.first_ring[m], begin = p.layout.first[m];
  float rr = 0.0f, ii = 0.0f, ri = 0.0f, ir = 0.0f;
  for (int j = 0; j < rings; ++j) {
    const float* b = columns + TileLayout::at(begin, j);
    const float br = b[0], bi = b[kFragment];
    rr += a[2 * j] * br;
    ri += a[2 * j] * bi;
    ir += a[2 * j + 1] * br;
    ii += a[2 * j + 1] * bi;
  }
  const float side = opposite ? -1.0f : 1.0f, eps = m == 0 ? 1.0f : opposite && m % 2 ? -2.0f : 2.0f;
  return {eps * (rr + side * ii), eps * (ri - side * ir)};
}

__global__ void __launch_bounds__(kThreads)
    cells_kernel(const __grid_constant__ CellProblem p, float* __restrict__ scores) {
  __shared__ float re[kChunk][kProductTile], im[kChunk][kProductTile];
  const std::size_t run = blockIdx.x, image = p.run_image[run], slice = p.run_entry[run] / 2;
  const bool opposite = p.run_entry[run] % 2 != 0;
  const std::int64_t tile = p.first_tile[image] + blockIdx.y;
  if (tile >= p.first_tile[image + 1]) return;  // the same for the whole block
  const int column = threadIdx.x % kProductTile, row = threadIdx.x / kProductTile;
  const float* columns = p.columns + tile * p.layout.floats() + column;
  const std::int64_t shift = static_cast<std::int64_t>(blockIdx.y) * kProductTile + column;
  const int period = 2 * p.n_psi;
  for (int first = 0; first <= p.grid.max_m; first += kChunk) {
    __syncthreads();
    for (int i = 0; i < kPerThread; ++i) {
      const int m = first + row + i * kRows;
      if (m > p.grid.max_m) break;
      Complex c = correlate(p, slice, opposite, columns, m);
      if (m % 2 == 0 && m / 2 < p.n_power) {
        const Complex q = power_term(p, slice, opposite, image, m / 2);
        c = {c.re + q.re, c.im + q.im};
      }
      re[m - first][column] = c.re;
      im[m - first][column] = c.im;
    }
    __syncthreads();
    if (shift >= p.n_shifts[image]) continue;
    const int count = p.grid.max_m + 1 - first < kChunk ? p.grid.max_m + 1 - first : kChunk;
    for (std::int64_t task = p.run[run] + row; task < p.run[run + 1]; task += kRows) {
      const int step = 2 * p.psi[task] + 1;
      int at = static_cast<int>(static_cast<long long>(step) * first % period);
      float sum = 0.0f;
      for (int m = 0; m < count; ++m) {
        sum += p.circle[2 * at] * re[m][column] + p.circle[2 * at + 1] * im[m][column];
        at += step;
        if (at >= period) at -= period;
      }
      float& out = scores[p.first_score[image] + (task - p.first_task[image]) * p.n_shifts[image] + shift];
      out = first ? out + sum : sum;
    }
  }
}

}  // namespace

void score_cells(const CellProblem& problem, float* scores, Stream stream) {
  if (problem.runs == 0 || problem.most_tiles == 0) return;  // an empty grid is an invalid launch
  if (problem.runs > static_cast<std::size_t>(std::numeric_limits<int>::max()) || problem.most_tiles > 65535)
    throw std::invalid_argument("tasks: more runs or shifts than one launch takes; split the batch");
  const dim3 blocks(static_cast<unsigned>(problem.runs), static_cast<unsigned>(problem.most_tiles));
  launch(cells_kernel, {blocks, dim3(kThreads), 0, stream}, problem, scores);
}

}  // namespace verglas::cuda
