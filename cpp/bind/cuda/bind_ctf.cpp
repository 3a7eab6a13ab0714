#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "cuda/ctf.h"

namespace verglas::bind {
namespace {

void ctf(const py::object& params, int box, double pixel_size_A, const py::object& out,
         std::uintptr_t stream) {
  const auto p = device_input<double>(params, "params", {kAny, math::kOpticsColumns});
  if (box < 1) throw std::invalid_argument("box: expected at least 1 pixel, got " + std::to_string(box));
  if (!(pixel_size_A > 0))
    throw std::invalid_argument("pixel_size_A: expected a positive number, got " +
                                std::to_string(pixel_size_A));
  const auto o = device_output<float>(out, "out", {static_cast<py::ssize_t>(p.shape[0]), box, box / 2 + 1});
  py::gil_scoped_release release;
  cuda::ctf(p.data, p.shape[0], box, pixel_size_A, o.data, stream_of(stream));
}

}  // namespace

void bind_cuda_ctf(py::module_& m) {
  m.def("ctf", &ctf, py::arg("params"), py::arg("box"), py::arg("pixel_size_A"), py::arg("out"),
        py::arg("stream"));
}

}  // namespace verglas::bind
