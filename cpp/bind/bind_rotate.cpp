#include "bind/bind.h"
#include "bind/bind_grid.h"
#include "ops/rotate.h"

namespace verglas::bind {
namespace {

void rotate(const GridArguments& g, const py::object& spectrum, const py::object& matrix, int max_radius,
            const py::object& out, int num_threads) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto volume = input<cpu::Complex>(spectrum, "spectrum", {grid.rows(), grid.rows(), grid.columns});
  const auto m = input<double>(matrix, "matrix", {3, 3});
  check_rotation(m.data, "matrix", 0);
  checked_radius(grid, max_radius, window.width);
  const auto rotated = output<cpu::Complex>(out, "out", {grid.box, grid.box, grid.box / 2 + 1});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::rotate(grid, window, volume.data, m.data, max_radius, rotated.data, num_threads);
}

}  // namespace

void bind_rotate(py::module_& m) { m.def("rotate", &rotate); }

}  // namespace verglas::bind
