#include "ops/warp.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "math/fractional_delay.h"
#include "math/simd.h"

namespace verglas::cpu {
namespace {

using math::kDelayFirst;
using math::kDelayStride;
using math::kDelayTaps;
using math::kLanes;
using math::Lanes;

constexpr int kRun = 16;  // pixels over which taps are linear, whatever the width of a vector
constexpr int kTileRows = 64;
constexpr int kRuns = 32;  // runs in a tile's row
constexpr int kTileColumns = kRun * kRuns;
// rows and columns that shifts differ by within a tile of the steepest field, and the taps
constexpr int kSpread = static_cast<int>(kWarpSteepest * 2 * (kTileRows + kTileColumns)) + 4;
constexpr int kSourceRows = kTileRows + kDelayTaps + kSpread;
constexpr int kSourceColumns = kTileColumns + kRun + kDelayTaps + kSpread;

const math::DelayTable& table() {
  static const math::DelayTable made;
  return made;
}

/// Where the ends of runs fall on the lattice, for one tile.
struct Columns {
  int cell[kRuns + 1];
  float part[kRuns + 1];

  Columns(std::size_t x0, std::size_t columns, std::size_t nodes) {
    const double scale =
        columns > 1 ? static_cast<double>(nodes - 1) / static_cast<double>(columns - 1) : 0.0;
    for (int c = 0; c <= kRuns; ++c) {
      const double at = static_cast<double>(x0 + c * kRun) * scale;
      cell[c] = std::clamp(static_cast<int>(at), 0, std::max(0, static_cast<int>(nodes) - 2));
      part[c] = static_cast<float>(at - cell[c]);
    }
  }
};

/// The field of one frame.
struct Field {
  const float* nodes;
  std::size_t nodes_y, nodes_x;
  double scale_y;

  float at(int axis, double y, int cell, float part) const {
    const double place = y * scale_y;
    const int row = std::clamp(static_cast<int>(place), 0, std::max(0, static_cast<int>(nodes_y) - 2));
    const float down = static_cast<float>(place - row);
    const std::size_t right = nodes_x > 1 ? 2 : 0, below = nodes_y > 1 ? 2 * nodes_x : 0;
    const float* p = nodes + 2 * (static_cast<std::size_t>(row) * nodes_x + cell) + axis;
    const float above = p[0] + part * (p[right] - p[0]);
    const float under = p[below] + part * (p[below + right] - p[below]);
    return above + down * (under - above);
  }
};

/// Shifts at both ends of a run, split into a whole number of pixels and two fractions.
struct Run {
  std::int32_t base;
  float first, last;

  static Run of(float a, float b) {
    const float whole = std::floor(0.5f * (a + b));
    return {static_cast<std::int32_t>(whole), a - whole, b - whole};
  }
};

/// Taps of a run: value at its first pixel and slope per pixel.
struct RunTaps {
  alignas(64) float first[kDelayStride], slope[kDelayStride];

  explicit RunTaps(const Run& run) {
    float first_part, last_part;
    const float* a = table().row_at(run.first, first_part);
    const float* b = table().row_at(run.last, last_part);
    for (int k = 0; k < kDelayStride; k += kLanes) {
      const Lanes left = between(a + k, first_part), right = between(b + k, last_part);
      math::store(first + k, left);
      math::store(slope + k, (right - left) * (1.0f / kRun));
    }
  }

 private:
  static Lanes between(const float* row, float part) {
    const Lanes low = math::load_lanes(row);
    return low + part * (math::load_lanes(row + kDelayStride) - low);
  }
};

struct Ramp {
  Lanes v;
  Ramp() {
    for (int i = 0; i < kLanes; ++i) v[i] = static_cast<float>(i);
  }
};

/// sum_k taps_k source[k * stride], lanes from pixel `first` of the run.
inline Lanes filter(const float* source, std::size_t stride, const RunTaps& taps, Lanes place) {
  Lanes even{}, odd{};
  for (int k = 0; k < kDelayTaps; k += 2) {
    const float* p = source + static_cast<std::size_t>(k) * stride;
    even += (math::broadcast(taps.first[k]) + place * taps.slope[k]) * math::load_lanes(p);
    odd += (math::broadcast(taps.first[k + 1]) + place * taps.slope[k + 1]) * math::load_lanes(p + stride);
  }
  return even + odd;
}

class Tile {
 public:
  Tile() : between_(static_cast<std::size_t>(kSourceRows) * kTileColumns), line_(kSourceColumns) {}

  void add(const WarpFrames& in, std::size_t y0, std::size_t x0, float* sums) {
    const int rows = static_cast<int>(std::min<std::size_t>(kTileRows, in.rows - y0));
    const int columns = static_cast<int>(std::min<std::size_t>(kTileColumns, in.columns - x0));
    const int runs = (columns + kRun - 1) / kRun;
    const Columns across(x0, in.columns, in.nodes_x);
    for (std::size_t f = 0; f < in.n; ++f) {
      Field field{in.shifts + f * in.nodes_y * in.nodes_x * 2, in.nodes_y, in.nodes_x, 0.0};
      if (in.rows > 1) field.scale_y = static_cast<double>(in.nodes_y - 1) / static_cast<double>(in.rows - 1);
      plan_rows(field, across, y0, rows, runs);
      for (long s = low_; s <= high_; ++s)
        across_row(in, f, field, across, s, x0, runs, between_.data() + (s - low_) * kTileColumns);
      for (int y = 0; y < rows; ++y) down_row(in, f, y0 + y, y, x0, columns, sums);
    }
  }

 private:
  /// Vertical shifts of every run of the tile, and the source rows they reach.
  void plan_rows(const Field& field, const Columns& across, std::size_t y0, int rows, int runs) {
    low_ = static_cast<long>(y0) + (1L << 40);
    high_ = -low_;
    for (int y = 0; y < rows; ++y) {
      const double at = static_cast<double>(y0 + y);
      float left = field.at(1, at, across.cell[0], across.part[0]);
      for (int c = 0; c < runs; ++c) {
        const float right = field.at(1, at, across.cell[c + 1], across.part[c + 1]);
        const Run run = down_[y * kRuns + c] = Run::of(left, right);
        const long first = static_cast<long>(y0) + y + run.base + kDelayFirst;
        low_ = std::min(low_, first);
        high_ = std::max(high_, first + kDelayTaps - 1);
        left = right;
      }
    }
    middle_ = 0.5 * (down_[0].base + down_[(rows - 1) * kRuns + runs - 1].base) + 0.5;
  }

  /// Source row s, moved along x: what stands at output column x. The row belongs to output row y' with y' + dy = s.
  void across_row(const WarpFrames& in, std::size_t f, const Field& field, const Columns& across, long s,
                  std::size_t x0, int runs, float* out) {
    Run plan[kRuns];
    std::int32_t low = INT32_MAX, high = INT32_MIN;
    const auto shift = [&](int c) {
      const double near = static_cast<double>(s) - middle_;
      const double row = static_cast<double>(s) - field.at(1, near, across.cell[c], across.part[c]);
      return field.at(0, row, across.cell[c], across.part[c]);
    };
    float left = shift(0);
    for (int c = 0; c < runs; ++c) {
      const float right = shift(c + 1);
      plan[c] = Run::of(left, right);
      low = std::min(low, plan[c].base);
      high = std::max(high, plan[c].base);
      left = right;
    }
    const long width = static_cast<long>(in.columns), begin = static_cast<long>(x0) + low + kDelayFirst;
    const long count = static_cast<long>(runs) * kRun + (high - low) + kDelayTaps;
    const float* source =
        in.frames + (f * in.rows + math::mirrored(s, static_cast<long>(in.rows))) * in.columns;
    if (begin >= 0 && begin + count <= width) {
      source += begin;
    } else {
      for (long i = 0; i < count; ++i) line_[i] = source[math::mirrored(begin + i, width)];
      source = line_.data();
    }
    for (int c = 0; c < runs; ++c) {
      const RunTaps taps(plan[c]);
      const float* p = source + c * kRun + (plan[c].base - low);
      for (int i = 0; i < kRun; i += kLanes)
        math::store_lanes(out + c * kRun + i, filter(p + i, 1, taps, ramp_.v + static_cast<float>(i)));
    }
  }

  /// Output row: the moved rows interpolated along y, times the weights, added to the sums.
  void down_row(const WarpFrames& in, std::size_t f, std::size_t row, int y, std::size_t x0, int columns,
                float* sums) const {
    const float* weights = in.weights + f * in.n_sums;
    const std::size_t plane = in.rows * in.columns, at = row * in.columns + x0;
    for (int c = 0; c * kRun < columns; ++c) {
      const Run& run = down_[y * kRuns + c];
      const RunTaps taps(run);
      const long first = static_cast<long>(row) + run.base + kDelayFirst - low_;
      for (int i = 0; i < kRun && c * kRun + i < columns; i += kLanes) {
        const float* p = between_.data() + first * kTileColumns + c * kRun + i;
        const Lanes value = filter(p, kTileColumns, taps, ramp_.v + static_cast<float>(i));
        const int count = std::min(kLanes, columns - c * kRun - i);
        for (std::size_t r = 0; r < in.n_sums; ++r) {
          float* sum = sums + r * plane + at + c * kRun + i;
          if (count == kLanes) {
            math::store_lanes(sum, math::load_lanes(sum) + weights[r] * value);
          } else {
            for (int l = 0; l < count; ++l) sum[l] += weights[r] * value[l];
          }
        }
      }
    }
  }

  std::vector<float> between_, line_;
  Run down_[kTileRows * kRuns];
  long low_ = 0, high_ = 0;
  double middle_ = 0.0;
  const Ramp ramp_;
};

}  // namespace

void warp(const WarpFrames& in, float* sums, int num_threads) {
  table();  // made before the threads ask for it
  const long down = static_cast<long>((in.rows + kTileRows - 1) / kTileRows);
  const long across = static_cast<long>((in.columns + kTileColumns - 1) / kTileColumns);
#pragma omp parallel num_threads(num_threads)
  {
    Tile tile;
#pragma omp for schedule(dynamic) collapse(2)
    for (long ty = 0; ty < down; ++ty)
      for (long tx = 0; tx < across; ++tx)
        tile.add(in, static_cast<std::size_t>(ty) * kTileRows, static_cast<std::size_t>(tx) * kTileColumns,
                 sums);
  }
}

}  // namespace verglas::cpu
