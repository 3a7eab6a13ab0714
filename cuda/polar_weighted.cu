#include <cmath>

#include "cuda/polar_weighted.h"

namespace verglas::cuda {
namespace {

constexpr int kWeighThreads = 128;

/// One block: one ring of one image.
__global__ void __launch_bounds__(kWeighThreads)
    weigh_kernel(PolarTables grid, WeighInput in, int n_power, float* y, float* power, float* norm_rings) {
  __shared__ math::CtfCoefficients coefficients;
  __shared__ float squares[kWeighThreads], parts[kWeighThreads];
  const std::size_t image = blockIdx.x;
  const int ring = blockIdx.y, half = grid.half(), thread = threadIdx.x;
  if (thread == 0 && in.ctf) {
    const double* row = in.ctf + image * math::kOpticsColumns;
    coefficients = math::ctf_coefficients(math::optics_params(row));
  }
  __syncthreads();
  const double k = grid.radii[ring] / (grid.box * in.pixel_size_A);
  const float inverse = in.inv_sigma2 ? in.inv_sigma2[image * grid.n_rings + ring] : 1.0f;
  const std::size_t first = (image * grid.n_rings + ring) * half;
  float sum = 0.0f, norm = 0.0f;  // of one part of one harmonic; of |X|^2
  for (int begin = 0; begin < half; begin += kWeighThreads) {
    const int t = begin + thread;
    float c = 0.0f;
    if (t < half) {
      c = 1.0f;
      if (in.ctf)
        c = math::ctf_envelope(coefficients, k, 0.0) *
            math::ctf_value(coefficients, k * grid.cos_theta[t], k * grid.sin_theta[t]);
      const float re = in.samples ? in.samples[2 * (first + t)] : 0.0f;
      const float im = in.samples ? in.samples[2 * (first + t) + 1] : 0.0f;
      norm += re * re + im * im;
      if (y) {
        y[2 * (first + t)] = re * (c * inverse);
        y[2 * (first + t) + 1] = im * (c * inverse);
      }
    }
    squares[thread] = c * c * (grid.weights[ring] * inverse);
    __syncthreads();
    const int harmonic = thread / 2;
    if (power && harmonic < n_power) {
      const int count = half - begin < kWeighThreads ? half - begin : kWeighThreads;
      for (int i = 0; i < count; ++i) {
        // exp(-2 i k theta), theta = pi t / half; the half circle stands for both halves.
        const double turns =
            static_cast<double>(static_cast<long long>(harmonic) * (begin + i) % half) / half;
        sum += squares[i] * (thread % 2 ? -2.0f * math::sin_turns(turns) : 2.0f * math::cos_turns(turns));
      }
    }
    __syncthreads();
  }
  if (power && thread < 2 * n_power) power[2 * (image * grid.n_rings + ring) * n_power + thread] = sum;
  if (!norm_rings) return;
  parts[thread] = norm;
  __syncthreads();
  if (thread != 0) return;
  double total = 0.0;
  for (int i = 0; i < kWeighThreads; ++i) total += parts[i];
  norm_rings[image * grid.n_rings + ring] = static_cast<float>(2.0 * total * grid.weights[ring] * inverse);
}

constexpr int kAngles = 64;    // of one pass, held in shared memory
constexpr int kHarmonics = 4;  // per thread
constexpr int kColumnThreads = 256;
constexpr int kHarmonicsOfBlock = kColumnThreads / kProductTile * kHarmonics;

/// The value, in either layout. Tiles: [fragment][part][row][column]; rows: (columns, size) complex.
struct ToTiles {
  TileLayout layout;
  float* tiles;
  __device__ void store(const PolarTables& grid, std::size_t column, int m, int ring, float re,
                        float im) const {
    float* to = tiles + column / kProductTile * layout.floats() +
                TileLayout::at(layout.first[m], ring - grid.first_ring[m]) + column % kProductTile;
    to[0] = re;
    to[kFragment] = im;
  }
};
struct ToRows {
  float* rows;
  __device__ void store(const PolarTables& grid, std::size_t column, int m, int ring, float re,
                        float im) const {
    float* to = rows + 2 * (column * grid.size + grid.offset[m] + ring - grid.first_ring[m]);
    to[0] = re;
    to[1] = im;
  }
};

/// One block: kProductTile columns, one ring, kHarmonicsOfBlock harmonics. A thread has one column and
/// harmonics of one parity, so that it reads either real or imaginary parts.
template <class Out>
__global__ void __launch_bounds__(kColumnThreads)
    shifted_kernel(PolarTables grid, ShiftedColumns in, Out out) {
  __shared__ float moved[2][kAngles][kProductTile];
  const int ring = blockIdx.y, first_m = blockIdx.z * kHarmonicsOfBlock, limit = grid.limit[ring];
  if (first_m > limit) return;  // the same for the whole block
  const int local = threadIdx.x % kProductTile, row = threadIdx.x / kProductTile, half = grid.half();
  const std::size_t column = static_cast<std::size_t>(blockIdx.x) * kProductTile + local;
  const int image = column < in.columns ? in.image[column] : -1;
  const double radius = grid.radii[ring] / grid.box;
  const double x = image < 0 ? 0.0 : radius * in.shift[2 * column],
               y = image < 0 ? 0.0 : radius * in.shift[2 * column + 1];
  const float* from =
      in.y + 2 * ((image < 0 ? 0 : static_cast<std::size_t>(image)) * grid.n_rings + ring) * half;
  float re[kHarmonics] = {}, im[kHarmonics] = {};
  for (int begin = 0; begin < half; begin += kAngles) {
    const int count = half - begin < kAngles ? half - begin : kAngles;
    for (int t = row; t < count; t += kColumnThreads / kProductTile) {
      float c = 0.0f, s = 0.0f;
      if (image >= 0) {
        const double turns = grid.cos_theta[begin + t] * x + grid.sin_theta[begin + t] * y;
        const float cosine = math::cos_turns(turns), sine = -math::sin_turns(turns);
        const float a = from[2 * (begin + t)], b = from[2 * (begin + t) + 1];
        c = a * cosine - b * sine;
        s = a * sine + b * cosine;
      }
      moved[0][t][local] = c;
      moved[1][t][local] = s;
    }
    __syncthreads();
    for (int t = 0; t < count; ++t) {
      const float value = moved[row % 2][t][local];
#pragma unroll
      for (int i = 0; i < kHarmonics; ++i) {
        const int m = first_m + row + i * (kColumnThreads / kProductTile);
        if (m > limit) continue;
        const float* table = grid.angular + static_cast<std::size_t>(2 * m) * half + begin + t;
        re[i] += table[0] * value;
        im[i] += table[half] * value;
      }
    }
    __syncthreads();
  }
  if (image < 0) return;
  const float weight = grid.weights[ring];
#pragma unroll
  for (int i = 0; i < kHarmonics; ++i) {
    const int m = first_m + row + i * (kColumnThreads / kProductTile);
    if (m <= limit) out.store(grid, column, m, ring, weight * re[i], weight * im[i]);
  }
}

template <class Out>
void run_shifted(const PolarTables& grid, const ShiftedColumns& in, const Out& out, Stream stream) {
  if (in.columns == 0) return;
  const dim3 blocks(static_cast<unsigned>((in.columns + kProductTile - 1) / kProductTile),
                    static_cast<unsigned>(grid.n_rings),
                    static_cast<unsigned>(grid.max_m / kHarmonicsOfBlock + 1));
  launch(shifted_kernel<Out>, {blocks, dim3(kColumnThreads), 0, stream}, grid, in, out);
}

}  // namespace

void weigh(const PolarTables& grid, const WeighInput& in, int n_power, float* y, float* power, float* norm,
           Stream stream) {
  if (in.n == 0) return;
  launch(weigh_kernel,
         {dim3(static_cast<unsigned>(in.n), static_cast<unsigned>(grid.n_rings)), dim3(kWeighThreads), 0,
          stream},
         grid, in, n_power, y, power, norm);
}

void shifted_tiles(const PolarTables& grid, const TileLayout& layout, const ShiftedColumns& in, float* tiles,
                   Stream stream) {
  run_shifted(grid, in, ToTiles{layout, tiles}, stream);
}

void shifted_rows(const PolarTables& grid, const ShiftedColumns& in, float* rows, Stream stream) {
  run_shifted(grid, in, ToRows{rows}, stream);
}

}  // namespace verglas::cuda
