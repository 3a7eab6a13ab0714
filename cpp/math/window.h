// Interpolation window of the gridding kernels: W taps, each a polynomial of the fractional coordinate.
#pragma once
#include <type_traits>

#include "math/macros.h"

namespace verglas::math {

/// Window taps as polynomials: coefficients[d * width + j] of t^d for tap j.
struct WindowTable {
  int width;   // 2, 4, 6 or 8 taps
  int degree;  // of the polynomials
  const float* coefficients;
};
constexpr int kMaxDegree = 15, kMaxWidth = 8;

/// action(std::integral_constant<int, W>) for the width of a table: loops over taps are compiled per width.
template <class Action>
void with_width(int width, Action action) {
  switch (width) {
    case 2:
      return action(std::integral_constant<int, 2>{});
    case 4:
      return action(std::integral_constant<int, 4>{});
    case 6:
      return action(std::integral_constant<int, 6>{});
    default:
      return action(std::integral_constant<int, 8>{});
  }
}

/// Horner's rule for one polynomial or for several side by side: V is float, or a SIMD vector with one tap per lane.
template <class V, class T>
VG_HD V horner(const V* coefficients, int degree, T t) {
  V value = coefficients[degree];
  for (int d = degree - 1; d >= 0; --d) value = value * t + coefficients[d];
  return value;
}

/// A polynomial and its derivative.
template <class V>
struct Slope {
  V value, derivative;
};

/// Horner's rule for the value and the derivative in one pass; each entry of t belongs to its own lane.
template <class V>
VG_HD Slope<V> horner_slope(const V* coefficients, int degree, V t) {
  V value = coefficients[degree], derivative = value - value;
  for (int d = degree - 1; d >= 0; --d) {
    derivative = derivative * t + value;
    value = value * t + coefficients[d];
  }
  return {value, derivative};
}

/// Which grid points a coordinate touches: taps first .. first + W - 1, and t = fraction - 1/2 in [-1/2,
/// 1/2). Tap j lies at distance j - (W/2 - 1) - (t + 1/2) from the coordinate.
struct Footprint {
  int first;
  float t;
};

/// The coordinate must be >= 0 (grids are shifted so that it is): truncation is then the floor.
template <int W>
VG_HD Footprint footprint(double coordinate) {
  const int cell = static_cast<int>(coordinate);
  return {cell - (W / 2 - 1), static_cast<float>(coordinate - cell) - 0.5f};
}

}  // namespace verglas::math
