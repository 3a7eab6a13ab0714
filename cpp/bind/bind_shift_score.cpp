#include <algorithm>
#include <cmath>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/shift_score.h"

namespace verglas::bind {
namespace {

void shift_score(const py::object& patches, const py::object& shifts, const py::object& weights,
                 const py::object& frequencies_y, const py::object& frequencies_x, const py::object& value,
                 const py::object& gradient, const py::object& curvature, int num_threads) {
  const auto data = input<std::complex<float>>(patches, "patches", {kAny, kAny, kAny, kAny});
  py::ssize_t side[4];
  for (int i = 0; i < 4; ++i) side[i] = static_cast<py::ssize_t>(data.shape[i]);
  const auto d = input<double>(shifts, "shifts", {side[0], side[1], 2});
  const auto w = input<float>(weights, "weights", {side[2], side[3]});
  const auto fy = input<double>(frequencies_y, "frequencies_y", {side[2]});
  const auto fx = input<double>(frequencies_x, "frequencies_x", {side[3]});
  const auto v = output<double>(value, "value", {side[0]});
  cpu::ShiftScores out{v.data, nullptr, nullptr};
  if (!gradient.is_none()) {
    out.gradient = output<double>(gradient, "gradient", {side[0], side[1], 2}).data;
    out.curvature = output<double>(curvature, "curvature", {side[0], side[1], 3}).data;
  }
  if (std::any_of(w.data, w.data + w.size(), [](float x) { return !(x >= 0) || std::isinf(x); }))
    throw std::invalid_argument("weights: expected finite values of 0 or more");
  if (std::any_of(d.data, d.data + d.size(), [](double x) { return !std::isfinite(x); }))
    throw std::invalid_argument("shifts: expected finite values");
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::shift_score(
      {data.data, w.data, fy.data, fx.data, data.shape[0], data.shape[1], data.shape[2], data.shape[3]},
      d.data, out, num_threads);
}

}  // namespace

void bind_shift_score(py::module_& m) { m.def("shift_score", &shift_score); }

}  // namespace verglas::bind
