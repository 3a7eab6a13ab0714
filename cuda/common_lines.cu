#include "cuda/block_product.h"
#include "cuda/common_lines.h"
#include "math/common_lines.h"

namespace verglas::cuda {
namespace {

/// A score and its directions, as one number that grows with the direction in i, then in j.
struct Best {
  float value;
  int at;
};

/// Larger, or equal and earlier; nothing is better for being NaN.
__device__ __forceinline__ bool better(const Best& one, const Best& held) {
  return one.value > held.value || (one.value == held.value && one.at < held.at);
}

/// s at directions a of image i, from -1 to half, and b of image j, from -1 to 2 half.
__device__ float score_at(const CentralLines& in, int i, int j, int a, int b) {
  if (a < 0 || a >= in.half) {
    a += a < 0 ? in.half : -in.half;
    b += in.half;
  }
  b = (b + 2 * in.half) % (2 * in.half);
  const bool turned = b >= in.half;
  const std::size_t row = static_cast<std::size_t>(i) * in.half + a,
                    column = static_cast<std::size_t>(j) * in.half + (turned ? b - in.half : b);
  const float2 *x = in.samples + row * in.depth, *y = in.samples + column * in.depth;
  float re = 0.0f, im = 0.0f;
  for (int d = 0; d < in.depth; ++d) {
    re += x[d].x * y[d].x;
    im += x[d].y * y[d].y;
  }
  return (turned ? re - im : re + im) - in.loss[row] - in.loss[column];
}

/// One block has one pair.
__global__ void __launch_bounds__(kBlockThreads, 2)
    pair_kernel(CentralLines in, double* __restrict__ angle, double* __restrict__ score) {
  __shared__ BlockOperands shared;
  __shared__ Best bests[kBlockThreads];
  __shared__ double near[3][3];
  const int i = static_cast<int>(blockIdx.y), j = static_cast<int>(blockIdx.x),
            t = static_cast<int>(threadIdx.x);
  if (j < i) return;
  if (j == i) {
    if (t == 0)
      angle[static_cast<std::size_t>(i) * in.n + i] = score[static_cast<std::size_t>(i) * in.n + i] = 0.0;
    return;
  }
  const std::size_t own = static_cast<std::size_t>(i) * in.half,
                    other = static_cast<std::size_t>(j) * in.half;
  const int row = t / 16 * 4, column = t % 16 * 4;
  Best best{__int_as_float(static_cast<int>(0xff800000u)), 2 * in.half * in.half};  // -infinity
  for (int a0 = 0; a0 < in.half; a0 += kBlockSide) {
    for (int b0 = 0; b0 < in.half; b0 += kBlockSide) {
      float re[4][4] = {}, im[4][4] = {};
      const auto line = [&](std::size_t first, int at, int k) {
        return in.samples[(first + at) * in.depth + k];
      };
      block_product<Along::depth, Along::depth>(
          shared, in.depth, [&](int s, int k) { return a0 + s < in.half ? line(own, a0 + s, k).x : 0.0f; },
          [&](int s, int k) { return b0 + s < in.half ? line(other, b0 + s, k).x : 0.0f; }, re);
      block_product<Along::depth, Along::depth>(
          shared, in.depth, [&](int s, int k) { return a0 + s < in.half ? line(own, a0 + s, k).y : 0.0f; },
          [&](int s, int k) { return b0 + s < in.half ? line(other, b0 + s, k).y : 0.0f; }, im);
#pragma unroll
      for (int u = 0; u < 4; ++u) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          const int a = a0 + row + u, b = b0 + column + v;
          if (a >= in.half || b >= in.half) continue;
          const float value = re[u][v] + fabsf(im[u][v]) - in.loss[other + b] - in.loss[own + a];
          const Best one{value, a * 2 * in.half + (im[u][v] < 0.0f ? b + in.half : b)};
          if (better(one, best)) best = one;
        }
      }
    }
  }
  bests[t] = best;
  __syncthreads();
  for (int step = kBlockThreads / 2; step > 0; step /= 2) {
    if (t < step && better(bests[t + step], bests[t])) bests[t] = bests[t + step];
    __syncthreads();
  }
  const int at = bests[0].at < 2 * in.half * in.half ? bests[0].at : 0;
  const int a = at / (2 * in.half), b = at % (2 * in.half);
  if (t < 9) near[t / 3][t % 3] = score_at(in, i, j, a + t / 3 - 1, b + t % 3 - 1);
  __syncthreads();
  if (t != 0) return;
  const math::LineTop top = math::line_top(near);
  const std::size_t there = static_cast<std::size_t>(i) * in.n + j,
                    back = static_cast<std::size_t>(j) * in.n + i;
  angle[there] = math::wrapped_direction(a + top.a, in.half);
  angle[back] = math::wrapped_direction(b + top.b, in.half);
  score[there] = score[back] = near[1][1] + top.rise;
}

/// A line between two directions: where its neighbours begin, their weights, and the signs of their imaginary parts.
struct Between {
  const float2 *first, *second;
  float2 weight;  // of the first and the second
  float first_sign, second_sign, loss;
};

__device__ Between between(const CentralLines& in, int image, double direction) {
  const int turn = 2 * in.half;
  const double below = floor(direction);
  const float part = static_cast<float>(direction - below);
  const int one = static_cast<int>(below) % turn, two = (one + 1) % turn;
  const bool one_turned = one >= in.half, two_turned = two >= in.half;
  const std::size_t base = static_cast<std::size_t>(image) * in.half;
  const std::size_t row = base + (one_turned ? one - in.half : one),
                    next = base + (two_turned ? two - in.half : two);
  return {in.samples + row * in.depth,    in.samples + next * in.depth,
          make_float2(1.0f - part, part), one_turned ? -1.0f : 1.0f,
          two_turned ? -1.0f : 1.0f,      (1.0f - part) * in.loss[row] + part * in.loss[next]};
}

__device__ __forceinline__ float2 sample_of(const Between& line, int d) {
  const float2 x = line.first[d], y = line.second[d];
  return make_float2(line.weight.x * x.x + line.weight.y * y.x,
                     line.first_sign * line.weight.x * x.y + line.second_sign * line.weight.y * y.y);
}

constexpr int kScoreThreads = 128;

/// One block has one candidate.
__global__ void __launch_bounds__(kScoreThreads)
    score_kernel(CentralLines in, const double* __restrict__ rotations, const double* __restrict__ candidates,
                 const std::int64_t* __restrict__ own, double* __restrict__ out) {
  __shared__ double sums[kScoreThreads];
  const int t = static_cast<int>(threadIdx.x);
  const double* mine = candidates + 9 * static_cast<std::size_t>(blockIdx.x);
  const int image = static_cast<int>(own[blockIdx.x]);
  double sum = 0.0;
  for (int j = t; j < in.n; j += kScoreThreads) {
    const double* other = rotations + 9 * static_cast<std::size_t>(j);
    double v[3];
    if (j == image || !math::line_of_planes(mine, other, v)) continue;
    const Between x = between(in, image, math::direction_in_plane(mine, v, in.half)),
                  y = between(in, j, math::direction_in_plane(other, v, in.half));
    float dot = 0.0f;
    for (int d = 0; d < in.depth; ++d) {
      const float2 p = sample_of(x, d), q = sample_of(y, d);
      dot += p.x * q.x + p.y * q.y;
    }
    sum += static_cast<double>(dot) - x.loss - y.loss;
  }
  sums[t] = sum;
  __syncthreads();
  for (int step = kScoreThreads / 2; step > 0; step /= 2) {
    if (t < step) sums[t] += sums[t + step];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = sums[0];
}

}  // namespace

void common_lines(const CentralLines& lines, double* angle, double* score, Stream stream) {
  if (lines.n == 0) return;
  const auto n = static_cast<unsigned>(lines.n);
  launch(pair_kernel, {dim3(n, n), kBlockThreads, 0, stream}, lines, angle, score);
}

void common_line_scores(const CentralLines& lines, const double* rotations, const double* candidates,
                        const std::int64_t* own, std::size_t m, double* out, Stream stream) {
  if (m == 0) return;
  launch(score_kernel, {dim3(static_cast<unsigned>(m)), kScoreThreads, 0, stream}, lines, rotations,
         candidates, own, out);
}

}  // namespace verglas::cuda
