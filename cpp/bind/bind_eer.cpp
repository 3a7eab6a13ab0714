#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/eer_arguments.h"
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
  check_eer_code({run_bits, x_bits, y_bits, upsampling_log2});
  const auto grid = output<std::uint16_t>(counts, "counts", {kAny, kAny});
  check_eer_grid(grid.shape, upsampling_log2);
  py::gil_scoped_release release;
  return cpu::eer(bytes.data, bytes.shape[0], {run_bits, x_bits, y_bits, upsampling_log2},
                  grid.shape[0] >> upsampling_log2, grid.shape[1] >> upsampling_log2, grid.data);
}

}  // namespace

void bind_eer(py::module_& m) { m.def("eer", &eer); }

}  // namespace verglas::bind
