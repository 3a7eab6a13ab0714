#include <memory>

#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/polar_tables.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

std::unique_ptr<PolarTablesArgument> make_tables(int box, int n_theta, const py::dict& arrays) {
  auto out = std::make_unique<PolarTablesArgument>();
  out->arrays = arrays;
  const py::ssize_t half = n_theta / 2;
  const auto radii = device_input<double>(arrays["radii"], "radii", {kAny});
  const auto first = device_input<std::int32_t>(arrays["first_ring"], "first_ring", {kAny});
  const auto rings = static_cast<py::ssize_t>(radii.size()),
             harmonics = static_cast<py::ssize_t>(first.size());
  auto& v = out->view;
  v.box = box;
  v.n_theta = n_theta;
  v.n_rings = static_cast<int>(rings);
  v.max_m = static_cast<int>(harmonics) - 1;
  v.size = arrays["size"].cast<std::int64_t>();
  v.radii = radii.data;
  v.first_ring = first.data;
  v.weights = member<float>(arrays, "weights", {rings});
  v.limit = member<std::int32_t>(arrays, "limit", {rings});
  v.offset = member<std::int32_t>(arrays, "offset", {harmonics + 1});
  v.cos_theta = member<double>(arrays, "cos_theta", {half});
  v.sin_theta = member<double>(arrays, "sin_theta", {half});
  v.angular = member<float>(arrays, "angular", {harmonics, 2, half});
  return out;
}

float* optional_complex(const py::object& value, const char* name, std::initializer_list<py::ssize_t> shape) {
  return value.is_none() ? nullptr : reinterpret_cast<float*>(device_output<cfloat>(value, name, shape).data);
}

/// images = {samples, ctf, inv_sigma2, pixel_size_A}; out = {y, power, norm}, any of them None
void weigh(const PolarTablesArgument& grid, const py::dict& images, int n_power, const py::dict& out,
           std::uintptr_t stream) {
  const auto& g = grid.view;
  const py::ssize_t rings = g.n_rings, half = g.half();
  cuda::WeighInput in{};
  in.n = images["n"].cast<std::size_t>();
  const auto n = static_cast<py::ssize_t>(in.n);
  in.samples = reinterpret_cast<const float*>(member_or_null<cfloat>(images, "samples", {n, rings, half}));
  in.ctf = member_or_null<double>(images, "ctf", {n, math::kOpticsColumns});
  in.inv_sigma2 = member_or_null<float>(images, "inv_sigma2", {n, rings});
  in.pixel_size_A = images["pixel_size_A"].cast<double>();
  float* y = optional_complex(out["y"], "y", {n, rings, half});
  float* power = optional_complex(out["power"], "power", {n, rings, n_power});
  const py::object norm = out["norm"];
  float* norms = norm.is_none() ? nullptr : device_output<float>(norm, "norm", {n, rings}).data;
  if (n_power < 0 || n_power > cuda::kMostPower)
    throw std::invalid_argument("n_power: expected 0 to " + std::to_string(cuda::kMostPower) + ", got " +
                                std::to_string(n_power));
  py::gil_scoped_release release;
  cuda::weigh(g, in, n_power, y, power, norms, stream_of(stream));
}

cuda::ShiftedColumns shifted_columns(const PolarTablesArgument& grid, const py::object& y,
                                     const py::object& image, const py::object& shift) {
  const auto& g = grid.view;
  cuda::ShiftedColumns in{};
  in.y = reinterpret_cast<const float*>(device_input<cfloat>(y, "y", {kAny, g.n_rings, g.half()}).data);
  const auto rows = device_input<std::int32_t>(image, "image", {kAny});
  in.image = rows.data;
  in.columns = rows.size();
  in.shift = device_input<float>(shift, "shift", {static_cast<py::ssize_t>(rows.size()), 2}).data;
  return in;
}

void shifted_tiles(const PolarTablesArgument& grid, const py::tuple& layout, const py::object& y,
                   const py::object& image, const py::object& shift, const py::object& tiles,
                   std::uintptr_t stream) {
  const auto in = shifted_columns(grid, y, image, shift);
  const auto l = tile_layout(grid, layout);
  const auto n = static_cast<py::ssize_t>((in.columns + cuda::kProductTile - 1) / cuda::kProductTile);
  float* out = device_output<float>(tiles, "tiles", {n, tile_floats(l)}).data;
  py::gil_scoped_release release;
  cuda::shifted_tiles(grid.view, l, in, out, stream_of(stream));
}

void shifted_rows(const PolarTablesArgument& grid, const py::object& y, const py::object& image,
                  const py::object& shift, const py::object& rows, std::uintptr_t stream) {
  const auto in = shifted_columns(grid, y, image, shift);
  auto* out = reinterpret_cast<float*>(
      device_output<cfloat>(rows, "rows",
                            {static_cast<py::ssize_t>(in.columns), static_cast<py::ssize_t>(grid.view.size)})
          .data);
  py::gil_scoped_release release;
  cuda::shifted_rows(grid.view, in, out, stream_of(stream));
}

}  // namespace

void bind_cuda_polar_weighted(py::module_& m) {
  py::class_<PolarTablesArgument>(m, "PolarTables", py::module_local())
      .def(py::init(&make_tables), py::arg("box"), py::arg("n_theta"), py::arg("arrays"));
  m.attr("TILE") = cuda::kProductTile;
  m.attr("DEPTH") = cuda::kDepth;
  m.def("weigh", &weigh);
  m.def("shifted_tiles", &shifted_tiles);
  m.def("shifted_rows", &shifted_rows);
}

}  // namespace verglas::bind
