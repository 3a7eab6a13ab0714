#include <cmath>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/radon.h"

namespace verglas::bind {
namespace {

cpu::RadonShape shape_of(const View<const double>& angles, const std::vector<std::size_t>& volume,
                         const std::vector<std::size_t>& images) {
  for (std::size_t i = 0; i < angles.shape[0]; ++i)
    if (!std::isfinite(angles.data[i]))
      throw std::invalid_argument("angles: angle " + std::to_string(i) + " is not finite");
  if (volume[0] < 2 || volume[2] < 2 || images[2] < 1)
    throw std::invalid_argument("volume: expected at least 2 voxels along z and x, and one detector pixel");
  return {static_cast<int>(volume[0]), static_cast<int>(volume[1]), static_cast<int>(volume[2]),
          static_cast<int>(angles.shape[0]), static_cast<int>(images[2])};
}

void radon(const py::object& volume, const py::object& angles_rad, const py::object& images,
           int num_threads) {
  const auto in = input<float>(volume, "volume", {kAny, kAny, kAny});
  const auto angles = input<double>(angles_rad, "angles", {kAny});
  const auto out =
      output<float>(images, "images",
                    {static_cast<py::ssize_t>(angles.shape[0]), static_cast<py::ssize_t>(in.shape[1]), kAny});
  const auto shape = shape_of(angles, in.shape, out.shape);
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::radon(shape, in.data, angles.data, out.data, num_threads);
}

void radon_adjoint(const py::object& images, const py::object& angles_rad, const py::object& volume,
                   int num_threads) {
  const auto angles = input<double>(angles_rad, "angles", {kAny});
  const auto out = output<float>(volume, "volume", {kAny, kAny, kAny});
  const auto in =
      input<float>(images, "images",
                   {static_cast<py::ssize_t>(angles.shape[0]), static_cast<py::ssize_t>(out.shape[1]), kAny});
  const auto shape = shape_of(angles, out.shape, in.shape);
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::radon_adjoint(shape, in.data, angles.data, out.data, num_threads);
}

}  // namespace

void bind_radon(py::module_& m) {
  m.def("radon", &radon);
  m.def("radon_adjoint", &radon_adjoint);
}

}  // namespace verglas::bind
