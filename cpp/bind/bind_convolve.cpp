#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/convolve.h"

namespace verglas::bind {
namespace {

constexpr int kLargestSide = 15;

/// Shape of a convolution from its arrays; the side of the kernels is odd, the step 1 or more.
cpu::ConvolveShape checked_shape(const View<const float>& x, py::ssize_t side, py::ssize_t kernels,
                                 int stride) {
  if (side < 1 || side > kLargestSide || side % 2 == 0)
    throw std::invalid_argument("weight: expected kernels of an odd side up to " +
                                std::to_string(kLargestSide) + ", got " + std::to_string(side));
  if (stride < 1) throw std::invalid_argument("stride: expected 1 or more, got " + std::to_string(stride));
  return {x.shape[0],
          x.shape[1],
          x.shape[2],
          x.shape[3],
          static_cast<std::size_t>(kernels),
          static_cast<int>(side),
          stride};
}

void convolve(const py::object& images, const py::object& weight, const py::object& bias, int stride,
              const py::object& out, int num_threads) {
  const auto x = input<float>(images, "images", {kAny, kAny, kAny, kAny});
  const auto channels = static_cast<py::ssize_t>(x.shape[3]);
  const auto w = input<float>(weight, "weight", {kAny, kAny, channels, kAny});
  const auto kernels = static_cast<py::ssize_t>(w.shape[3]), side = static_cast<py::ssize_t>(w.shape[0]);
  if (w.shape[1] != w.shape[0])
    throw std::invalid_argument("weight: expected square kernels, got " + std::to_string(w.shape[0]) + " x " +
                                std::to_string(w.shape[1]));
  const auto b = input<float>(bias, "bias", {kernels});
  const auto shape = checked_shape(x, side, kernels, stride);
  const auto to = output<float>(out, "out",
                                {static_cast<py::ssize_t>(shape.n), static_cast<py::ssize_t>(shape.rows()),
                                 static_cast<py::ssize_t>(shape.columns()), kernels});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::convolve(x.data, w.data, b.data, shape, to.data, num_threads);
}

void convolve_gradient(const py::object& images, const py::object& gradient, int stride,
                       const py::object& out, int num_threads) {
  const auto x = input<float>(images, "images", {kAny, kAny, kAny, kAny});
  const auto to = output<double>(out, "out", {kAny, kAny, static_cast<py::ssize_t>(x.shape[3]), kAny});
  const auto kernels = static_cast<py::ssize_t>(to.shape[3]);
  if (to.shape[1] != to.shape[0])
    throw std::invalid_argument("out: expected square kernels, got " + std::to_string(to.shape[0]) + " x " +
                                std::to_string(to.shape[1]));
  const auto shape = checked_shape(x, static_cast<py::ssize_t>(to.shape[0]), kernels, stride);
  const auto g = input<float>(gradient, "gradient",
                              {static_cast<py::ssize_t>(shape.n), static_cast<py::ssize_t>(shape.rows()),
                               static_cast<py::ssize_t>(shape.columns()), kernels});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::convolve_gradient(x.data, g.data, shape, to.data, num_threads);
}

}  // namespace

void bind_convolve(py::module_& m) {
  m.def("convolve", &convolve);
  m.def("convolve_gradient", &convolve_gradient);
}

}  // namespace verglas::bind
