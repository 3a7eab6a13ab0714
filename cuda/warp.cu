#include "cuda/warp.h"

namespace verglas::cuda {
namespace {

using math::kDelayFirst;
using math::kDelayStride;
using math::kDelayTaps;

constexpr int kWide = 32, kHigh = 8;
constexpr float kFarthest = 1e6f;

/// Where a pixel falls on one axis of the lattice.
struct Place {
  int cell;
  float part;

  __device__ Place(std::size_t at, std::size_t pixels, std::size_t nodes) {
    const double scale = pixels > 1 ? static_cast<double>(nodes - 1) / static_cast<double>(pixels - 1) : 0.0;
    const double place = static_cast<double>(at) * scale;
    cell = min(static_cast<int>(place), max(0, static_cast<int>(nodes) - 2));
    part = static_cast<float>(place - cell);
  }
};

__device__ float field_at(const WarpFrames& in, const float* nodes, const Place& down, const Place& across) {
  const std::size_t right = in.nodes_x > 1 ? 2 : 0, below = in.nodes_y > 1 ? 2 * in.nodes_x : 0;
  const float* p = nodes + 2 * (static_cast<std::size_t>(down.cell) * in.nodes_x + across.cell);
  const float above = p[0] + across.part * (p[right] - p[0]);
  const float under = p[below] + across.part * (p[below + right] - p[below]);
  return above + down.part * (under - above);
}

/// Taps of one point, linear between two rows of the table.
struct Taps {
  const float* row;
  float part;

  __device__ Taps(const float* table, float delay) {
    const float place = (delay + 0.5f) * math::DelayTable::kSteps;
    row = table + static_cast<std::size_t>(static_cast<int>(place)) * kDelayStride;
    part = place - floorf(place);
  }
  __device__ float at(int k) const {
    const float low = __ldg(row + k);
    return low + part * (__ldg(row + kDelayStride + k) - low);
  }
};

__device__ float resampled(const WarpFrames& in, const float* __restrict__ frame, int x, int y, float dx,
                           float dy) {
  if (!(fabsf(dx) < kFarthest) || !(fabsf(dy) < kFarthest)) return __int_as_float(0x7fc00000);
  const float whole_x = floorf(dx), whole_y = floorf(dy);
  const Taps along(in.taps, dx - whole_x), down(in.taps, dy - whole_y);
  float across[kDelayTaps];
#pragma unroll
  for (int i = 0; i < kDelayTaps; ++i) across[i] = along.at(i);
  const int rows = static_cast<int>(in.rows), columns = static_cast<int>(in.columns);
  const int left = x + static_cast<int>(whole_x) + kDelayFirst,
            top = y + static_cast<int>(whole_y) + kDelayFirst;
  const bool inside = left >= 0 && left + kDelayTaps <= columns;
  float sum = 0.0f;
#pragma unroll 1  // the taps across stay in registers; fourteen loads in flight are plenty
  for (int j = 0; j < kDelayTaps; ++j) {
    const float* line = frame + static_cast<std::size_t>(math::mirrored(top + j, rows)) * in.columns;
    float part = 0.0f;
    if (inside) {
#pragma unroll
      for (int i = 0; i < kDelayTaps; ++i) part += across[i] * __ldg(line + left + i);
    } else {
#pragma unroll
      for (int i = 0; i < kDelayTaps; ++i)
        part += across[i] * __ldg(line + math::mirrored(left + i, columns));
    }
    sum += down.at(j) * part;
  }
  return sum;
}

__global__ void __launch_bounds__(kWide* kHigh) warp_kernel(WarpFrames in, float* __restrict__ sums) {
  const std::size_t x = static_cast<std::size_t>(blockIdx.x) * kWide + threadIdx.x;
  const std::size_t y = static_cast<std::size_t>(blockIdx.y) * kHigh + threadIdx.y;
  if (x >= in.columns || y >= in.rows) return;
  const std::size_t plane = in.rows * in.columns, at = y * in.columns + x;
  const Place across(x, in.columns, in.nodes_x), down(y, in.rows, in.nodes_y);
  for (std::size_t f = 0; f < in.n; ++f) {
    const float* nodes = in.shifts + f * in.nodes_y * in.nodes_x * 2;
    const float dx = field_at(in, nodes, down, across), dy = field_at(in, nodes + 1, down, across);
    const float value =
        resampled(in, in.frames + f * plane, static_cast<int>(x), static_cast<int>(y), dx, dy);
    const float* weights = in.weights + f * in.n_sums;
    for (std::size_t r = 0; r < in.n_sums; ++r) sums[r * plane + at] += weights[r] * value;
  }
}

}  // namespace

void warp(const WarpFrames& in, float* sums, Stream stream) {
  if (in.n == 0 || in.n_sums == 0) return;
  const dim3 blocks(static_cast<unsigned>((in.columns + kWide - 1) / kWide),
                    static_cast<unsigned>((in.rows + kHigh - 1) / kHigh));
  launch(warp_kernel, {blocks, dim3(kWide, kHigh), 0, stream}, in, sums);
}

}  // namespace verglas::cuda
