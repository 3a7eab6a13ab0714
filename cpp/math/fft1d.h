// Short Fourier transforms, vectorised across the batch: the element type V is float (one transform) or a
// vector of floats (lanes.h), whose lanes are independent transforms. Lengths: every product of 2, 3, 5 and 7.
//
//   forward   X[k] = sum_j x[j] exp(-2 pi i jk / n)        inverse   x[j] = sum_k X[k] exp(+2 pi i jk / n)
//
// Neither is normalised: inverse(forward(x)) = n x. A plan is a table of twiddle factors made once, in
// double; the transforms allocate nothing. Error: below 1e-6 of the largest output for n <= 1024
// (test_fft1d.cpp). Method: the self-sorting mixed-radix algorithm (Stockham; C. Temperton (1983) J. Comput.
// Phys. 52, 1-23).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "math/constants.h"

namespace verglas::math {

template <class V>
struct Complex {
  V re, im;
};

template <class V>
inline Complex<V> operator+(const Complex<V>& a, const Complex<V>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <class V>
inline Complex<V> operator-(const Complex<V>& a, const Complex<V>& b) {
  return {a.re - b.re, a.im - b.im};
}
template <class V>
inline Complex<V> operator*(float s, const Complex<V>& a) {
  return {s * a.re, s * a.im};
}
/// a (c + i s) for scalar c, s.
template <class V>
inline Complex<V> times(const Complex<V>& a, float c, float s) {
  return {c * a.re - s * a.im, c * a.im + s * a.re};
}
/// S i a, with S = +1 or -1.
template <int S, class V>
inline Complex<V> times_i(const Complex<V>& a) {
  if constexpr (S > 0) return {-a.im, a.re};
  return {a.im, -a.re};
}

namespace fft1d {

constexpr double kTwoPi = 2 * kPi;

// cos and sin of 2 pi j / R for the odd radices; entry j - 1, j = 1 .. (R - 1) / 2.
template <int R>
struct Circle;
template <>
struct Circle<3> {
  static constexpr float c[] = {-0.5f}, s[] = {0.866025403784438647f};
};
template <>
struct Circle<5> {
  static constexpr float c[] = {0.309016994374947424f, -0.809016994374947424f};
  static constexpr float s[] = {0.951056516295153572f, 0.587785252292473129f};
};
template <>
struct Circle<7> {
  static constexpr float c[] = {0.623489801858733531f, -0.222520933956314404f, -0.900968867902419126f};
  static constexpr float s[] = {0.781831482468029809f, 0.974927912181823607f, 0.433883739117558120f};
};

/// In-place DFT of R values, exponent sign S. Odd R: the sums a_j + a_{R-j} meet cosines only, the
/// differences sines only.
template <int R, int S, class V>
inline void butterfly(Complex<V>* a) {
  constexpr int half = (R - 1) / 2;
  Complex<V> sum[half], diff[half];
  const Complex<V> a0 = a[0];
  for (int j = 1; j <= half; ++j) {
    sum[j - 1] = a[j] + a[R - j];
    diff[j - 1] = a[j] - a[R - j];
    a[0] = a[0] + sum[j - 1];
  }
#pragma GCC unroll 3
  for (int k = 1; k <= half; ++k) {
    Complex<V> even = a0;
    Complex<V> odd = {};
#pragma GCC unroll 3
    for (int j = 1; j <= half; ++j) {
      const int turn = j * k % R;  // cos is even and sin odd about R / 2
      const int at = (turn <= half ? turn : R - turn) - 1;
      const float sign = turn <= half ? 1.0f : -1.0f;
      even = even + Circle<R>::c[at] * sum[j - 1];
      odd = odd + (sign * Circle<R>::s[at]) * diff[j - 1];
    }
    const Complex<V> turned = times_i<S>(odd);
    a[k] = even + turned;
    a[R - k] = even - turned;
  }
}

template <class V>
inline void butterfly2(Complex<V>* a) {
  const Complex<V> b = a[1];
  a[1] = a[0] - b;
  a[0] = a[0] + b;
}

template <int S, class V>
inline void butterfly4(Complex<V>& a0, Complex<V>& a1, Complex<V>& a2, Complex<V>& a3) {
  const Complex<V> e0 = a0 + a2, e1 = a0 - a2, o0 = a1 + a3, o1 = times_i<S>(a1 - a3);
  a0 = e0 + o0;
  a1 = e1 + o1;
  a2 = e0 - o0;
  a3 = e1 - o1;
}

template <int S, class V>
inline void butterfly8(Complex<V>* a) {
  constexpr float root = 0.707106781186547524f;
  butterfly4<S>(a[0], a[2], a[4], a[6]);
  butterfly4<S>(a[1], a[3], a[5], a[7]);
  // exp(S 2 pi i k / 8) times the odd half, k = 1, 2, 3
  const Complex<V> o1 = root * (a[3] + times_i<S>(a[3])), o2 = times_i<S>(a[5]),
                   o3 = root * (times_i<S>(a[7]) - a[7]);
  const Complex<V> e0 = a[0], e1 = a[2], e2 = a[4], e3 = a[6], o0 = a[1];
  a[0] = e0 + o0, a[4] = e0 - o0;
  a[1] = e1 + o1, a[5] = e1 - o1;
  a[2] = e2 + o2, a[6] = e2 - o2;
  a[3] = e3 + o3, a[7] = e3 - o3;
}

template <int R, int S, class V>
inline void small_dft(Complex<V>* a) {
  if constexpr (R == 2) {
    butterfly2(a);
  } else if constexpr (R == 4) {
    butterfly4<S>(a[0], a[1], a[2], a[3]);
  } else if constexpr (R == 8) {
    butterfly8<S>(a);
  } else {
    butterfly<R, S>(a);
  }
}

/// One self-sorting pass: of R m s values, s interleaved sequences of length R m become R s of length m.
///   y[q + s (R p + j)] = w^(p j) sum_k x[q + s (p + m k)] exp(S 2 pi i j k / R),  w = exp(S 2 pi i / (R m))
/// w: (R - 1) pairs (cos, sin) per p >= 1, sign of the forward transform.
template <int R, int S, class V>
void pass(const Complex<V>* x, Complex<V>* y, int m, int s, const float* w) {
  Complex<V> a[R];
  for (int q = 0; q < s; ++q) {  // p = 0: all twiddle factors are 1
    for (int k = 0; k < R; ++k) a[k] = x[q + s * m * k];
    small_dft<R, S>(a);
    for (int j = 0; j < R; ++j) y[q + s * j] = a[j];
  }
  for (int p = 1; p < m; ++p, w += 2 * (R - 1)) {
    for (int q = 0; q < s; ++q) {
      for (int k = 0; k < R; ++k) a[k] = x[q + s * (p + m * k)];
      small_dft<R, S>(a);
      Complex<V>* out = y + q + s * R * p;
      out[0] = a[0];
      for (int j = 1; j < R; ++j)
        out[s * j] = times(a[j], w[2 * j - 2], S < 0 ? w[2 * j - 1] : -w[2 * j - 1]);
    }
  }
}

}  // namespace fft1d

/// Whether n is a positive product of 2, 3, 5 and 7.
inline bool is_smooth(int n) {
  if (n < 1) return false;
  for (int f : {2, 3, 5, 7})
    while (n % f == 0) n /= f;
  return n == 1;
}

/// The least length >= n that Fft1d takes.
inline int next_smooth(int n) {
  n = std::max(n, 1);
  while (!is_smooth(n)) ++n;
  return n;
}

inline int checked_length(int n) {
  if (is_smooth(n)) return n;
  throw std::invalid_argument("transform length: expected a product of 2, 3, 5 and 7, got " +
                              std::to_string(n) + "; the next such length is " +
                              std::to_string(next_smooth(n)));
}

/// Plan of a complex transform.
class Fft1d {
 public:
  explicit Fft1d(int n) : n_(checked_length(n)) {
    factorise();
    make_twiddles();
  }

  int size() const { return n_; }

  /// Transforms data[0 .. n); scratch holds n more. Returns where the result lies: data or scratch (the other
  /// is overwritten).
  template <class V>
  Complex<V>* forward(Complex<V>* data, Complex<V>* scratch) const {
    return run<-1>(data, scratch);
  }
  template <class V>
  Complex<V>* inverse(Complex<V>* data, Complex<V>* scratch) const {
    return run<+1>(data, scratch);
  }

 private:
  struct Step {
    int radix, m, stride;
    std::size_t twiddles;
  };

  void factorise() {
    int rest = n_, twos = 0;
    auto add = [&](int radix) { steps_.push_back({radix, 0, 0, 0}); };
    for (int f : {7, 5, 3})
      for (; rest % f == 0; rest /= f) add(f);
    for (; rest % 2 == 0; rest /= 2) ++twos;
    if (twos == 1) add(2);
    if (twos > 1 && twos % 3 == 1) add(4), add(4), twos -= 4;
    if (twos % 3 == 2) add(4), twos -= 2;
    for (; twos >= 3; twos -= 3) add(8);
  }

  void make_twiddles() {
    int length = n_, stride = 1;
    for (Step& step : steps_) {
      step.m = length / step.radix;
      step.stride = stride;
      step.twiddles = twiddles_.size();
      for (int p = 1; p < step.m; ++p)
        for (int j = 1; j < step.radix; ++j) {
          const double angle = -fft1d::kTwoPi * (static_cast<long long>(p) * j % length) / length;
          twiddles_.push_back(static_cast<float>(std::cos(angle)));
          twiddles_.push_back(static_cast<float>(std::sin(angle)));
        }
      length = step.m;
      stride *= step.radix;
    }
  }

  template <int S, class V>
  Complex<V>* run(Complex<V>* x, Complex<V>* y) const {
    for (const Step& step : steps_) {
      const float* w = twiddles_.data() + step.twiddles;
      switch (step.radix) {
        case 2:
          fft1d::pass<2, S>(x, y, step.m, step.stride, w);
          break;
        case 3:
          fft1d::pass<3, S>(x, y, step.m, step.stride, w);
          break;
        case 4:
          fft1d::pass<4, S>(x, y, step.m, step.stride, w);
          break;
        case 5:
          fft1d::pass<5, S>(x, y, step.m, step.stride, w);
          break;
        case 7:
          fft1d::pass<7, S>(x, y, step.m, step.stride, w);
          break;
        default:
          fft1d::pass<8, S>(x, y, step.m, step.stride, w);
      }
      std::swap(x, y);
    }
    return x;
  }

  int n_;
  std::vector<Step> steps_;
  std::vector<float> twiddles_;
};

/// Plan of a real transform: n reals <-> n/2 + 1 complex values (k = 0 .. n/2).
/// Even n costs a complex transform of n/2 (two neighbouring reals are one complex value); odd n one of n.
class RealFft1d {
 public:
  explicit RealFft1d(int n) : n_(checked_length(n)), plan_(n % 2 == 0 ? n / 2 : n) {
    for (int k = 0; n % 2 == 0 && k <= n / 4; ++k) {
      const double angle = -fft1d::kTwoPi * k / n;
      twiddles_.push_back(static_cast<float>(std::cos(angle)));
      twiddles_.push_back(static_cast<float>(std::sin(angle)));
    }
  }

  int size() const { return n_; }
  int half() const { return n_ / 2 + 1; }
  /// Complex elements each of the two work arrays must hold.
  int storage() const { return n_ % 2 == 0 ? n_ / 2 + 1 : n_; }

  /// x: n reals at the start of the array `work` (of storage() complex elements); returns the half transform,
  /// which lies in work or scratch.
  template <class V>
  Complex<V>* forward(Complex<V>* work, Complex<V>* scratch) const {
    if (n_ % 2 == 0) {
      Complex<V>* z = plan_.forward(work, scratch);  // the reals 2j and 2j + 1 are z[j].re and z[j].im
      split(z);
      return z;
    }
    const V* x = reals(work);
    for (int j = 0; j < n_; ++j) scratch[j] = {x[j], V{}};
    return plan_.forward(scratch, work);
  }

  /// spectrum: the half transform, overwritten; returns the n reals, which lie in spectrum or scratch. The
  /// imaginary part of k = 0, and of k = n/2 for even n, is ignored.
  template <class V>
  V* inverse(Complex<V>* spectrum, Complex<V>* scratch) const {
    if (n_ % 2 == 0) {
      join(spectrum);
      return reals(plan_.inverse(spectrum, scratch));
    }
    scratch[0] = {spectrum[0].re, V{}};
    for (int k = 1; k <= n_ / 2; ++k) {
      scratch[k] = spectrum[k];
      scratch[n_ - k] = {spectrum[k].re, -spectrum[k].im};
    }
    Complex<V>* z = plan_.inverse(scratch, spectrum);
    V* x = reals(z);
    for (int j = 0; j < n_; ++j) x[j] = z[j].re;
    return x;
  }

  /// The same memory as reals; a Complex<V> is two V and nothing else.
  template <class V>
  static V* reals(Complex<V>* z) {
    static_assert(sizeof(Complex<V>) == 2 * sizeof(V));
    return &z->re;
  }

 private:
  // Z = E + i O with E, O the transforms of the even and odd samples; X[k] = E[k] + w^k O[k], w = exp(-2 pi i/n).
  template <class V>
  void split(Complex<V>* z) const {
    const int h = n_ / 2;
    const Complex<V> z0 = z[0];
    z[0] = {z0.re + z0.im, V{}};
    z[h] = {z0.re - z0.im, V{}};
    for (int k = 1; k <= h / 2; ++k) {
      const Complex<V> a = z[k], b = {z[h - k].re, -z[h - k].im};
      const Complex<V> even = 0.5f * (a + b);
      const Complex<V> odd = times(0.5f * times_i<-1>(a - b), twiddles_[2 * k], twiddles_[2 * k + 1]);
      z[k] = even + odd;
      z[h - k] = {even.re - odd.re, odd.im - even.im};
    }
  }

  template <class V>
  void join(Complex<V>* z) const {
    const int h = n_ / 2;
    const V first = z[0].re, last = z[h].re;
    z[0] = {first + last, first - last};
    for (int k = 1; k <= h / 2; ++k) {
      const Complex<V> a = z[k], b = {z[h - k].re, -z[h - k].im};
      const Complex<V> even = a + b;
      const Complex<V> odd = times(times_i<+1>(a - b), twiddles_[2 * k], -twiddles_[2 * k + 1]);
      z[k] = even + odd;
      z[h - k] = {even.re - odd.re, odd.im - even.im};
    }
  }

  int n_;
  Fft1d plan_;
  std::vector<float> twiddles_;
};

}  // namespace verglas::math
