#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/eer.h"

namespace verglas::bind {

template <>
inline const char* dtype_name<std::uint16_t>() {
  return "uint16";
}

namespace {

std::int64_t eer(const py::object& strip, int run_bits, int x_bits, int y_bits, int upsampling_log2,
                 const py::object& counts) {
  const auto bytes = input<std::uint8_t>(strip, "strip", {kAny});
  if (run_bits < 1 || run_bits > 16 || x_bits < 0 || x_bits > 8 || y_bits < 0 || y_bits > 8)
    throw std::invalid_argument("widths: expected 1 to 16 bits of a run length and 0 to 8 of a place, got " +
                                std::to_string(run_bits) + ", " + std::to_string(x_bits) + " and " +
                                std::to_string(y_bits));
  if (upsampling_log2 < 0 || upsampling_log2 > 4)
    throw std::invalid_argument("upsampling_log2: expected 0 to 4, got " + std::to_string(upsampling_log2));
  const auto grid = output<std::uint16_t>(counts, "counts", {kAny, kAny});
  const std::size_t below = (std::size_t{1} << upsampling_log2) - 1;
  if ((grid.shape[0] & below) != 0 || (grid.shape[1] & below) != 0)
    throw std::invalid_argument("counts: expected sides that are multiples of " + std::to_string(below + 1) +
                                ", got " + std::to_string(grid.shape[0]) + " and " +
                                std::to_string(grid.shape[1]));
  py::gil_scoped_release release;
  return cpu::eer(bytes.data, bytes.shape[0], {run_bits, x_bits, y_bits, upsampling_log2},
                  grid.shape[0] >> upsampling_log2, grid.shape[1] >> upsampling_log2, grid.data);
}

}  // namespace

void bind_eer(py::module_& m) { m.def("eer", &eer); }

}  // namespace verglas::bind
