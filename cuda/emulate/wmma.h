// nvcuda::wmma on the host: fragments spread over the lanes of a warp as on the device (each lane holds its
// share of the elements; which, is nobody's business), products made when all 32 lanes have come. TF32
// operands lose the 13 bits that tensor cores do not read; products and sums are float32.
#pragma once
#include <type_traits>

#include "cuda/emulate/language.h"

struct __nv_bfloat16 {
  std::uint16_t bits;
};

/// To nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  std::uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};  // NaN
  bits += 0x7fffu + (bits >> 16 & 1u);
  return {static_cast<std::uint16_t>(bits >> 16)};
}
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
inline float __bfloat162float(__nv_bfloat16 x) {
  return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16);
}

namespace nvcuda::wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}  // namespace precision

/// To nearest, ties away from zero, as cvt.rna.tf32.f32.
inline float __float_to_tf32(float x) {
  const std::uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  return __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

namespace emulated {
template <class T>
struct Storage {
  using type = T;
  static float read(T x) { return static_cast<float>(x); }
};
template <>
struct Storage<precision::tf32> {
  using type = float;
  static float read(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }
};
template <>
struct Storage<__nv_bfloat16> {
  using type = __nv_bfloat16;
  static float read(__nv_bfloat16 x) { return __bfloat162float(x); }
};
template <class Use, int M, int N, int K>
struct Shape;
template <int M, int N, int K>
struct Shape<matrix_a, M, N, K> {
  static constexpr int rows = M, columns = K;
};
template <int M, int N, int K>
struct Shape<matrix_b, M, N, K> {
  static constexpr int rows = K, columns = N;
};
template <int M, int N, int K>
struct Shape<accumulator, M, N, K> {
  static constexpr int rows = M, columns = N;
};
}  // namespace emulated

template <class Use, int M, int N, int K, class T, class Layout = void>
class fragment {
 public:
  using Shape = emulated::Shape<Use, M, N, K>;
  using element_type = typename emulated::Storage<T>::type;
  static constexpr int num_elements = Shape::rows * Shape::columns / 32;
  element_type x[num_elements];
};

template <class Use, int M, int N, int K, class T, class Layout, class Value>
void fill_fragment(fragment<Use, M, N, K, T, Layout>& f, Value value) {
  for (auto& element : f.x) element = value;
}

namespace emulated {
template <class Fragment, class Visit>
void visit_own(Fragment& f, Visit visit) {
  const int first = verglas::emulate::lane() * Fragment::num_elements;
  for (int i = 0; i < Fragment::num_elements; ++i)
    visit(f.x[i], (first + i) / Fragment::Shape::columns, (first + i) % Fragment::Shape::columns);
}
}  // namespace emulated

template <class Use, int M, int N, int K, class T, class Layout, class From>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& f, const From* from, unsigned stride) {
  static_assert(!std::is_void_v<Layout>, "an accumulator is loaded with its layout");
  constexpr bool by_row = std::is_same_v<Layout, row_major>;
  emulated::visit_own(f, [&](auto& x, int r, int c) { x = from[by_row ? r * stride + c : c * stride + r]; });
}
template <int M, int N, int K, class T>
void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* from, unsigned stride, layout_t layout) {
  const bool by_row = layout == mem_row_major;
  emulated::visit_own(f, [&](auto& x, int r, int c) { x = from[by_row ? r * stride + c : c * stride + r]; });
}
template <int M, int N, int K, class T>
void store_matrix_sync(T* to, const fragment<accumulator, M, N, K, T>& f, unsigned stride, layout_t layout) {
  const bool by_row = layout == mem_row_major;
  emulated::visit_own(f,
                      [&](const auto& x, int r, int c) { to[by_row ? r * stride + c : c * stride + r] = x; });
}

/// d = a b + c.
template <int M, int N, int K, class A, class LayoutA, class B, class LayoutB>
void mma_sync(fragment<accumulator, M, N, K, float>& d, const fragment<matrix_a, M, N, K, A, LayoutA>& a,
              const fragment<matrix_b, M, N, K, B, LayoutB>& b,
              const fragment<accumulator, M, N, K, float>& c) {
  using FragmentA = fragment<matrix_a, M, N, K, A, LayoutA>;
  using FragmentB = fragment<matrix_b, M, N, K, B, LayoutB>;
  using Sum = fragment<accumulator, M, N, K, float>;
  struct Operands {
    Sum* d;
    const FragmentA* a;
    const FragmentB* b;
    const Sum* c;
  } own{&d, &a, &b, &c};
  std::uint64_t values[32];
  verglas::emulate::collective(
      0xffffffffu, reinterpret_cast<std::uint64_t>(&own), values, [](const std::uint64_t* lanes) {
        float left[M * K], right[K * N], sum[M * N];
        for (int l = 0; l < 32; ++l) {
          const auto* o = reinterpret_cast<const Operands*>(lanes[l]);
          for (int i = 0; i < FragmentA::num_elements; ++i)
            left[l * FragmentA::num_elements + i] = emulated::Storage<A>::read(o->a->x[i]);
          for (int i = 0; i < FragmentB::num_elements; ++i)
            right[l * FragmentB::num_elements + i] = emulated::Storage<B>::read(o->b->x[i]);
          for (int i = 0; i < Sum::num_elements; ++i) sum[l * Sum::num_elements + i] = o->c->x[i];
        }
        for (int m = 0; m < M; ++m)
          for (int k = 0; k < K; ++k)
            for (int n = 0; n < N; ++n) sum[m * N + n] += left[m * K + k] * right[k * N + n];
        for (int l = 0; l < 32; ++l) {
          auto* o = reinterpret_cast<const Operands*>(lanes[l]);
          for (int i = 0; i < Sum::num_elements; ++i) o->d->x[i] = sum[l * Sum::num_elements + i];
        }
      });
}

}  // namespace nvcuda::wmma
