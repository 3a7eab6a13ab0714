#include "ops/radon.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "math/radon.h"

namespace verglas::cpu {
namespace {

using math::RadonView;

std::vector<RadonView> views_of(const RadonShape& shape, const double* angles_rad) {
  std::vector<RadonView> views;
  for (int i = 0; i < shape.n_angles; ++i)
    views.push_back(math::radon_view(angles_rad[i], shape.nz, shape.nx));
  return views;
}

/// Detector pixels whose position slope * t + offset on a line lies in [low, high).
struct Run {
  int begin, end;
};
Run pixels_between(double slope, double offset, double low, double high, int width) {
  double first = (low - offset) / slope, last = (high - offset) / slope;
  if (slope < 0) std::swap(first, last);
  const auto bounded = [width](double t) {
    return static_cast<int>(std::min(std::max(t, 0.0), static_cast<double>(width)));
  };
  Run run{bounded(std::ceil(first)), bounded(std::ceil(last))};
  // ceil of a rounded quotient may be one off either way: settled by the positions themselves
  const auto inside = [&](int t) {
    const double p = slope * t + offset;
    return p >= low && p < high;
  };
  while (run.begin > 0 && inside(run.begin - 1)) --run.begin;
  while (run.begin < run.end && !inside(run.begin)) ++run.begin;
  while (run.end < width && inside(run.end)) ++run.end;
  while (run.end > run.begin && !inside(run.end - 1)) --run.end;
  return run;
}

/// out[t] += weight * line(slope * t + offset), the line zero beyond its n values.
void add_line(const float* line, int n, double slope, double offset, float* out, int width) {
  const float weight = static_cast<float>(std::fabs(slope));
  const Run inner = pixels_between(slope, offset, 0.0, n - 1.0, width);
  const Run outer = pixels_between(slope, offset, -1.0, static_cast<double>(n), width);
  const auto edge = [&](int t) {
    const double p = slope * t + offset;
    const int below = static_cast<int>(std::floor(p));
    const float part = static_cast<float>(p - below);
    if (below >= 0) out[t] += weight * (1.0f - part) * line[below];
    if (below + 1 < n) out[t] += weight * part * line[below + 1];
  };
  if (inner.begin >= inner.end) {
    for (int t = outer.begin; t < outer.end; ++t) edge(t);
    return;
  }
  for (int t = outer.begin; t < inner.begin; ++t) edge(t);
  for (int t = inner.end; t < outer.end; ++t) edge(t);
  // Positions from the run's start: float keeps their fraction to 1e-4 pixel on lines of 4096.
  const float step = static_cast<float>(slope), start = static_cast<float>(slope * inner.begin + offset);
  const int count = inner.end - inner.begin, last = n - 2;
  float* target = out + inner.begin;
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const float p = start + step * static_cast<float>(i);
    const int below = std::min(std::max(static_cast<int>(p), 0), last);
    const float part = p - static_cast<float>(below);
    target[i] += weight * (line[below] + part * (line[below + 1] - line[below]));
  }
}

/// line[i] += weight * sum over pixels t of max(0, 1 - |slope t + offset - i|) image[t]: at most two of them, since
/// neighbouring rays lie one pixel or more apart on a line.
void add_back(const float* image, int width, double slope, double offset, float* line, int n) {
  const float steep = static_cast<float>(std::fabs(slope));
  const double inverse = 1.0 / slope;
  const float step = static_cast<float>(inverse), start = static_cast<float>(-offset * inverse);
#pragma omp simd
  for (int i = 0; i < n; ++i) {
    const float t = start + step * static_cast<float>(i);
    const float below = std::floor(t);
    const float part = t - below;
    const int index = static_cast<int>(std::min(std::max(below, -2.0f), static_cast<float>(width)));
    const float a = index >= 0 && index < width ? image[std::min(std::max(index, 0), width - 1)] : 0.0f;
    const float b =
        index + 1 >= 0 && index + 1 < width ? image[std::min(std::max(index + 1, 0), width - 1)] : 0.0f;
    line[i] +=
        steep * (std::max(0.0f, 1.0f - steep * part) * a + std::max(0.0f, 1.0f - steep * (1.0f - part)) * b);
  }
}

/// Offset of the position with pixels counted from 0 instead of from the middle of the detector.
double from_zero(const RadonView& view, int line, int width) {
  return view.offset(line) - view.slope * (width / 2);
}

void transpose_slice(const RadonShape& shape, const float* volume, int y, float* out) {
  for (int z = 0; z < shape.nz; ++z) {
    const float* row = volume + (static_cast<std::size_t>(z) * shape.ny + y) * shape.nx;
    for (int x = 0; x < shape.nx; ++x) out[static_cast<std::size_t>(x) * shape.nz + z] = row[x];
  }
}

}  // namespace

void radon(const RadonShape& shape, const float* volume, const double* angles_rad, float* images,
           int num_threads) {
  const auto views = views_of(shape, angles_rad);
  const int tasks = shape.ny * shape.n_angles;
  const bool columns = std::any_of(views.begin(), views.end(), [](const RadonView& v) { return !v.by_rows; });
#pragma omp parallel num_threads(num_threads)
  {
    // Views by columns read the slice the other way round; tasks of one y follow each other, so it is turned once.
    std::vector<float> turned(columns ? static_cast<std::size_t>(shape.nz) * shape.nx : 0);
    int turned_y = -1;
#pragma omp for schedule(static)
    for (int task = 0; task < tasks; ++task) {
      const int y = task / shape.n_angles, i = task % shape.n_angles;
      const RadonView& view = views[i];
      float* out = images + (static_cast<std::size_t>(i) * shape.ny + y) * shape.width;
      std::fill(out, out + shape.width, 0.0f);
      if (!view.by_rows && turned_y != y) transpose_slice(shape, volume, turned_y = y, turned.data());
      const int lines = view.by_rows ? shape.nz : shape.nx, n = view.by_rows ? shape.nx : shape.nz;
      for (int line = 0; line < lines; ++line) {
        const float* data = view.by_rows ? volume + (static_cast<std::size_t>(line) * shape.ny + y) * shape.nx
                                         : turned.data() + static_cast<std::size_t>(line) * shape.nz;
        add_line(data, n, view.slope, from_zero(view, line, shape.width), out, shape.width);
      }
    }
  }
}

void radon_adjoint(const RadonShape& shape, const float* images, const double* angles_rad, float* volume,
                   int num_threads) {
  const auto views = views_of(shape, angles_rad);
  const auto image = [&](int i, int y) {
    return images + (static_cast<std::size_t>(i) * shape.ny + y) * shape.width;
  };
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<float> column(shape.nz);
#pragma omp for schedule(static)
    for (int task = 0; task < shape.nz * shape.ny; ++task) {
      const int z = task / shape.ny, y = task % shape.ny;
      for (int i = 0; i < shape.n_angles; ++i)
        if (views[i].by_rows)
          add_back(image(i, y), shape.width, views[i].slope, from_zero(views[i], z, shape.width),
                   volume + static_cast<std::size_t>(task) * shape.nx, shape.nx);
    }
#pragma omp for schedule(static)
    for (int task = 0; task < shape.ny * shape.nx; ++task) {
      const int y = task / shape.nx, x = task % shape.nx;
      std::fill(column.begin(), column.end(), 0.0f);
      bool any = false;
      for (int i = 0; i < shape.n_angles; ++i)
        if (!views[i].by_rows) {
          add_back(image(i, y), shape.width, views[i].slope, from_zero(views[i], x, shape.width),
                   column.data(), shape.nz);
          any = true;
        }
      for (int z = 0; any && z < shape.nz; ++z)
        volume[(static_cast<std::size_t>(z) * shape.ny + y) * shape.nx + x] += column[z];
    }
  }
}

}  // namespace verglas::cpu
