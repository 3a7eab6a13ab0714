#include <cmath>

#include "bind/bind.h"
#include "bind/bind_grid.h"
#include "ops/polar.h"

namespace verglas::bind {
namespace {

using cpu::cfloat;
using cpu::PolarGrid;

PolarGrid make_grid(int box, int n_theta, const py::object& radii, const py::object& limits, double spacing) {
  const auto r = input<double>(radii, "radii", {kAny});
  const auto l = input<std::int32_t>(limits, "limits", {static_cast<py::ssize_t>(r.size())});
  return PolarGrid(box, n_theta, r.data, l.data, static_cast<int>(r.size()), spacing);
}

View<const cfloat> samples_of(const py::object& samples, const PolarGrid& g) {
  return input<cfloat>(samples, "samples", {kAny, g.n_rings, g.half()});
}

py::array_t<cfloat> polar(const py::object& images, const PolarGrid& g, int num_threads) {
  const auto x = input<float>(images, "images", {kAny, g.box, g.box});
  auto out =
      make<cfloat>({x.shape[0], static_cast<std::size_t>(g.n_rings), static_cast<std::size_t>(g.half())});
  cfloat* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar(x.data, x.shape[0], g, data, num_threads);
  return out;
}

py::array_t<cfloat> slices(const GridArguments& g, const py::object& spectrum, const py::object& matrices,
                           const PolarGrid& polar_grid, int num_threads) {
  const auto volume = grid_shape(g);
  const auto window = window_table(g);
  const auto u = input<cfloat>(spectrum, "spectrum", {volume.rows(), volume.rows(), volume.columns});
  const auto m = rotations(matrices, "matrices");
  if (volume.box != polar_grid.box)
    throw std::invalid_argument("polar_slices: the grid is for box " + std::to_string(volume.box) +
                                ", the polar grid for " + std::to_string(polar_grid.box));
  checked_radius(volume, static_cast<int>(std::ceil(polar_grid.radii.back() - 0.5)), window.width);
  auto out = make<cfloat>({m.shape[0], static_cast<std::size_t>(polar_grid.n_rings),
                           static_cast<std::size_t>(polar_grid.half())});
  cfloat* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar_slices(volume, window, u.data, m.data, m.shape[0], polar_grid, data, num_threads);
  return out;
}

py::array_t<cfloat> harmonics(const py::object& samples, const PolarGrid& g, float scale, int num_threads) {
  const auto x = samples_of(samples, g);
  auto out = make<cfloat>({x.shape[0], g.size});
  cfloat* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar_harmonics(x.data, x.shape[0], g, scale, data, num_threads);
  return out;
}

py::array_t<cfloat> power(const py::object& samples, const PolarGrid& g, int n_power, int num_threads) {
  const auto x = samples_of(samples, g);
  if (n_power < 1 || n_power > g.half())
    throw std::invalid_argument("n_power: expected 1 to " + std::to_string(g.half()) + ", got " +
                                std::to_string(n_power));
  auto out =
      make<cfloat>({x.shape[0], static_cast<std::size_t>(g.n_rings), static_cast<std::size_t>(n_power)});
  cfloat* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar_power(x.data, x.shape[0], g, n_power, data, num_threads);
  return out;
}

py::array_t<cfloat> ctf_power(const PolarGrid& g, const py::object& ctf, double pixel_size_A,
                              const py::object& inv_sigma2, int n_power, int num_threads) {
  const auto inv = input<float>(inv_sigma2, "inv_sigma2", {kAny, g.n_rings});
  const auto n = static_cast<py::ssize_t>(inv.shape[0]);
  const double* params = ctf.is_none() ? nullptr : input<double>(ctf, "ctf", {n, math::kOpticsColumns}).data;
  if (n_power < 1 || n_power > g.half())
    throw std::invalid_argument("n_power: expected 1 to " + std::to_string(g.half()) + ", got " +
                                std::to_string(n_power));
  auto out =
      make<cfloat>({inv.shape[0], static_cast<std::size_t>(g.n_rings), static_cast<std::size_t>(n_power)});
  cfloat* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar_ctf_power(params, inv.data, inv.shape[0], pixel_size_A, g, n_power, data, num_threads);
  return out;
}

py::array_t<cfloat> weighted(const py::object& samples, const PolarGrid& g, const py::object& ctf,
                             double pixel_size_A, const py::object& inv_sigma2, const py::object& shifts,
                             int num_threads) {
  const auto x = samples_of(samples, g);
  const auto n = static_cast<py::ssize_t>(x.shape[0]);
  cpu::WeightedInput in = {};
  in.samples = x.data;
  in.n = x.shape[0];
  in.pixel_size_A = pixel_size_A;
  if (!ctf.is_none()) in.ctf = input<double>(ctf, "ctf", {n, math::kOpticsColumns}).data;
  in.inv_sigma2 = input<float>(inv_sigma2, "inv_sigma2", {n, g.n_rings}).data;
  const auto t = input<float>(shifts, "shifts_px", {kAny, 2});
  in.shifts = t.data;
  in.n_shifts = t.shape[0];
  auto out = make<cfloat>({in.n, in.n_shifts, g.size});
  cfloat* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar_weighted(in, g, data, num_threads);
  return out;
}

}  // namespace

void bind_polar(py::module_& m) {
  py::class_<PolarGrid>(m, "PolarGrid", py::module_local())
      .def(py::init(&make_grid), py::arg("box"), py::arg("n_theta"), py::arg("radii"), py::arg("limits"),
           py::arg("spacing"));
  m.def("polar", &polar, py::arg("images"), py::arg("grid"), py::arg("num_threads"));
  m.def("polar_slices", &slices, py::arg("grid"), py::arg("spectrum"), py::arg("matrices"),
        py::arg("polar_grid"), py::arg("num_threads"));
  m.def("polar_harmonics", &harmonics, py::arg("samples"), py::arg("grid"), py::arg("scale"),
        py::arg("num_threads"));
  m.def("polar_power", &power, py::arg("samples"), py::arg("grid"), py::arg("n_power"),
        py::arg("num_threads"));
  m.def("polar_ctf_power", &ctf_power, py::arg("grid"), py::arg("ctf").none(true), py::arg("pixel_size_A"),
        py::arg("inv_sigma2"), py::arg("n_power"), py::arg("num_threads"));
  m.def("polar_weighted", &weighted, py::arg("samples"), py::arg("grid"), py::arg("ctf").none(true),
        py::arg("pixel_size_A"), py::arg("inv_sigma2"), py::arg("shifts_px"), py::arg("num_threads"));
}

}  // namespace verglas::bind
