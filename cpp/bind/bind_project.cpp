#include "bind/bind.h"
#include "bind/bind_grid.h"
#include "ops/project.h"

namespace verglas::bind {
namespace {

void project(const GridArguments& g, const py::object& spectrum, const py::object& matrices, int max_radius,
             const py::object& shifts_px, const py::object& ctf, const py::object& curvature,
             const py::object& images, int num_threads) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto volume = input<cpu::Complex>(spectrum, "spectrum", {grid.rows(), grid.rows(), grid.columns});
  const auto m = rotations(matrices, "matrices");
  const py::ssize_t n = static_cast<py::ssize_t>(m.shape[0]), half = grid.box / 2 + 1;
  cpu::SliceOptions options{checked_radius(grid, max_radius, window.width), nullptr, nullptr};
  if (!shifts_px.is_none()) options.shifts_px = input<double>(shifts_px, "shifts_px", {n, 2}).data;
  if (!ctf.is_none()) options.ctf = input<float>(ctf, "ctf", {n, grid.box, half}).data;
  if (!curvature.is_none())
    options.curvature = checked_curvatures(grid, input<double>(curvature, "curvature", {n}).data, m.shape[0],
                                           max_radius, window.width);
  const auto out = output<cpu::Complex>(images, "out", {n, grid.box, half});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::project(grid, window, volume.data, m.data, m.shape[0], options, out.data, num_threads);
}

}  // namespace

void bind_project(py::module_& m) {
  py::class_<GridArguments>(m, "Grid", py::module_local(),
                            "Geometry and window of a gridded transform; made by verglas.ops.grid.")
      .def(py::init<int, int, int, int, int, py::array_t<float>>(), py::arg("box"), py::arg("padded"),
           py::arg("extent"), py::arg("halo"), py::arg("columns"), py::arg("window"));
  m.def("project", &project);
}

}  // namespace verglas::bind
