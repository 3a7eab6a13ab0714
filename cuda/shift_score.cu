#include "cuda/shift_score.h"
#include "math/constants.h"
#include "math/trig.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kTerms = 6;  // value; x, y of the gradient; xx, xy, yy

/// z = F exp(2 pi i k.d), the angle in float64.
__device__ float2 moved_back(const ShiftPatches& in, std::size_t frame, std::size_t at) {
  const double* d = in.shifts + 2 * frame;
  const double turns = in.frequencies_x[at % in.columns] * d[0] + in.frequencies_y[at / in.columns] * d[1];
  const float c = math::cos_turns(turns), s = math::sin_turns(turns);
  const float2 value = __ldg(in.patches + frame * in.rows * in.columns + at);
  return make_float2(value.x * c - value.y * s, value.x * s + value.y * c);
}

/// One thread has one frequency of one patch: the sum over frames, in their order.
__global__ void __launch_bounds__(kThreads) sum_kernel(ShiftPatches in, float2* __restrict__ sum) {
  const std::size_t plane = in.rows * in.columns, chunks = (plane + kThreads - 1) / kThreads;
  const std::size_t p = blockIdx.x / chunks, at = blockIdx.x % chunks * kThreads + threadIdx.x;
  if (at >= plane || !(in.weights[at] > 0.0f)) return;
  float2 total = make_float2(0.0f, 0.0f);
  for (std::size_t f = 0; f < in.frames; ++f) {
    const float2 z = moved_back(in, p * in.frames + f, at);
    total.x += z.x;
    total.y += z.y;
  }
  sum[p * plane + at] = total;
}

/// Sum over the block of each term, in thread 0.
__device__ void block_sums(double (&terms)[kTerms], double (*shared)[kTerms]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < kTerms; ++i)
    for (int step = 16; step > 0; step /= 2) terms[i] += __shfl_down_sync(0xffffffffu, terms[i], step);
  if (lane == 0)
    for (int i = 0; i < kTerms; ++i) shared[warp][i] = terms[i];
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < kWarps; ++w)
#pragma unroll
      for (int i = 0; i < kTerms; ++i) terms[i] += shared[w][i];
}

/// One block has one frame of one patch.
__global__ void __launch_bounds__(kThreads) score_kernel(ShiftPatches in, ShiftScores out) {
  __shared__ double shared[kWarps][kTerms];
  const std::size_t plane = in.rows * in.columns, frame = blockIdx.x, p = frame / in.frames;
  const float2* sum = out.sum + p * plane;
  double terms[kTerms] = {};
  for (std::size_t at = threadIdx.x; at < plane; at += kThreads) {
    const float weight = in.weights[at];
    if (!(weight > 0.0f)) continue;
    const float2 z = moved_back(in, frame, at), s = sum[at];
    const double x = in.frequencies_x[at % in.columns], y = in.frequencies_y[at / in.columns];
    const double turn = weight * (s.x * z.y - s.y * z.x);
    const double agree = weight * ((s.x - z.x) * z.x + (s.y - z.y) * z.y);
    terms[0] += agree;
    terms[1] += x * turn;
    terms[2] += y * turn;
    terms[3] += x * x * agree;
    terms[4] += x * y * agree;
    terms[5] += y * y * agree;
  }
  block_sums(terms, shared);
  if (threadIdx.x != 0) return;
  out.values[frame] = terms[0];
  if (!out.gradient) return;
  for (int i = 0; i < 2; ++i) out.gradient[2 * frame + i] = -4 * math::kPi * terms[1 + i];
  for (int i = 0; i < 3; ++i) out.curvature[3 * frame + i] = 8 * math::kPi * math::kPi * terms[3 + i];
}

/// One thread has one patch.
__global__ void __launch_bounds__(kThreads) value_kernel(const double* __restrict__ values, std::size_t n,
                                                         std::size_t frames, double* __restrict__ value) {
  const std::size_t p = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (p >= n) return;
  double total = 0.0;
  for (std::size_t f = 0; f < frames; ++f) total += values[p * frames + f];
  value[p] = total;
}

}  // namespace

void shift_score(const ShiftPatches& in, const ShiftScores& out, Stream stream) {
  const std::size_t plane = in.rows * in.columns;
  if (in.n == 0) return;
  if (plane > 0 && in.frames > 0) {
    const std::size_t chunks = (plane + kThreads - 1) / kThreads;
    launch(sum_kernel, {dim3(static_cast<unsigned>(in.n * chunks)), kThreads, 0, stream}, in, out.sum);
    launch(score_kernel, {dim3(static_cast<unsigned>(in.n * in.frames)), kThreads, 0, stream}, in, out);
  }
  const auto blocks = static_cast<unsigned>((in.n + kThreads - 1) / kThreads);
  launch(value_kernel, {dim3(blocks), kThreads, 0, stream}, out.values, in.n, in.frames, out.value);
}

}  // namespace verglas::cuda
