#include "bind/arrays.h"
#include "bind/bind.h"
#include "math/fft1d.h"
#include "ops/fft1d.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

py::array_t<cfloat> fft1d(const py::object& x, bool inverse) {
  const auto in = input<cfloat>(x, "x", {kAny, kAny});
  const int length = math::checked_length(static_cast<int>(in.shape[1]));
  auto out = make<cfloat>({in.shape[0], in.shape[1]});
  cfloat* data = out.mutable_data();
  py::gil_scoped_release release;
  cpu::fft1d(in.data, in.shape[0], length, inverse, data);
  return out;
}

py::array_t<cfloat> rfft1d(const py::object& x) {
  const auto in = input<float>(x, "x", {kAny, kAny});
  const int length = math::checked_length(static_cast<int>(in.shape[1]));
  auto out = make<cfloat>({in.shape[0], in.shape[1] / 2 + 1});
  cfloat* data = out.mutable_data();
  py::gil_scoped_release release;
  cpu::rfft1d(in.data, in.shape[0], length, data);
  return out;
}

py::array_t<float> irfft1d(const py::object& x, int length) {
  math::checked_length(length);
  const auto in = input<cfloat>(x, "x", {kAny, length / 2 + 1});
  auto out = make<float>({in.shape[0], static_cast<std::size_t>(length)});
  float* data = out.mutable_data();
  py::gil_scoped_release release;
  cpu::irfft1d(in.data, in.shape[0], length, data);
  return out;
}

}  // namespace

void bind_fft1d(py::module_& m) {
  m.def("_fft1d", &fft1d, py::arg("x"), py::arg("inverse"), "For tests: complex transforms of rows.");
  m.def("_rfft1d", &rfft1d, py::arg("x"), "For tests: half transforms of real rows.");
  m.def("_irfft1d", &irfft1d, py::arg("x"), py::arg("length"), "For tests: unnormalised inverse of _rfft1d.");
}

}  // namespace verglas::bind
