// Every length to 1024 against the defining sum in double, for one transform and for the lanes of a vector.
#include <complex>
#include <random>
#include <vector>

#include "check.h"
#include "math/fft1d.h"
#include "math/lanes.h"

using verglas::math::Complex;
using verglas::math::Fft1d;
using verglas::math::kLanes;
using verglas::math::Lanes;
using verglas::math::RealFft1d;
using cd = std::complex<double>;

namespace {

float lane(const float& v, int) { return v; }
float lane(const Lanes& v, int l) { return v[l]; }
void set_lane(float& v, int, float x) { v = x; }
void set_lane(Lanes& v, int l, float x) { v[l] = x; }

std::vector<cd> direct(const std::vector<cd>& x, int sign) {
  const int n = static_cast<int>(x.size());
  std::vector<cd> circle(n), out(n);
  for (int j = 0; j < n; ++j) circle[j] = std::polar(1.0, sign * 6.283185307179586476925 * j / n);
  for (int k = 0; k < n; ++k)
    for (int j = 0; j < n; ++j) out[k] += x[j] * circle[static_cast<std::size_t>(j) * k % n];
  return out;
}

double largest(const std::vector<cd>& x) {
  double most = 0;
  for (const cd& v : x) most = std::max(most, std::abs(v));
  return most;
}

std::vector<cd> noise(int n, unsigned seed, bool real) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<cd> x(n);
  for (cd& v : x) {
    const float re = normal(random), im = normal(random);
    v = cd(re, real ? 0 : im);
  }
  return x;
}

// Only one lane is checked per length (it moves with n): a direct sum for all of them would take minutes.
template <class V>
void check_complex(int n, int lanes) {
  const Fft1d plan(n);
  std::vector<Complex<V>> data(n), scratch(n);
  const int checked = n % lanes;
  for (int sign : {-1, 1}) {
    std::vector<cd> want;
    for (int l = 0; l < lanes; ++l) {
      const std::vector<cd> x = noise(n, 1000 * n + l, false);
      if (l == checked) want = direct(x, sign);
      for (int j = 0; j < n; ++j) {
        set_lane(data[j].re, l, static_cast<float>(x[j].real()));
        set_lane(data[j].im, l, static_cast<float>(x[j].imag()));
      }
    }
    const Complex<V>* got =
        sign < 0 ? plan.forward(data.data(), scratch.data()) : plan.inverse(data.data(), scratch.data());
    double error = 0;
    for (int k = 0; k < n; ++k)
      error = std::max(error, std::abs(cd(lane(got[k].re, checked), lane(got[k].im, checked)) - want[k]));
    CHECK_NEAR(error / largest(want), 0, 1e-6);
  }
}

template <class V>
void check_real(int n, int lanes) {
  const RealFft1d plan(n);
  std::vector<Complex<V>> work(plan.storage()), scratch(plan.storage());
  const int checked = n % lanes;
  std::vector<cd> x;
  V* reals = RealFft1d::reals(work.data());
  for (int l = 0; l < lanes; ++l) {
    const std::vector<cd> one = noise(n, 2000 * n + l, true);
    if (l == checked) x = one;
    for (int j = 0; j < n; ++j) set_lane(reals[j], l, static_cast<float>(one[j].real()));
  }
  const std::vector<cd> want = direct(x, -1);
  Complex<V>* got = plan.forward(work.data(), scratch.data());
  double error = 0;
  for (int k = 0; k < plan.half(); ++k)
    error = std::max(error, std::abs(cd(lane(got[k].re, checked), lane(got[k].im, checked)) - want[k]));
  CHECK_NEAR(error / largest(want), 0, 1e-6);

  Complex<V>* other = got == work.data() ? scratch.data() : work.data();
  const V* back = plan.inverse(got, other);
  error = 0;
  for (int j = 0; j < n; ++j) error = std::max(error, std::fabs(lane(back[j], checked) / n - x[j].real()));
  CHECK_NEAR(error / largest(x), 0, 1e-6);
}

template <class Call>
bool throws(Call call) {
  try {
    call();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  for (int n = 1; n <= 1024; ++n) {
    if (!verglas::math::is_smooth(n)) {
      CHECK_NEAR(throws([n] { Fft1d plan(n); }), 1, 0);
      continue;
    }
    check_complex<float>(n, 1);
    check_complex<Lanes>(n, kLanes);
    check_real<float>(n, 1);
    check_real<Lanes>(n, kLanes);
  }
  CHECK_NEAR(verglas::math::next_smooth(11), 12, 0);
  CHECK_NEAR(verglas::math::next_smooth(513), 525, 0);
  CHECK_NEAR(throws([] { Fft1d plan(0); }), 1, 0);
  return check::report();
}
