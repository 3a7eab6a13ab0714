// What the register-blocked kernels need beside lanes.h: aligned scratch, aligned loads, the register count.
// Everything that a lane computes is independent of the other lanes, so results do not depend on the packing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "math/lanes.h"

namespace verglas::math {

#if defined(__AVX512F__)
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorRegisters = 16;
#endif

/// x - 0 is x for every x, which the compiler knows; 0 + x is not for -0, and would cost an addition.
inline Lanes broadcast(float x) { return x - Lanes{}; }
inline Lanes load(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline void store(float* p, Lanes v) { *reinterpret_cast<Lanes*>(p) = v; }
inline Lanes maximum(Lanes a, Lanes b) { return a > b ? a : b; }

/// exp(x) for x <= 0 (below -87: 0), relative error below 3e-7: 2^n times a polynomial on [-ln2/2, ln2/2].
inline Lanes exp_not_positive(Lanes x) {
  typedef std::int32_t Ints __attribute__((vector_size(kLanes * sizeof(float))));
  const Lanes big = broadcast(12582912.0f);  // 1.5 * 2^23: adding and subtracting it rounds
  const Lanes clamped = x < -87.0f ? broadcast(-87.0f) : x;
  const Lanes n = (clamped * 1.44269504f + big) - big;
  const Lanes f = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = f * 1.98412698e-4f + 1.38888889e-3f;
  p = p * f + 8.33333333e-3f;
  p = p * f + 4.16666667e-2f;
  p = p * f + 1.66666667e-1f;
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
  Lanes power;
  std::memcpy(&power, &bits, sizeof(power));
  return x < -87.0f ? Lanes{} : p * power;
}

/// n rounded up to a multiple of m.
constexpr std::size_t round_up(std::size_t n, std::size_t m) { return (n + m - 1) / m * m; }

/// Float scratch aligned for Lanes (64 bytes), zeroed once; owns its memory.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  explicit AlignedFloats(std::size_t n) { resize(n); }
  /// Keeps the memory when it is large enough; the content is zeroed only when it is made anew.
  void resize(std::size_t n) {
    if (n > size_) {
      const std::size_t bytes = round_up(n * sizeof(float), 64);
      data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
      if (!data_) throw std::bad_alloc();
      for (std::size_t i = 0; i < bytes / sizeof(float); ++i) data_.get()[i] = 0.0f;
      size_ = n;
    }
  }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace verglas::math
