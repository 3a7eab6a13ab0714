#include <cmath>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/peaks.h"

namespace verglas::bind {
namespace {

double checked_radius_px(double radius) {
  if (!(radius >= 0 && std::isfinite(radius)))
    throw std::invalid_argument("radius_px: expected a number >= 0, got " + std::to_string(radius));
  return radius;
}

py::array_t<double> rows_of(const std::vector<cpu::Peak>& found) {
  auto out = make<double>({found.size(), 3});
  auto rows = out.mutable_unchecked<2>();
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    const auto& peak = found[static_cast<std::size_t>(i)];
    rows(i, 0) = peak.x, rows(i, 1) = peak.y, rows(i, 2) = peak.value;
  }
  return out;
}

py::array_t<double> peaks(const py::object& map, double radius, float threshold, const py::object& mask,
                          int num_threads) {
  const auto values = input<float>(map, "map", {kAny, kAny});
  const auto height = static_cast<py::ssize_t>(values.shape[0]),
             width = static_cast<py::ssize_t>(values.shape[1]);
  const std::uint8_t* allowed = nullptr;
  if (!mask.is_none()) allowed = input<std::uint8_t>(mask, "mask", {height, width}).data;
  checked_radius_px(radius);
  checked_threads(num_threads);
  std::vector<cpu::Peak> found;
  {
    py::gil_scoped_release release;
    found =
        cpu::peaks(values.data, values.shape[0], values.shape[1], radius, threshold, allowed, num_threads);
  }
  return rows_of(found);
}

/// Of peaks (n, 3) that were found elsewhere, in raster order, those that stand apart.
py::array_t<double> keep_apart(const py::object& found, std::size_t height, std::size_t width,
                               double radius) {
  const auto rows = input<double>(found, "found", {kAny, 3});
  std::vector<cpu::Peak> list;
  for (std::size_t i = 0; i < rows.shape[0]; ++i)
    list.push_back({rows.data[3 * i], rows.data[3 * i + 1], rows.data[3 * i + 2]});
  cpu::keep_apart(list, height, width, checked_radius_px(radius));
  return rows_of(list);
}

}  // namespace

void bind_peaks(py::module_& m) {
  m.def("peaks", &peaks);
  m.def("keep_apart", &keep_apart);
}

}  // namespace verglas::bind
