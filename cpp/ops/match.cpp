#include "ops/match.h"

#include <algorithm>
#include <vector>

#include "math/small_gemm.h"

namespace verglas::cpu {
namespace {

constexpr int kPixels = 64;  // of a block: a multiple of every level's kLanes
constexpr std::size_t kRows = 96;

struct alignas(64) Line {
  float value[16];
};

/// Buffers of one thread: maps of a block of pixels, and scores of some templates there.
struct Block {
  explicit Block(std::size_t depth) : maps(depth * kPixels / 16), scores(kRows * kPixels / 16) {}
  std::vector<Line> maps, scores;
};

void match_block(Block& block, const float* mix, std::size_t rows, std::size_t depth, std::size_t count,
                 float* best, std::int32_t* which) {
  float* scores = block.scores.data()->value;
  float top[kPixels];
  std::int32_t index[kPixels] = {};
  for (std::size_t first = 0; first < rows; first += kRows) {
    const std::size_t some = std::min(kRows, rows - first);
    math::small_gemm(mix + first * depth, block.maps.data()->value, scores,
                     {static_cast<int>(some), static_cast<int>(depth), kPixels, depth, kPixels, kPixels});
    if (first == 0) std::copy_n(scores, kPixels, top);
    for (std::size_t row = 0; row < some; ++row) {
      const float* line = scores + row * kPixels;
      const auto number = static_cast<std::int32_t>(first + row);
      for (int p = 0; p < kPixels; ++p) {
        index[p] = line[p] > top[p] ? number : index[p];
        top[p] = line[p] > top[p] ? line[p] : top[p];
      }
    }
  }
  std::copy_n(top, count, best);
  std::copy_n(index, count, which);
}

}  // namespace

void match(const float* maps, const float* mix, std::size_t rows, std::size_t depth, std::size_t pixels,
           float* best, std::int32_t* which, int num_threads) {
  const auto blocks = static_cast<std::ptrdiff_t>((pixels + kPixels - 1) / kPixels);
#pragma omp parallel num_threads(num_threads)
  {
    Block block(depth);
#pragma omp for schedule(static)
    for (std::ptrdiff_t b = 0; b < blocks; ++b) {
      const auto start = static_cast<std::size_t>(b) * kPixels;
      const std::size_t count = std::min<std::size_t>(kPixels, pixels - start);
      float* packed = block.maps.data()->value;
      for (std::size_t k = 0; k < depth; ++k) {
        std::copy_n(maps + k * pixels + start, count, packed + k * kPixels);
        std::fill_n(packed + k * kPixels + count, kPixels - count, 0.0f);
      }
      match_block(block, mix, rows, depth, count, best + start, which + start);
    }
  }
}

}  // namespace verglas::cpu
