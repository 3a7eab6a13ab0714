#include <cstdlib>

#include "bind/bind_grid.h"
#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "bind/cuda/device_sums.h"
#include "cuda/insert.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

cuda::InsertInput insert_input(const math::GridShape& grid, const py::object& images,
                               const View<const double>& m, int max_radius, const py::object& shifts_px,
                               const py::object& ctf, const py::object& shell_weight,
                               const py::object& curvature) {
  const py::ssize_t n = static_cast<py::ssize_t>(m.shape[0]), half = grid.box / 2 + 1;
  cuda::InsertInput in{};
  in.n = m.shape[0];
  in.matrices = m.data;
  in.max_radius = max_radius;
  in.images = as_float2(optional_input<cfloat>(images, "images", {n, grid.box, half}));
  in.ctf = optional_input<float>(ctf, "ctf", {n, grid.box, half});
  in.shell_weight = optional_input<float>(shell_weight, "shell_weight", {n, max_radius + 1});
  in.shifts_px = optional_input<double>(shifts_px, "shifts_px", {n, 2});
  in.curvature = optional_input<double>(curvature, "curvature", {n});
  return in;
}

void insert(const GridArguments& g, const py::object& values, const py::object& weights,
            const py::object& images, const py::object& matrices, int max_radius, const py::object& shifts_px,
            const py::object& ctf, const py::object& shell_weight, const py::object& curvature,
            const py::object& scratch_values, const py::object& scratch_weights, std::uintptr_t stream) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto sums = device_sums(grid, values, weights);
  const auto m = device_input<double>(matrices, "matrices", {kAny, 3, 3});
  const py::ssize_t n = static_cast<py::ssize_t>(m.shape[0]), half = grid.box / 2 + 1;
  checked_radius(grid, max_radius, window.width);
  const auto in = insert_input(grid, images, m, max_radius, shifts_px, ctf, shell_weight, curvature);
  if (sums.values && !in.images)
    throw std::invalid_argument("images: expected half transforms, because values are summed; got None");
  cuda::InsertScratch scratch{};
  if (!scratch_values.is_none()) {
    scratch.values =
        as_float2(device_output<cfloat>(scratch_values, "scratch_values", {n, grid.box, half}).data);
    scratch.weights = device_output<float>(scratch_weights, "scratch_weights", {n, grid.box, half}).data;
  }
  py::gil_scoped_release release;
  if (scratch.values) {
    cuda::insert_ordered(grid, window, in, scratch, sums, stream_of(stream));
  } else {
    cuda::insert(grid, window, in, sums, stream_of(stream));
  }
}

void fold_friedel(const GridArguments& g, const py::object& values, const py::object& weights,
                  std::uintptr_t stream) {
  const auto grid = grid_shape(g);
  const auto sums = device_sums(grid, values, weights);
  py::gil_scoped_release release;
  cuda::fold_friedel(grid, sums, stream_of(stream));
}

void symmetrise(const GridArguments& g, const py::object& values, const py::object& weights,
                const py::object& matrices, const py::object& out_values, const py::object& out_weights,
                std::uintptr_t stream) {
  const auto grid = grid_shape(g);
  const auto in = device_sums(grid, values, weights), out = device_sums(grid, out_values, out_weights);
  const auto m = device_input<std::int32_t>(matrices, "matrices", {kAny, 3, 3});
  if (!in.values != !out.values || !in.weights != !out.weights)
    throw std::invalid_argument("symmetrise: input and output must hold the same sums");
  if ((in.values && in.values == out.values) || (in.weights && in.weights == out.weights))
    throw std::invalid_argument("symmetrise: the output must not be the input");
  py::gil_scoped_release release;
  cuda::symmetrise(grid, in, m.data, static_cast<int>(m.shape[0]), out, stream_of(stream));
}

}  // namespace

void bind_cuda_insert(py::module_& m) {
  m.def("insert", &insert);
  m.def("fold_friedel", &fold_friedel);
  m.def("symmetrise", &symmetrise);
}

}  // namespace verglas::bind
