#include "bind/bind_grid.h"
#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "cuda/project.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

const float2* spectrum_of(const py::object& spectrum, const math::GridShape& grid) {
  return as_float2(device_input<cfloat>(spectrum, "spectrum", {grid.rows(), grid.rows(), grid.columns}).data);
}

void project(const GridArguments& g, const py::object& spectrum, const py::object& matrices, int max_radius,
             const py::object& shifts_px, const py::object& ctf, const py::object& curvature,
             const py::object& images, std::uintptr_t stream) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto* volume = spectrum_of(spectrum, grid);
  const auto m = device_input<double>(matrices, "matrices", {kAny, 3, 3});
  const py::ssize_t n = static_cast<py::ssize_t>(m.shape[0]), half = grid.box / 2 + 1;
  const cuda::SliceOptions options{checked_radius(grid, max_radius, window.width),
                                   optional_input<double>(shifts_px, "shifts_px", {n, 2}),
                                   optional_input<float>(ctf, "ctf", {n, grid.box, half}),
                                   optional_input<double>(curvature, "curvature", {n})};
  const auto out = device_output<cfloat>(images, "out", {n, grid.box, half});
  py::gil_scoped_release release;
  cuda::project(grid, window, volume, m.data, m.shape[0], options, as_float2(out.data), stream_of(stream));
}

void rotate(const GridArguments& g, const py::object& spectrum, const py::object& matrix, int max_radius,
            const py::object& out, std::uintptr_t stream) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto* volume = spectrum_of(spectrum, grid);
  const auto m = input<double>(matrix, "matrix", {3, 3});  // nine numbers travel as arguments of the kernel
  check_rotation(m.data, "matrix", 0);
  checked_radius(grid, max_radius, window.width);
  const auto rotated = device_output<cfloat>(out, "out", {grid.box, grid.box, grid.box / 2 + 1});
  py::gil_scoped_release release;
  cuda::rotate(grid, window, volume, m.data, max_radius, as_float2(rotated.data), stream_of(stream));
}

}  // namespace

void bind_cuda_project(py::module_& m) {
  py::class_<GridArguments>(m, "Grid", py::module_local())
      .def(py::init<int, int, int, int, int, py::array_t<float>>(), py::arg("box"), py::arg("padded"),
           py::arg("extent"), py::arg("halo"), py::arg("columns"), py::arg("window"));
  m.def(
      "check_rotations",
      [](const py::object& matrices, const char* name) { (void)rotations(matrices, name); },
      "Refuses matrices (n, 3, 3) on the host that are no rotations.");
  m.def(
      "check_curvatures",
      [](const GridArguments& g, const py::object& curvature, int max_radius) {
        const auto c = input<double>(curvature, "curvature", {kAny});
        checked_curvatures(grid_shape(g), c.data, c.shape[0], max_radius, window_table(g).width);
      },
      "Refuses curvatures on the host with which slices of this radius leave the grid.");
  m.def("project", &project);
  m.def("rotate", &rotate);
}

}  // namespace verglas::bind
