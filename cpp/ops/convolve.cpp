#include "ops/convolve.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

namespace verglas::cpu {
namespace {

/// Kernels are taken in groups of at most so many, in steps of a vector of eight.
constexpr int kGroup = 48, kVector = 8;
using Vector = float __attribute__((vector_size(kVector * sizeof(float))));

inline Vector load(const float* from) {
  Vector out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

/// Pixels (or values of a window) of a block: with a group of kernels they fill twelve vectors, which are registers.
constexpr int block_of(int vectors) { return vectors == 1 ? 8 : 12 / vectors; }

std::size_t padded(std::size_t kernels) { return (kernels + kVector - 1) / kVector * kVector; }

/// One row of an image with zeros before and behind it; all zeros for a row outside.
void copy_row(const float* image, std::ptrdiff_t row, const ConvolveShape& s, float* to) {
  const std::size_t length = s.width * s.channels, margin = static_cast<std::size_t>(s.side / 2) * s.channels;
  std::fill(to, to + margin, 0.0f);
  if (row < 0 || row >= static_cast<std::ptrdiff_t>(s.height))
    std::fill(to + margin, to + margin + length, 0.0f);
  else
    std::copy_n(image + static_cast<std::size_t>(row) * length, length, to + margin);
  std::fill(to + margin + length, to + 2 * margin + length, 0.0f);
}

/// Sums of a block of pixels for a group of kernels: `side` rows of `inside` values each, a pixel's window `step`
/// values after its neighbour's; to `out` go the first `kernels` of each, `out_step` apart.
template <int Vectors, int Pixels>
void convolve_block(const float* const* rows, const ConvolveShape& s, std::size_t first, const float* w,
                    std::size_t w_step, const float* bias, std::size_t kernels, float* out) {
  const std::size_t inside = s.side * s.channels, step = s.stride * s.channels;
  Vector sum[Pixels][Vectors];
#pragma GCC unroll 12
  for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) sum[p][v] = load(bias + kVector * v);
  for (int u = 0; u < s.side; ++u) {
    const float* x = rows[u] + first * step;
    for (std::size_t j = 0; j < inside; ++j, w += w_step) {
#pragma GCC unroll 12
      for (int p = 0; p < Pixels; ++p)
#pragma GCC unroll 6
        for (int v = 0; v < Vectors; ++v) sum[p][v] += x[p * step + j] * load(w + kVector * v);
    }
  }
  for (int p = 0; p < Pixels; ++p)
    std::memcpy(out + (first + p) * s.kernels, sum[p], kernels * sizeof(float));
}

template <int Vectors>
void convolve_row(const float* const* rows, const ConvolveShape& s, const float* w, std::size_t w_step,
                  const float* bias, std::size_t kernels, float* out) {
  constexpr std::size_t pixels = block_of(Vectors);
  std::size_t first = 0;
  for (; first + pixels <= s.columns(); first += pixels)
    convolve_block<Vectors, pixels>(rows, s, first, w, w_step, bias, kernels, out);
  for (; first < s.columns(); ++first)
    convolve_block<Vectors, 1>(rows, s, first, w, w_step, bias, kernels, out);
}

/// Calls `work` with the number of vectors of a group of kernels as a constant.
template <class Work>
void with_vectors(std::size_t kernels, const Work& work) {
  switch (kernels / kVector) {
    case 1:
      return work(std::integral_constant<int, 1>{});
    case 2:
      return work(std::integral_constant<int, 2>{});
    case 3:
      return work(std::integral_constant<int, 3>{});
    case 4:
      return work(std::integral_constant<int, 4>{});
    case 5:
      return work(std::integral_constant<int, 5>{});
    default:
      return work(std::integral_constant<int, 6>{});
  }
}

/// Rows of values with zeros behind each up to a multiple of a vector.
std::vector<float> pad_rows(const float* values, std::size_t rows, std::size_t columns) {
  const std::size_t wide = padded(columns);
  std::vector<float> out(rows * wide, 0.0f);
  for (std::size_t i = 0; i < rows; ++i) std::copy_n(values + i * columns, columns, out.data() + i * wide);
  return out;
}

/// Sums over the pixels of one row of some values of their windows times a group of kernels, added to `to`.
template <int Vectors, int Values>
void add_products(const float* x, std::size_t step, const float* g, std::size_t g_step, std::size_t columns,
                  double* to, std::size_t kernels, std::size_t to_step) {
  Vector sum[Values][Vectors] = {};
  for (std::size_t j = 0; j < columns; ++j, x += step, g += g_step) {
#pragma GCC unroll 12
    for (int q = 0; q < Values; ++q)
#pragma GCC unroll 6
      for (int v = 0; v < Vectors; ++v) sum[q][v] += x[q] * load(g + kVector * v);
  }
  for (int q = 0; q < Values; ++q)
    for (std::size_t o = 0; o < kernels; ++o) to[q * to_step + o] += sum[q][o / kVector][o % kVector];
}

}  // namespace

void convolve(const float* x, const float* w, const float* bias, const ConvolveShape& s, float* out,
              int num_threads) {
  const std::size_t wide = padded(s.kernels), inside = s.side * s.channels;
  const auto weights = pad_rows(w, s.side * inside, s.kernels), biases = pad_rows(bias, 1, s.kernels);
  const std::size_t rows = s.rows(), columns = s.columns(), image = s.height * s.width * s.channels;
  const std::size_t length = (s.width + s.side - 1) * s.channels;
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<float> copies(s.side * length);
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < s.n * rows; ++i) {
      const auto row = static_cast<std::ptrdiff_t>(i % rows * s.stride) - s.side / 2;
      const float* at[16];
      for (int u = 0; u < s.side; ++u) {
        copy_row(x + i / rows * image, row + u, s, copies.data() + u * length);
        at[u] = copies.data() + u * length;
      }
      for (std::size_t first = 0; first < wide; first += kGroup)
        with_vectors(std::min<std::size_t>(kGroup, wide - first), [&](auto vectors) {
          convolve_row<vectors.value>(at, s, weights.data() + first, wide, biases.data() + first,
                                      std::min<std::size_t>(kVector * vectors.value, s.kernels - first),
                                      out + i * columns * s.kernels + first);
        });
    }
  }
}

void convolve_gradient(const float* x, const float* g, const ConvolveShape& s, double* gradient,
                       int num_threads) {
  const std::size_t wide = padded(s.kernels), inside = s.side * s.channels, all = s.side * inside * s.kernels;
  const std::size_t rows = s.rows(), columns = s.columns(), step = s.stride * s.channels;
  const auto padded_g = pad_rows(g, s.n * rows * columns, s.kernels);
  std::vector<double> parts(s.n * all, 0.0);
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::size_t n = 0; n < s.n; ++n) {
    std::vector<float> copy((s.width + s.side - 1) * s.channels);
    for (std::size_t row = 0; row < rows; ++row)
      for (int u = 0; u < s.side; ++u) {
        copy_row(x + n * s.height * s.width * s.channels,
                 static_cast<std::ptrdiff_t>(row * s.stride) + u - s.side / 2, s, copy.data());
        double* to = parts.data() + n * all + u * inside * s.kernels;
        const float* here = padded_g.data() + (n * rows + row) * columns * wide;
        for (std::size_t first = 0; first < wide; first += kGroup)
          with_vectors(std::min<std::size_t>(kGroup, wide - first), [&](auto vectors) {
            const std::size_t kernels = std::min<std::size_t>(kVector * vectors.value, s.kernels - first);
            constexpr int kValues = block_of(vectors.value);
            std::size_t j = 0;
            for (; j + kValues <= inside; j += kValues)
              add_products<vectors.value, kValues>(copy.data() + j, step, here + first, wide, columns,
                                                   to + j * s.kernels + first, kernels, s.kernels);
            for (; j < inside; ++j)
              add_products<vectors.value, 1>(copy.data() + j, step, here + first, wide, columns,
                                             to + j * s.kernels + first, kernels, s.kernels);
          });
      }
  }
  std::fill(gradient, gradient + all, 0.0);
  for (std::size_t n = 0; n < s.n; ++n)
    for (std::size_t i = 0; i < all; ++i) gradient[i] += parts[n * all + i];
}

}  // namespace verglas::cpu
