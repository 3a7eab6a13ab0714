#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/ctf_score.h"

namespace verglas::bind {
namespace {

py::array_t<double> ctf_score(const py::object& params, const py::object& kx, const py::object& ky,
                              const py::object& y, const py::object& a, bool derivatives, int num_threads) {
  const auto p = input<double>(params, "params", {kAny, math::kOpticsColumns});
  const auto x = input<float>(kx, "kx", {kAny});
  const auto count = static_cast<py::ssize_t>(x.shape[0]);
  cpu::SpectrumPixels pixels{x.shape[0], x.data, input<float>(ky, "ky", {count}).data,
                             input<float>(y, "values", {count}).data,
                             input<float>(a, "amplitude", {count}).data};
  auto out = make<double>({p.shape[0], static_cast<std::size_t>(cpu::kCtfScores)});
  double* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::ctf_score(p.data, p.shape[0], pixels, derivatives, data, num_threads);
  return out;
}

}  // namespace

void bind_ctf_score(py::module_& m) {
  m.def("ctf_score", &ctf_score, py::arg("params"), py::arg("kx"), py::arg("ky"), py::arg("values"),
        py::arg("amplitude"), py::arg("derivatives"), py::arg("num_threads"));
}

}  // namespace verglas::bind
