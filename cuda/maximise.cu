#include "cuda/maximise.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 256, kLanes = 32, kWarps = kThreads / kLanes;
constexpr int kHarmonics = kHarmonicChunk / kWarps;  // of one thread
constexpr int kMostEven = 64;

/// Step 1. Weights are float64 until their sum is complete, angles reduced in float64.
__global__ void __launch_bounds__(kThreads) factors_kernel(int max_m, PosteriorTerms t, float* factors) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x, row = max_m + 1;
  if (i >= t.terms * row) return;
  const std::size_t term = i / row;
  const int m = static_cast<int>(i % row);
  double re = 0.0, im = 0.0;
  for (int e = t.first_entry[term]; e < t.first_entry[term + 1]; ++e) {
    const double turns = m * t.psi_turns[e];
    re += t.gamma[e] * math::cos_turns(turns);
    im -= t.gamma[e] * math::sin_turns(turns);
  }
  factors[2 * i] = static_cast<float>(re);
  factors[2 * i + 1] = static_cast<float>(im);
}

/// Step 2. Lanes are rings, warps harmonics.
__global__ void __launch_bounds__(kThreads)
    numerator_kernel(PolarTables grid, PosteriorTerms t, MaximiseArrays a) {
  __shared__ double parts[2][kWarps][kLanes];
  const int lane = static_cast<int>(threadIdx.x) % kLanes, warp = static_cast<int>(threadIdx.x) / kLanes;
  const int ring = static_cast<int>(blockIdx.z) * kLanes + lane;
  const std::size_t slice = t.slice[blockIdx.x];
  int at[kHarmonics];  // element of the packed harmonics, -1: none here
  double re[kHarmonics] = {}, im[kHarmonics] = {};
  float a_re[kHarmonics] = {}, a_im[kHarmonics] = {};
#pragma unroll
  for (int i = 0; i < kHarmonics; ++i) {
    const int m = static_cast<int>(blockIdx.y) * kHarmonicChunk + warp + i * kWarps;
    at[i] = m <= grid.max_m && ring < grid.n_rings && ring >= grid.first_ring[m]
                ? grid.offset[m] + ring - grid.first_ring[m]
                : -1;
    if (at[i] < 0) continue;
    const std::size_t own = 2 * (slice * grid.size + at[i]);
    re[i] = a.numerator[own];
    im[i] = a.numerator[own + 1];
    if (!a.harmonics) continue;
    // m and -m: twice, but for m = 0
    a_re[i] = (m ? 2.0f : 1.0f) * a.harmonics[own];
    a_im[i] = (m ? 2.0f : 1.0f) * a.harmonics[own + 1];
  }
  const std::size_t row = grid.max_m + 1;
  for (int g = t.first_group[blockIdx.x]; g < t.first_group[blockIdx.x + 1]; ++g) {
    float x[kHarmonics] = {}, y[kHarmonics] = {};
    for (int term = t.first_term[g]; term < t.first_term[g + 1]; ++term) {
      const float* b = a.b + 2 * static_cast<std::size_t>(t.column[term]) * grid.size;
      const float* factor = a.factors + 2 * term * row;
      const bool opposite = t.opposite[term] != 0;
#pragma unroll
      for (int i = 0; i < kHarmonics; ++i) {
        if (at[i] < 0) continue;
        const int m = static_cast<int>(blockIdx.y) * kHarmonicChunk + warp + i * kWarps;
        const float c = factor[2 * m], s = factor[2 * m + 1], u = b[2 * at[i]], v = b[2 * at[i] + 1];
        // the opposite adds (-1)^m times the conjugate
        const float sign = opposite && m % 2 ? -1.0f : 1.0f;
        x[i] += sign * (c * u - s * v);
        y[i] += (opposite ? -sign : sign) * (c * v + s * u);
      }
    }
    double cross = 0.0;
    const double inverse =
        ring < grid.n_rings ? a.inv_sigma2[static_cast<std::size_t>(t.image[g]) * grid.n_rings + ring] : 0.0;
#pragma unroll
    for (int i = 0; i < kHarmonics; ++i) {
      re[i] += inverse * x[i];
      im[i] += inverse * y[i];
      cross += static_cast<double>(a_re[i]) * x[i] + static_cast<double>(a_im[i]) * y[i];
    }
    if (!a.cross) continue;  // the same for the whole block
    // Two buffers: the warp that adds up group g is done before anyone writes group g + 2.
    parts[g % 2][warp][lane] = cross;
    __syncthreads();
    if (warp != g % kWarps || ring >= grid.n_rings) continue;
    double sum = 0.0;
    for (int w = 0; w < kWarps; ++w) sum += parts[g % 2][w][lane];
    a.cross[(static_cast<std::size_t>(g) * gridDim.y + blockIdx.y) * grid.n_rings + ring] = sum;
  }
#pragma unroll
  for (int i = 0; i < kHarmonics; ++i) {
    if (at[i] < 0) continue;
    const std::size_t own = 2 * (slice * grid.size + at[i]);
    a.numerator[own] = re[i];
    a.numerator[own + 1] = im[i];
  }
}

/// Step 3: the weights, and the power of the slice seen through them.
__global__ void __launch_bounds__(kThreads)
    denominator_kernel(PolarTables grid, PosteriorTerms t, MaximiseArrays a) {
  __shared__ double sums[4][kMostEven];  // factors of the slice (re, im) and of its opposite
  const std::size_t slice = t.slice[blockIdx.x], row = grid.max_m + 1;
  for (int g = t.first_group[blockIdx.x]; g < t.first_group[blockIdx.x + 1]; ++g) {
    __syncthreads();
    for (int k = threadIdx.x; k < a.n_power; k += kThreads) {
      double sum[4] = {};
      for (int term = t.first_term[g]; term < t.first_term[g + 1]; ++term) {
        const float* factor = a.factors + 2 * (term * row + 2 * k);
        const int side = t.opposite[term] ? 2 : 0;
        sum[0] += side == 0 ? factor[0] : 0.0f;
        sum[1] += side == 0 ? factor[1] : 0.0f;
        sum[2] += side == 2 ? factor[0] : 0.0f;
        sum[3] += side == 2 ? factor[1] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i][k] = sum[i];
    }
    __syncthreads();
    const std::size_t image = t.image[g];
    for (int ring = threadIdx.x; ring < grid.n_rings; ring += kThreads) {
      const double inverse = a.inv_sigma2[image * grid.n_rings + ring];
      double power = 0.0;
      for (int k = 0; k < a.n_power; ++k) {
        // phase h + conj(other h)
        const double rr = sums[0][k] + sums[2][k], ri = sums[1][k] + sums[3][k];
        const double ir = sums[1][k] - sums[3][k], ii = sums[0][k] - sums[2][k];
        const float* h = a.h + 2 * ((image * grid.n_rings + ring) * a.n_power + k);
        const double re = rr * h[0] - ri * h[1], im = ir * h[0] + ii * h[1];
        const std::size_t own = 2 * ((slice * grid.n_rings + ring) * a.n_power + k);
        a.denominator[own] += re * inverse;
        a.denominator[own + 1] += im * inverse;
        if (a.power) power += (k ? 2.0 : 1.0) * (a.power[own] * re + a.power[own + 1] * im);
      }
      if (a.power) a.power_sum[static_cast<std::size_t>(g) * grid.n_rings + ring] = power;
    }
  }
}

/// Step 4: one thread per image and ring.
__global__ void __launch_bounds__(kThreads)
    residual_kernel(ResidualGroups groups, double* cross, double* power) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= groups.n * groups.n_rings) return;
  const std::size_t image = i / groups.n_rings, ring = i % groups.n_rings;
  double c = cross[i], p = power[i];
  for (std::int64_t k = groups.first[image]; k < groups.first[image + 1]; ++k) {
    const std::size_t g = groups.order[k];
    double sum = 0.0;
    for (int chunk = 0; chunk < groups.chunks; ++chunk)
      sum += groups.cross[(g * groups.chunks + chunk) * groups.n_rings + ring];
    c += sum;
    p += groups.power[g * groups.n_rings + ring];
  }
  cross[i] = c;
  power[i] = p;
}

/// One block: one ring of one slice; a thread one angle. The table is that of the transform, its transpose
/// the synthesis; m = 0 has no partner, hence the half.
__global__ void __launch_bounds__(kThreads)
    slices_kernel(PolarTables grid, int n_power, const double* numerator, const double* denominator,
                  const std::int64_t* index, float* values, float* weights) {
  const std::size_t i = blockIdx.x, slice = index[i];
  const int ring = blockIdx.y, half = grid.half();
  const float scale = 1.0f / static_cast<float>(grid.n_theta);
  for (int t = threadIdx.x; t < half; t += kThreads) {
    float even = 0.0f, odd = 0.0f, weight = 0.0f;
    for (int m = 0; m <= grid.limit[ring]; ++m) {
      const double* from = numerator + 2 * (slice * grid.size + grid.offset[m] + ring - grid.first_ring[m]);
      const float* table = grid.angular + static_cast<std::size_t>(2 * m) * half + t;
      const float value = (m ? scale : 0.5f * scale) * (static_cast<float>(from[0]) * table[0] +
                                                        static_cast<float>(from[1]) * table[half]);
      if (m % 2) {
        odd += value;
      } else {
        even += value;
      }
    }
    for (int k = 0; k < n_power; ++k) {
      const double* from = denominator + 2 * ((slice * grid.n_rings + ring) * n_power + k);
      const float* table = grid.angular + static_cast<std::size_t>(4 * k) * half + t;
      weight += (k ? scale : 0.5f * scale) *
                (static_cast<float>(from[0]) * table[0] + static_cast<float>(from[1]) * table[half]);
    }
    const std::size_t at = (i * grid.n_rings + ring) * half + t;
    values[2 * at] = even;
    values[2 * at + 1] = odd;
    weights[at] = weight;
  }
}

dim3 blocks_for(std::size_t n) { return dim3(static_cast<unsigned>((n + kThreads - 1) / kThreads)); }

}  // namespace

void maximise_add(const PolarTables& grid, const PosteriorTerms& t, const MaximiseArrays& a, Stream stream) {
  if (t.slices == 0) return;
  launch(factors_kernel, {blocks_for(t.terms * (grid.max_m + 1)), dim3(kThreads), 0, stream}, grid.max_m, t,
         a.factors);
  const dim3 blocks(static_cast<unsigned>(t.slices), static_cast<unsigned>(grid.max_m / kHarmonicChunk + 1),
                    static_cast<unsigned>((grid.n_rings + kLanes - 1) / kLanes));
  launch(numerator_kernel, {blocks, dim3(kThreads), 0, stream}, grid, t, a);
  launch(denominator_kernel, {dim3(blocks.x), dim3(kThreads), 0, stream}, grid, t, a);
}

void maximise_residuals(const ResidualGroups& groups, double* cross, double* power, Stream stream) {
  if (groups.n == 0) return;
  launch(residual_kernel, {blocks_for(groups.n * groups.n_rings), dim3(kThreads), 0, stream}, groups, cross,
         power);
}

void maximise_slices(const PolarTables& grid, int n_power, const double* numerator, const double* denominator,
                     const std::int64_t* index, std::size_t n, float* values, float* weights, Stream stream) {
  if (n == 0) return;
  launch(slices_kernel,
         {dim3(static_cast<unsigned>(n), static_cast<unsigned>(grid.n_rings)), dim3(kThreads), 0, stream},
         grid, n_power, numerator, denominator, index, values, weights);
}

}  // namespace verglas::cuda
