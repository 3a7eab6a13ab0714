#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/polar_tables.h"
#include "cuda/score_cells.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

const float* complex_input(const py::dict& from, const char* name, std::initializer_list<py::ssize_t> shape) {
  return reinterpret_cast<const float*>(member<cfloat>(from, name, shape));
}

/// Indices inside the arrays are the caller's to check.
void cells(const PolarTablesArgument& grid, const py::tuple& layout, const py::dict& a,
           const py::object& scores, std::uintptr_t stream) {
  cuda::CellProblem p{};
  p.grid = grid.view;
  p.layout = tile_layout(grid, layout);
  p.n_power = a["n_power"].cast<int>();
  p.n_psi = a["n_psi"].cast<int>();
  p.most_tiles = a["most_tiles"].cast<int>();
  const py::ssize_t rings = p.grid.n_rings;
  p.harmonics = complex_input(a, "harmonics", {kAny, static_cast<py::ssize_t>(p.grid.size)});
  p.power = complex_input(a, "power", {kAny, rings, p.n_power});
  p.circle = member<float>(a, "circle", {2 * static_cast<py::ssize_t>(p.n_psi), 2});
  p.columns = member<float>(a, "columns", {kAny, tile_floats(p.layout)});
  const auto counts = device_input<std::int64_t>(a["n_shifts"], "n_shifts", {kAny});
  const auto n = static_cast<py::ssize_t>(counts.size());
  p.n_shifts = counts.data;
  p.cp = complex_input(a, "cp", {n, rings, p.n_power});
  p.first_tile = member<std::int64_t>(a, "first_tile", {n + 1});
  p.first_task = member<std::int64_t>(a, "first_task", {n + 1});
  p.first_score = member<std::int64_t>(a, "first_score", {n + 1});
  p.psi = member<std::int32_t>(a, "psi", {kAny});
  const auto images = device_input<std::int32_t>(a["run_image"], "run_image", {kAny});
  const auto runs = static_cast<py::ssize_t>(images.size());
  p.run_image = images.data;
  p.run_entry = member<std::int32_t>(a, "run_entry", {runs});
  p.run = member<std::int64_t>(a, "run", {runs + 1});
  p.runs = images.size();
  float* out = device_output<float>(scores, "scores", {kAny}).data;
  py::gil_scoped_release release;
  cuda::score_cells(p, out, stream_of(stream));
}

}  // namespace

void bind_cuda_score_cells(py::module_& m) { m.def("score_cells", &cells); }

}  // namespace verglas::bind
