#include <cmath>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/warp.h"

namespace verglas::bind {
namespace {

/// Refuses shifts that are not finite, and fields steeper than the kernel resamples.
void check_field(const View<const float>& shifts, std::size_t rows, std::size_t columns) {
  const std::size_t n = shifts.shape[0], ny = shifts.shape[1], nx = shifts.shape[2];
  const double step_y = ny > 1 ? static_cast<double>(rows - 1) / static_cast<double>(ny - 1) : 0.0;
  const double step_x = nx > 1 ? static_cast<double>(columns - 1) / static_cast<double>(nx - 1) : 0.0;
  const auto steep = [&](const float* a, const float* b, double step, std::size_t frame) {
    for (int axis = 0; axis < 2; ++axis)
      if (!(std::fabs(a[axis] - b[axis]) <= cpu::kWarpSteepest * step))
        throw std::invalid_argument("shifts: frame " + std::to_string(frame) + " changes by " +
                                    std::to_string(std::fabs(a[axis] - b[axis])) + " px over " +
                                    std::to_string(step) + " px; expected at most 0.02 px per px");
  };
  for (std::size_t f = 0; f < n; ++f)
    for (std::size_t y = 0; y < ny; ++y)
      for (std::size_t x = 0; x < nx; ++x) {
        const float* p = shifts.data + ((f * ny + y) * nx + x) * 2;
        if (!(std::fabs(p[0]) < 1e6f) || !(std::fabs(p[1]) < 1e6f))
          throw std::invalid_argument("shifts: frame " + std::to_string(f) +
                                      " has a shift that is not finite, or beyond 1e6 px");
        if (x + 1 < nx) steep(p, p + 2, step_x, f);
        if (y + 1 < ny) steep(p, p + 2 * nx, step_y, f);
      }
}

void warp(const py::object& frames, const py::object& shifts, const py::object& weights,
          const py::object& sums, int num_threads) {
  const auto images = input<float>(frames, "frames", {kAny, kAny, kAny});
  const auto n = static_cast<py::ssize_t>(images.shape[0]);
  const auto field = input<float>(shifts, "shifts", {n, kAny, kAny, 2});
  const auto factors = input<float>(weights, "weights", {n, kAny});
  const auto rows = static_cast<py::ssize_t>(images.shape[1]),
             columns = static_cast<py::ssize_t>(images.shape[2]);
  const auto out = output<float>(sums, "sums", {static_cast<py::ssize_t>(factors.shape[1]), rows, columns});
  if (rows < 1 || columns < 1 || field.shape[1] < 1 || field.shape[2] < 1)
    throw std::invalid_argument("frames, shifts: expected at least one pixel and one node");
  check_field(field, images.shape[1], images.shape[2]);
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::warp({images.data, field.data, factors.data, images.shape[0], images.shape[1], images.shape[2],
             field.shape[1], field.shape[2], factors.shape[1]},
            out.data, num_threads);
}

/// For fields that go on to a device.
void check_warp_field(const py::object& shifts, std::size_t rows, std::size_t columns) {
  check_field(input<float>(shifts, "shifts", {kAny, kAny, kAny, 2}), rows, columns);
}

}  // namespace

void bind_warp(py::module_& m) {
  m.def("warp", &warp);
  m.def("check_warp_field", &check_warp_field);
}

}  // namespace verglas::bind
