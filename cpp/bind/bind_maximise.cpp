#include <cmath>

#include "bind/bind.h"
#include "bind/bind_grid.h"
#include "ops/maximise.h"
#include "ops/polar_insert.h"

namespace verglas::bind {
namespace {

using cpu::cfloat;
using cpu::MaximisePlan;
using cpu::PolarGrid;

void polar_insert(const GridArguments& g, const py::object& values, const py::object& weights,
                  const py::object& samples, const py::object& sample_weights, const py::object& matrices,
                  const PolarGrid& grid, int num_threads) {
  const auto volume = grid_shape(g);
  const auto window = window_table(g);
  cpu::InsertSums sums{};
  cpu::PolarSlices slices{};
  const auto m = rotations(matrices, "matrices");
  const auto n = static_cast<py::ssize_t>(m.shape[0]);
  slices.n = m.shape[0];
  slices.matrices = m.data;
  if (!values.is_none()) {
    sums.values =
        output<std::complex<double>>(values, "values", {volume.rows(), volume.rows(), volume.columns}).data;
    slices.values = input<cfloat>(samples, "samples", {n, grid.n_rings, grid.half()}).data;
  }
  if (!weights.is_none()) {
    sums.weights = output<double>(weights, "weights", {volume.rows(), volume.rows(), volume.columns}).data;
    slices.weights = input<float>(sample_weights, "weights", {n, grid.n_rings, grid.half()}).data;
  }
  if (volume.box != grid.box)
    throw std::invalid_argument("polar_insert: the grid is for box " + std::to_string(volume.box) +
                                ", the polar grid for " + std::to_string(grid.box));
  checked_radius(volume, static_cast<int>(std::ceil(grid.radii.back() - 0.5)), window.width);
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::polar_insert(volume, window, slices, grid, sums, num_threads);
}

void set_shell_reference(MaximisePlan& plan, const py::object& harmonics, const py::object& power) {
  const auto n = static_cast<py::ssize_t>(plan.n_slices());
  const auto a = input<cfloat>(harmonics, "harmonics", {n, static_cast<py::ssize_t>(plan.grid().size)});
  const auto p = input<cfloat>(power, "power", {n, plan.grid().n_rings, plan.n_power()});
  py::gil_scoped_release release;
  plan.set_reference(a.data, p.data);
}

struct CandidateArguments {
  py::object offsets, slice, opposite, psi_rad, shift, gamma;
};

cpu::Candidates checked_candidates(const CandidateArguments& c, std::size_t n, std::size_t n_shifts) {
  cpu::Candidates out{};
  const auto offsets = input<std::int64_t>(c.offsets, "offsets", {static_cast<py::ssize_t>(n) + 1});
  const auto slice = input<std::int32_t>(c.slice, "slice", {kAny});
  const auto count = static_cast<py::ssize_t>(slice.size());
  if (offsets.data[0] != 0 || offsets.data[n] != count)
    throw std::invalid_argument("offsets: expected to run from 0 to the number of candidates, " +
                                std::to_string(count));
  for (std::size_t i = 0; i < n; ++i)
    if (offsets.data[i + 1] < offsets.data[i])
      throw std::invalid_argument("offsets: must not fall, at image " + std::to_string(i));
  const auto shift = input<std::int32_t>(c.shift, "shift", {count});
  for (py::ssize_t i = 0; i < count; ++i)
    if (shift.data[i] < 0 || static_cast<std::size_t>(shift.data[i]) >= n_shifts)
      throw std::invalid_argument("shift: expected 0 to " + std::to_string(n_shifts) + " (exclusive), got " +
                                  std::to_string(shift.data[i]) + " at candidate " + std::to_string(i));
  out.offsets = offsets.data;
  out.slice = slice.data;
  out.shift = shift.data;
  out.opposite = input<std::uint8_t>(c.opposite, "opposite", {count}).data;
  out.psi_rad = input<double>(c.psi_rad, "psi_rad", {count}).data;
  out.gamma = input<double>(c.gamma, "weight", {count}).data;
  return out;
}

void add(MaximisePlan& plan, const py::object& samples, const py::object& ctf, double pixel_size_A,
         const py::object& inv_sigma2, const py::object& centres, const py::object& shifts,
         const py::tuple& candidates, const py::object& cross, const py::object& power, int num_threads) {
  const auto& g = plan.grid();
  const auto x = input<cfloat>(samples, "samples", {kAny, g.n_rings, g.half()});
  const auto n = static_cast<py::ssize_t>(x.shape[0]);
  const auto t = input<float>(shifts, "shifts_px", {kAny, 2});
  cpu::MaximiseInput in = {};
  in.samples = x.data;
  in.n = x.shape[0];
  in.pixel_size_A = pixel_size_A;
  in.shifts = t.data;
  in.n_shifts = t.shape[0];
  if (!ctf.is_none()) in.ctf = input<double>(ctf, "ctf", {n, math::kOpticsColumns}).data;
  if (!centres.is_none()) in.centres = input<float>(centres, "centres_px", {n, 2}).data;
  in.inv_sigma2 = input<float>(inv_sigma2, "inv_sigma2", {n, g.n_rings}).data;
  if (candidates.size() != 6) throw std::invalid_argument("candidates: expected six arrays");
  const auto list = checked_candidates(
      {candidates[0], candidates[1], candidates[2], candidates[3], candidates[4], candidates[5]}, in.n,
      in.n_shifts);
  cpu::ResidualSums residual{};
  if (!cross.is_none()) residual.cross = output<double>(cross, "cross", {n, g.n_rings}).data;
  if (!power.is_none()) residual.power = output<double>(power, "power", {n, g.n_rings}).data;
  checked_threads(num_threads);
  py::gil_scoped_release release;
  plan.add(in, list, residual, num_threads);
}

py::tuple summed_slices(const MaximisePlan& plan, const py::object& index, int num_threads) {
  const auto i = input<std::int64_t>(index, "index", {kAny});
  for (std::size_t k = 0; k < i.size(); ++k)
    if (i.data[k] < 0 || static_cast<std::size_t>(i.data[k]) >= plan.n_slices())
      throw std::invalid_argument("index: expected 0 to " + std::to_string(plan.n_slices()) +
                                  " (exclusive), got " + std::to_string(i.data[k]));
  const auto rings = static_cast<std::size_t>(plan.grid().n_rings),
             half = static_cast<std::size_t>(plan.grid().half());
  auto values = make<cfloat>({i.size(), rings, half});
  auto weights = make<float>({i.size(), rings, half});
  cfloat* v = values.mutable_data();
  float* w = weights.mutable_data();
  checked_threads(num_threads);
  {
    py::gil_scoped_release release;
    plan.slices(i.data, i.size(), v, w, num_threads);
  }
  return py::make_tuple(values, weights);
}

py::array_t<bool> touched(const MaximisePlan& plan) {
  auto out = make<bool>({plan.n_slices()});
  for (std::size_t s = 0; s < plan.n_slices(); ++s) out.mutable_data()[s] = plan.touched(s);
  return out;
}

}  // namespace

void bind_maximise(py::module_& m) {
  m.def("polar_insert", &polar_insert);
  py::class_<MaximisePlan>(m, "MaximisePlan")
      .def(py::init<const PolarGrid&, std::size_t, int>(), py::arg("grid"), py::arg("n_slices"),
           py::arg("n_power"))
      .def("set_reference", &set_shell_reference)
      .def("add", &add)
      .def("slices", &summed_slices)
      .def("touched", &touched)
      .def_property_readonly("slice_bytes", &MaximisePlan::slice_bytes);
}

}  // namespace verglas::bind
