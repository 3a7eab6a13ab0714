// The SIMD lane type of the processor level this translation unit is compiled for: arithmetic on it is plain
// C++ (vector extensions of GCC and Clang), one float per independent problem.
#pragma once
#include <cstring>

namespace verglas::math {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

/// Unaligned load and store.
inline Lanes load_lanes(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store_lanes(float* p, const Lanes& v) { std::memcpy(p, &v, sizeof v); }

/// The first `count` lanes from p, the others zero; reads nothing beyond p[count - 1].
inline Lanes load_lanes(const float* p, int count) {
  Lanes v = {};
  std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(float));
  return v;
}

}  // namespace verglas::math
