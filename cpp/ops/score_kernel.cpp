#include "ops/score_kernel.h"

#include <cmath>

#include "math/constants.h"

namespace verglas::cpu {
namespace {

using math::broadcast;
using math::kLanes;
using math::Lanes;
using math::load;
using math::maximum;
using math::store;

using math::kPi;
// Class of m mod 8 in the order 0, 4, 1, 2, 3.
constexpr int kClassOf[8] = {0, 2, 3, 4, 1, 4, 3, 2};

inline Lanes absolute(Lanes x) {
  typedef std::int32_t Bits __attribute__((vector_size(sizeof(Lanes))));
  Bits bits;
  __builtin_memcpy(&bits, &x, sizeof(x));
  bits &= 0x7fffffff;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

/// Sums over the slots of one class at one base angle: s[0] = sum re cos, s[1] = sum im sin, and for classes
/// with an imaginary part s[2] = sum im cos, s[3] = sum re sin.
template <bool kComplex>
inline void class_sums(const float* c, const float* cosine, const float* sine, int begin, int end,
                       Lanes (*s)[kBlock]) {
  Lanes acc[4][kBlock] = {};
  for (int i = begin; i < end; ++i) {
    const float* at = c + static_cast<std::size_t>(i) * 2 * kBlock * kLanes;
    const Lanes co = broadcast(cosine[i]), si = broadcast(sine[i]);
#pragma GCC unroll 4
    for (int k = 0; k < kBlock; ++k) {
      const Lanes re = load(at + k * kLanes), im = load(at + (kBlock + k) * kLanes);
      acc[0][k] += co * re;
      acc[1][k] += si * im;
      if (kComplex) {
        acc[2][k] += co * im;
        acc[3][k] += si * re;
      }
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < (kComplex ? 4 : 2); ++j) {
#pragma GCC unroll 4
    for (int k = 0; k < kBlock; ++k) s[j][k] = acc[j][k];
  }
}

/// The values of the five classes at one angle: y0, y4 real, y1, y2, y3 complex.
struct Classes {
  Lanes y0, y4, re1, re2, re3, im1, im2, im3;
};

/// Even and odd halves of the 8-point transform: score(p) = even[p] + odd[p], score(p + 4) = even[p] - odd[p].
inline void eight(const Classes& y, Lanes even[4], Lanes odd[4]) {
  const Lanes half_root = broadcast(0.707106781186547524f);
  const Lanes s = y.y0 + y.y4, d = y.y0 - y.y4, u = y.re1 - y.re3, v = y.im1 + y.im3;
  even[0] = s + y.re2;
  even[1] = d + y.im2;
  even[2] = s - y.re2;
  even[3] = d - y.im2;
  odd[0] = y.re1 + y.re3;
  odd[1] = half_root * (v + u);
  odd[2] = y.im1 - y.im3;
  odd[3] = half_root * (v - u);
}

using Sums = Lanes[5][4][kBlock];

inline void all_sums(const PsiTables& t, const float* c, int q, Sums s) {
  const float *co = t.cos.data() + static_cast<std::size_t>(q) * (t.max_m + 1),
              *si = t.sin.data() + static_cast<std::size_t>(q) * (t.max_m + 1);
  class_sums<false>(c, co, si, t.begin[0], t.begin[1], s[0]);
  class_sums<false>(c, co, si, t.begin[1], t.begin[2], s[1]);
  class_sums<true>(c, co, si, t.begin[2], t.begin[3], s[2]);
  class_sums<true>(c, co, si, t.begin[3], t.begin[4], s[3]);
  class_sums<true>(c, co, si, t.begin[4], t.begin[5], s[4]);
}

/// Re (c e^{-i m psi}) = re cos + im sin, Im = im cos - re sin; at -psi the sines change sign.
template <bool kPlus>
inline Classes classes_at(const Sums s, int k) {
  const auto real = [&](int j) { return kPlus ? s[j][0][k] + s[j][1][k] : s[j][0][k] - s[j][1][k]; };
  const auto imag = [&](int j) { return kPlus ? s[j][2][k] - s[j][3][k] : s[j][2][k] + s[j][3][k]; };
  return {real(0), real(1), real(2), real(3), real(4), imag(2), imag(3), imag(4)};
}

template <bool kPlus>
inline Lanes maximum_at(const Sums s, int k) {
  Lanes even[4], odd[4];
  eight(classes_at<kPlus>(s, k), even, odd);
  for (int p = 0; p < 4; ++p) even[p] += absolute(odd[p]);  // the larger of even +- odd
  return maximum(maximum(even[0], even[1]), maximum(even[2], even[3]));
}

template <bool kPlus>
inline void write_at(const PsiTables& t, const Sums s, int k, int q, int turn, float* scores) {
  Lanes even[4], odd[4];
  eight(classes_at<kPlus>(s, k), even, odd);
  const int first = (kPlus ? q : t.n_psi - 1 - q) + turn;
  for (int p = 0; p < 8; ++p) {
    const int j = (first + p * (t.n_psi / 8)) % t.n_psi;
    store(scores + (static_cast<std::size_t>(j) * kBlock + k) * kLanes,
          p < 4 ? even[p] + odd[p] : even[p - 4] - odd[p - 4]);
  }
}

}  // namespace

PsiTables::PsiTables(int n_psi_, int max_m_)
    : n_psi(n_psi_), max_m(max_m_), n_base((n_psi_ / 8 + 1) / 2), slot(max_m_ + 1), sign(max_m_ + 1) {
  std::vector<int> order;
  for (int c = 0; c < 5; ++c) {
    begin[c] = static_cast<int>(order.size());
    for (int m = 0; m <= max_m; ++m) {
      if (kClassOf[m % 8] != c) continue;
      slot[m] = static_cast<int>(order.size());
      sign[m] = m % 8 > 4 ? -1.0f : 1.0f;
      order.push_back(m);
    }
  }
  begin[5] = max_m + 1;
  for (int q = 0; q < n_base; ++q) {
    for (int m : order) {
      const double angle = kPi * (((2L * q + 1) * m) % (2L * n_psi)) / n_psi, eps = m ? 2 : 1;
      cos.push_back(static_cast<float>(eps * std::cos(angle)));
      sin.push_back(static_cast<float>(eps * std::sin(angle)) * sign[m]);
    }
  }
}

void correlate_block(const PolarGrid& grid, const PsiTables& psi, const PackedSlices& slices,
                     std::size_t block, const float* b, const LaneTerms& terms, float* c) {
  const float* a = slices.a.data() + block * grid.size * 2 * kBlock;
  const std::size_t slot_size = 2 * kBlock * kLanes, tile = (psi.max_m + 1) * slot_size;
  for (int m = 0; m <= grid.max_m; ++m) {
    Lanes rr[kBlock] = {}, ii[kBlock] = {}, ri[kBlock] = {}, ir[kBlock] = {};
    for (int n = grid.n_rings - grid.first_ring[m]; n > 0; --n, a += 2 * kBlock, b += 2 * kLanes) {
      const Lanes br = load(b), bi = load(b + kLanes);
#pragma GCC unroll 4
      for (int k = 0; k < kBlock; ++k) {
        const Lanes ar = broadcast(a[2 * k]), ai = broadcast(a[2 * k + 1]);
        rr[k] += ar * br;
        ri[k] += ar * bi;
        ir[k] += ai * br;
        ii[k] += ai * bi;
      }
    }
    float* out = c + psi.slot[m] * slot_size;
    const Lanes sign = broadcast(psi.sign[m]);
#pragma GCC unroll 4
    for (int k = 0; k < kBlock; ++k) {
      store(out + k * kLanes, rr[k] + ii[k]);
      store(out + (kBlock + k) * kLanes, sign * (ri[k] - ir[k]));
      store(out + tile + k * kLanes, rr[k] - ii[k]);
      store(out + tile + (kBlock + k) * kLanes, sign * (ri[k] + ir[k]));
    }
  }
  const Lanes log_shift = load(terms.log_shift);
  for (int side = 0; side < 2; ++side) {
    for (int k = 0; k < kBlock; ++k) {
      float* column = c + side * tile + k * kLanes;
      store(column, load(column) + (log_shift + slices.prior.data()[(block * 2 + side) * kBlock + k]));
      if (!terms.power) continue;
      const float* q = terms.power + (side * kBlock + k) * (2 * slices.n_power - 1) * kLanes;
      store(column, load(column) + load(q));
      for (int h = 1; h < slices.n_power; ++h) {
        float* at = column + psi.slot[2 * h] * slot_size;
        const Lanes re = load(q + (2 * h - 1) * kLanes), im = load(q + 2 * h * kLanes);
        store(at, load(at) + re);
        store(at + kBlock * kLanes, load(at + kBlock * kLanes) + psi.sign[2 * h] * im);
      }
    }
  }
}

void power_block(const PolarGrid& grid, const PackedSlices& slices, std::size_t block, const float* cp,
                 float scale, float* q) {
  const int n_power = slices.n_power, terms = 2 * n_power - 1;
  const float* p = slices.power.data() + block * grid.n_rings * n_power * 2 * kBlock;
  for (int k = 0; k < kBlock; ++k) {
    for (int h = 0; h < n_power; ++h) {
      Lanes rr = {}, ii = {}, ri = {}, ir = {};
      for (int j = 0; j < grid.n_rings; ++j) {
        const float* at = p + ((j * n_power + h) * kBlock + k) * 2;
        const Lanes cr = load(cp + (j * n_power + h) * 2 * kLanes),
                    ci = load(cp + ((j * n_power + h) * 2 + 1) * kLanes);
        rr += at[0] * cr;
        ii += at[1] * ci;
        ri += at[0] * ci;
        ir += at[1] * cr;
      }
      float *own = q + k * terms * kLanes, *opposite = q + (kBlock + k) * terms * kLanes;
      if (h == 0) {
        store(own, scale * rr);
        store(opposite, scale * rr);
      } else {
        store(own + (2 * h - 1) * kLanes, scale * (rr + ii));
        store(own + 2 * h * kLanes, scale * (ri - ir));
        store(opposite + (2 * h - 1) * kLanes, scale * (rr - ii));
        store(opposite + 2 * h * kLanes, scale * (ri + ir));
      }
    }
  }
}

void psi_maxima(const PsiTables& t, const float* c, float* best) {
  Lanes top[kBlock];
  for (int k = 0; k < kBlock; ++k) top[k] = load(best + k * kLanes);
  for (int q = 0; q < t.n_base; ++q) {
    Sums s;
    all_sums(t, c, q, s);
    for (int k = 0; k < kBlock; ++k)
      top[k] = maximum(top[k], maximum(maximum_at<true>(s, k), maximum_at<false>(s, k)));
  }
  for (int k = 0; k < kBlock; ++k) store(best + k * kLanes, top[k]);
}

void psi_scores(const PsiTables& t, const float* c, bool opposite, float* scores) {
  const int turn = opposite ? t.n_psi / 2 : 0;
  for (int q = 0; q < t.n_base; ++q) {
    Sums s;
    all_sums(t, c, q, s);
    for (int k = 0; k < kBlock; ++k) {
      write_at<true>(t, s, k, q, turn, scores);
      write_at<false>(t, s, k, q, turn, scores);  // the same angles again where q is its own mirror image
    }
  }
}

}  // namespace verglas::cpu
