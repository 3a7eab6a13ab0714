#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/ctf.h"

namespace verglas::bind {
namespace {

py::array_t<float> ctf(const py::object& params, int box, double pixel_size_A, int num_threads) {
  const auto p = input<double>(params, "params", {kAny, math::kOpticsColumns});
  if (box < 1) throw std::invalid_argument("box: expected at least 1 pixel, got " + std::to_string(box));
  if (!(pixel_size_A > 0))
    throw std::invalid_argument("pixel_size_A: expected a positive number, got " +
                                std::to_string(pixel_size_A));
  auto out = make<float>({p.shape[0], static_cast<std::size_t>(box), static_cast<std::size_t>(box / 2 + 1)});
  float* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::ctf(p.data, p.shape[0], box, pixel_size_A, data, num_threads);
  return out;
}

}  // namespace

void bind_ctf(py::module_& m) {
  m.def("ctf", &ctf, py::arg("params"), py::arg("box"), py::arg("pixel_size_A"), py::arg("num_threads"));
}

}  // namespace verglas::bind
