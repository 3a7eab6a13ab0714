#include <cmath>

#include "bind/bind_grid.h"
#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_sums.h"
#include "bind/cuda/polar_tables.h"
#include "cuda/polar.h"
#include "math/constants.h"
#include "math/polar_window.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

/// On the host, to be copied to the device: reach, waves_x, waves_y, first, weights of cuda::PolarSampler.
py::dict sampler_tables(int box, int n_theta, const py::object& radii) {
  const auto r = input<double>(radii, "radii", {kAny});
  const auto rings = r.size(), half = static_cast<std::size_t>(n_theta / 2);
  if (box < 1 || rings < 1) throw std::invalid_argument("radii: expected at least one ring");
  const math::PolarWindow window(box, r.data[rings - 1]);
  const std::size_t k = static_cast<std::size_t>(window.reach) + 1;
  auto x = make<float>({static_cast<std::size_t>(box), k, 2}),
       y = make<float>({static_cast<std::size_t>(box), 2, k});
  auto waves_x = x.mutable_unchecked<3>(), waves_y = y.mutable_unchecked<3>();
  for (int i = 0; i < box; ++i) {
    const int offset = i - box / 2, sign = offset < 0 ? -1 : 1;
    for (int j = 0; j <= window.reach; ++j) {
      const auto wave = window.wave(j, sign * offset);
      waves_x(i, j, 0) = waves_y(i, 0, j) = wave.cosine;
      waves_x(i, j, 1) = -static_cast<float>(sign) * wave.sine;
      waves_y(i, 1, j) = static_cast<float>(sign) * wave.sine;
    }
  }
  auto first = make<std::int32_t>({rings * half, 2});
  auto weights = make<float>({rings * half, 2, math::kPolarTaps});
  auto f = first.mutable_unchecked<2>();
  auto w = weights.mutable_unchecked<3>();
  for (std::size_t i = 0; i < rings * half; ++i) {
    const double theta = 2 * math::kPi * static_cast<double>(i % half) / n_theta;
    const double radius = r.data[i / half] * window.factor;
    const double at[2] = {radius * std::cos(theta), radius * std::sin(theta)};
    for (int axis = 0; axis < 2; ++axis) {
      const auto taps = window.taps(at[axis]);
      f(i, axis) = taps.first;
      for (int t = 0; t < math::kPolarTaps; ++t) w(i, axis, t) = taps.weight[t];
    }
  }
  py::dict out;
  out["reach"] = window.reach;
  out["waves_x"] = x;
  out["waves_y"] = y;
  out["first"] = first;
  out["weights"] = weights;
  return out;
}

void polar(const PolarTablesArgument& grid, const py::dict& tables, const py::object& images,
           const py::tuple& scratch, const py::object& samples, std::uintptr_t stream) {
  const auto& g = grid.view;
  const py::ssize_t box = g.box, points = static_cast<py::ssize_t>(g.n_rings) * g.half();
  const auto x = device_input<float>(images, "images", {kAny, box, box});
  const auto n = static_cast<py::ssize_t>(x.shape[0]);
  cuda::PolarSampler sampler{};
  sampler.reach = tables["reach"].cast<int>();
  const py::ssize_t k = sampler.reach + 1;
  sampler.waves_x = member<float>(tables, "waves_x", {box, k, 2});
  sampler.waves_y = member<float>(tables, "waves_y", {box, 2, k});
  sampler.first = member<std::int32_t>(tables, "first", {points, 2});
  sampler.weights = member<float>(tables, "weights", {points, 2, math::kPolarTaps});
  const cuda::PolarScratch lent{device_output<float>(scratch[0], "along_x", {n, box, 2 * k}).data,
                                device_output<float>(scratch[1], "plane", {n, 2 * k, 2 * k}).data};
  const auto out = device_output<cfloat>(samples, "samples", {n, g.n_rings, g.half()});
  py::gil_scoped_release release;
  cuda::polar(g, sampler, x.data, x.shape[0], lent, as_float2(out.data), stream_of(stream));
}

void check_grids(const math::GridShape& volume, int width, const PolarTablesArgument& polar_grid,
                 double last_radius, const char* op) {
  if (volume.box != polar_grid.view.box)
    throw std::invalid_argument(std::string(op) + ": the grid is for box " + std::to_string(volume.box) +
                                ", the polar grid for " + std::to_string(polar_grid.view.box));
  checked_radius(volume, static_cast<int>(std::ceil(last_radius - 0.5)), width);
}

void polar_slices(const GridArguments& g, const py::object& spectrum, const py::object& matrices,
                  const PolarTablesArgument& polar_grid, double last_radius, const py::object& samples,
                  std::uintptr_t stream) {
  const auto volume = grid_shape(g);
  const auto window = window_table(g);
  const auto u = device_input<cfloat>(spectrum, "spectrum", {volume.rows(), volume.rows(), volume.columns});
  const auto m = device_input<double>(matrices, "matrices", {kAny, 3, 3});
  check_grids(volume, window.width, polar_grid, last_radius, "polar_slices");
  const auto& p = polar_grid.view;
  const auto out =
      device_output<cfloat>(samples, "samples", {static_cast<py::ssize_t>(m.shape[0]), p.n_rings, p.half()});
  py::gil_scoped_release release;
  cuda::polar_slices(volume, window, as_float2(u.data), m.data, m.shape[0], p, as_float2(out.data),
                     stream_of(stream));
}

void polar_insert(const GridArguments& g, const py::tuple& sums, const py::object& samples,
                  const py::object& weights, const py::object& matrices,
                  const PolarTablesArgument& polar_grid, double last_radius, bool ordered,
                  std::uintptr_t stream) {
  const auto volume = grid_shape(g);
  const auto window = window_table(g);
  const auto to = device_sums(volume, sums[0], sums[1]);
  const auto m = device_input<double>(matrices, "matrices", {kAny, 3, 3});
  check_grids(volume, window.width, polar_grid, last_radius, "polar_insert");
  const auto& p = polar_grid.view;
  const auto n = static_cast<py::ssize_t>(m.shape[0]);
  const cuda::PolarSlices slices{
      m.shape[0], m.data,
      to.values ? as_float2(device_input<cfloat>(samples, "samples", {n, p.n_rings, p.half()}).data)
                : nullptr,
      to.weights ? device_input<float>(weights, "weights", {n, p.n_rings, p.half()}).data : nullptr};
  py::gil_scoped_release release;
  cuda::polar_insert(volume, window, slices, p, ordered, to, stream_of(stream));
}

}  // namespace

void bind_cuda_polar(py::module_& m) {
  m.def("sampler_tables", &sampler_tables);
  m.def("polar", &polar);
  m.def("polar_slices", &polar_slices);
  m.def("polar_insert", &polar_insert);
}

}  // namespace verglas::bind
