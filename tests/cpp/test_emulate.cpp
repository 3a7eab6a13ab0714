// The host emulation of CUDA: barriers, warp collectives, matrix products, atomics, and the mistakes it must report.
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/device.h"
#include "cuda/wmma.h"

using namespace verglas::cuda;

namespace {

/// Sum of a block by a tree in shared memory, then of its warps by shuffles; both must agree with the closed form.
__global__ void sums(const float* in, float* tree, float* shuffled, unsigned* votes) {
  __shared__ float part[128];
  VG_DYNAMIC_SHARED(float, copy);
  const int t = static_cast<int>(threadIdx.x);
  const std::size_t i = blockIdx.x * blockDim.x + threadIdx.x;
  part[t] = copy[t] = in[i];
  __syncthreads();
  for (int step = 64; step > 0; step /= 2) {
    if (t < step) part[t] += part[t + step];
    __syncthreads();
  }
  if (t == 0) tree[blockIdx.x] = part[0];
  float sum = copy[127 - t];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
  if (t % 32 == 0) atomicAdd(shuffled + blockIdx.x, sum);
  const unsigned odd = __ballot_sync(0xffffffffu, t % 2);
  if (t == 0) votes[blockIdx.x] = odd;
  const int many = __syncthreads_count(t < 5);
  if (t == 1) votes[gridDim.x + blockIdx.x] = static_cast<unsigned>(many);
}

void test_sums() {
  std::vector<float> in(128 * 7), tree(7), shuffled(7);
  std::vector<unsigned> votes(14);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 13);
  launch(sums, {7, 128, 128 * sizeof(float), nullptr}, in.data(), tree.data(), shuffled.data(), votes.data());
  for (int b = 0; b < 7; ++b) {
    double want = 0;
    for (int t = 0; t < 128; ++t) want += in[b * 128 + t];
    CHECK_NEAR(tree[b], want, 0);
    CHECK_NEAR(shuffled[b], want, 0);
    CHECK_NEAR(votes[b], 0xaaaaaaaau, 0);
    CHECK_NEAR(votes[7 + b], 5, 0);
  }
}

/// Half a warp at a time: collectives of different masks do not meet.
__global__ void halves(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const unsigned mask = t < 16 ? 0xffffu : 0xffff0000u;
  int v = t;
  for (int i = 0; i < (t < 16 ? 3 : 5); ++i) v = __shfl_xor_sync(mask, v, 1) + 1;
  __syncwarp();
  out[t] = __shfl_sync(0xffffffffu, v, 31 - t);
}

void test_halves() {
  std::vector<int> out(32);
  launch(halves, {1, 32, 0, nullptr}, out.data());
  CHECK_NEAR(out[0], 30 + 5, 0);
  CHECK_NEAR(out[31], 1 + 3, 0);
}

template <class T, int K>
__global__ void product(const float* a, const float* b, float* c) {
  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, K, T, row_major> left;
  fragment<matrix_b, 16, 16, K, T, col_major> right;
  fragment<accumulator, 16, 16, K, float> sum;
  __shared__ typename decltype(left)::element_type sa[16 * K], sb[16 * K];
  for (int i = static_cast<int>(threadIdx.x); i < 16 * K; i += 32) {
    if constexpr (K == 8) {
      sa[i] = __float_to_tf32(a[i]);
      sb[i] = __float_to_tf32(b[i]);
    } else {
      sa[i] = __float2bfloat16(a[i]);
      sb[i] = __float2bfloat16(b[i]);
    }
  }
  __syncwarp();
  fill_fragment(sum, 1.0f);
  load_matrix_sync(left, sa, K);
  load_matrix_sync(right, sb, K);
  mma_sync(sum, left, right, sum);
  for (int i = 0; i < sum.num_elements; ++i) sum.x[i] *= 2.0f;
  store_matrix_sync(c, sum, 16, mem_row_major);
}

template <class T, int K>
void test_product() {
  std::vector<float> a(16 * K), b(16 * K), c(256);
  for (int i = 0; i < 16 * K; ++i) {
    a[i] = static_cast<float>(i % 7 - 3);
    b[i] = static_cast<float>(i % 5) + 0.00001f;  // rounded away by either type
  }
  launch(product<T, K>, {1, 32, 0, nullptr}, a.data(), b.data(), c.data());
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      double want = 1;
      for (int k = 0; k < K; ++k) want += a[m * K + k] * static_cast<double>((n * K + k) % 5);
      CHECK_NEAR(c[m * 16 + n], 2 * want, b[0] > 0.00001f ? 0 : 2e-3);
    }
}

__global__ void lonely_barrier() {
  if (threadIdx.x < 32) __syncthreads();
  if (threadIdx.x >= 32) __syncwarp(0xffffffffu);
  if (threadIdx.x == 33) (void)__shfl_sync(0x4u, 1, 2);
}
__global__ void waits_for_none(int* out) {
  if (threadIdx.x < 31) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}
__global__ void beyond_the_end() {
  VG_DYNAMIC_SHARED(unsigned char, bytes);
  bytes[64] = 1;
}
__global__ void nothing() {}

template <class Action>
std::string message(Action action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}
bool holds(const std::string& text, const char* words) { return text.find(words) != std::string::npos; }

void test_mistakes() {
  int out[32];
  CHECK_NEAR(holds(message([&] { launch(lonely_barrier, {1, 64, 0, nullptr}); }), "leaves out the lane"), 1,
             0);
  CHECK_NEAR(holds(message([&] { launch(waits_for_none, {1, 32, 0, nullptr}, out); }), "in vain"), 1, 0);
#if !defined(__SANITIZE_ADDRESS__)  // which stops at the line itself
  CHECK_NEAR(holds(message([&] { launch(beyond_the_end, {1, 1, 64, nullptr}); }), "dynamic shared memory"), 1,
             0);
#endif
  CHECK_NEAR(holds(message([&] { launch(nothing, {0, 32, 0, nullptr}); }), "cudaErrorInvalidConfiguration"),
             1, 0);
  CHECK_NEAR(holds(message([&] { launch(nothing, {1, 2048, 0, nullptr}); }), "cudaErrorInvalidConfiguration"),
             1, 0);
  launch(nothing, {1, 32, 0, nullptr});  // and goes on after each
}

}  // namespace

int main() {
  test_sums();
  test_halves();
  test_product<nvcuda::wmma::precision::tf32, 8>();
  test_product<__nv_bfloat16, 16>();
  test_mistakes();
  return check::report();
}
