#include <cstdlib>

#include "bind/bind.h"
#include "bind/bind_grid.h"
#include "ops/insert.h"

namespace verglas::bind {
namespace {

cpu::InsertSums checked_sums(const math::GridShape& grid, const py::object& values,
                             const py::object& weights) {
  cpu::InsertSums sums{};
  if (!values.is_none())
    sums.values =
        output<std::complex<double>>(values, "values", {grid.rows(), grid.rows(), grid.columns}).data;
  if (!weights.is_none())
    sums.weights = output<double>(weights, "weights", {grid.rows(), grid.rows(), grid.columns}).data;
  return sums;
}

void insert(const GridArguments& g, const py::object& values, const py::object& weights,
            const py::object& images, const py::object& matrices, int max_radius, const py::object& shifts_px,
            const py::object& ctf, const py::object& shell_weight, const py::object& curvature,
            int num_threads) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto sums = checked_sums(grid, values, weights);
  const auto m = rotations(matrices, "matrices");
  const py::ssize_t n = static_cast<py::ssize_t>(m.shape[0]), half = grid.box / 2 + 1;
  cpu::InsertInput in{};
  in.n = m.shape[0];
  in.matrices = m.data;
  in.max_radius = checked_radius(grid, max_radius, window.width);
  if (sums.values || !images.is_none())
    in.images = input<cpu::Complex>(images, "images", {n, grid.box, half}).data;
  if (!ctf.is_none()) in.ctf = input<float>(ctf, "ctf", {n, grid.box, half}).data;
  if (!shell_weight.is_none())
    in.shell_weight = input<float>(shell_weight, "shell_weight", {n, max_radius + 1}).data;
  if (!shifts_px.is_none()) in.shifts_px = input<double>(shifts_px, "shifts_px", {n, 2}).data;
  if (!curvature.is_none())
    in.curvature = checked_curvatures(grid, input<double>(curvature, "curvature", {n}).data, m.shape[0],
                                      max_radius, window.width);
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::insert(grid, window, in, sums, num_threads);
}

std::size_t insert_room_bytes(const GridArguments& g, std::size_t n, int max_radius) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  return cpu::insert_room_bytes(grid, window, n, checked_radius(grid, max_radius, window.width));
}

void fold_friedel(const GridArguments& g, const py::object& values, const py::object& weights) {
  const auto grid = grid_shape(g);
  const auto sums = checked_sums(grid, values, weights);
  py::gil_scoped_release release;
  cpu::fold_friedel(grid, sums);
}

/// The input sums of symmetrise; a null array stays null in the output.
void symmetrise(const GridArguments& g, const py::object& values, const py::object& weights,
                const py::object& matrices, const py::object& out_values, const py::object& out_weights,
                int num_threads) {
  const auto grid = grid_shape(g);
  const auto in = checked_sums(grid, values, weights), out = checked_sums(grid, out_values, out_weights);
  const auto m = input<std::int32_t>(matrices, "matrices", {kAny, 3, 3});
  if (!in.values != !out.values || !in.weights != !out.weights)
    throw std::invalid_argument("symmetrise: input and output must hold the same sums");
  if ((in.values && in.values == out.values) || (in.weights && in.weights == out.weights))
    throw std::invalid_argument("symmetrise: the output must not be the input");
  for (std::size_t i = 0; i < m.shape[0]; ++i) {
    for (int a = 0; a < 3; ++a) {
      int used = 0, across = 0;
      for (int b = 0; b < 3; ++b) {
        used += std::abs(m.data[9 * i + 3 * a + b]);
        across += std::abs(m.data[9 * i + 3 * b + a]);
      }
      if (used != 1 || across != 1)
        throw std::invalid_argument("matrices: expected signed permutations of the axes");
    }
  }
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::symmetrise(grid, in, m.data, static_cast<int>(m.shape[0]), out, num_threads);
}

}  // namespace

void bind_insert(py::module_& m) {
  m.def("insert", &insert);
  m.def("insert_room_bytes", &insert_room_bytes);
  m.def("fold_friedel", &fold_friedel);
  m.def("symmetrise", &symmetrise);
}

}  // namespace verglas::bind
