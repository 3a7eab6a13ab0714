// Mean and standard deviation of an image, and the report of the first image that has none.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>

#include "math/lanes.h"

namespace verglas::cpu {

// Contrast that float32 cannot hold beside the mean: such an image is flat.
constexpr double kFlat = 1e-6;

struct GreyScale {
  double mean = 0, sd = 0;
  bool finite = true, flat = true;
};

inline double sum_of(const float* image, std::size_t n, float offset, bool squared) {
  double sum = 0;
  for (std::size_t i = 0; i < n;) {  // float lanes over short runs, double between them
    math::Lanes part{};
    const std::size_t stop = std::min(n, i + 16 * math::kLanes);
    for (; i + math::kLanes <= stop; i += math::kLanes) {
      const math::Lanes v = math::load_lanes(image + i) - offset;
      part += squared ? v * v : v;
    }
    for (; i < stop; ++i) part[0] += squared ? (image[i] - offset) * (image[i] - offset) : image[i] - offset;
    for (int l = 0; l < math::kLanes; ++l) sum += part[l];
  }
  return sum;
}

inline GreyScale grey_scale(const float* image, std::size_t pixels) {
  GreyScale g;
  g.mean = sum_of(image, pixels, 0, false) / static_cast<double>(pixels);
  const float offset = static_cast<float>(g.mean);
  const double variance = sum_of(image, pixels, offset, true) / static_cast<double>(pixels);
  g.finite = std::isfinite(g.mean) && std::isfinite(variance);
  g.sd = std::sqrt(variance);
  g.flat = g.sd <= kFlat * std::fabs(g.mean) || g.sd < std::numeric_limits<float>::min();
  return g;
}

/// The least index of a bad image, so that the message does not depend on threads.
class FirstBad {
 public:
  void note(std::size_t i) {
#pragma omp critical(verglas_first_bad)
    first_ = std::min(first_, i);
  }
  void raise(const char* argument, const char* what) const {
    if (first_ == std::numeric_limits<std::size_t>::max()) return;
    throw std::invalid_argument(
        std::string(argument) + ": expected finite pixels whose squares float32 holds; " + what + " " +
        std::to_string(first_) +
        " (counted from 0) has NaN, infinity or values beyond 1e18; mend it or leave it out");
  }

 private:
  std::size_t first_ = std::numeric_limits<std::size_t>::max();
};

}  // namespace verglas::cpu
