#include <memory>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/score_settings.h"
#include "ops/score.h"
#include "ops/score_cells.h"

namespace verglas::bind {
namespace {

using cpu::cfloat;
using cpu::PolarGrid;
using cpu::ScorePlan;

std::unique_ptr<ScorePlan> make_plan(const PolarGrid& grid, const py::object& settings) {
  return std::make_unique<ScorePlan>(grid, score_settings(settings));
}

void set_reference(ScorePlan& plan, const py::object& harmonics, const py::object& power,
                   const py::object& prior) {
  const auto& g = plan.grid();
  const auto a = input<cfloat>(harmonics, "harmonics", {kAny, static_cast<py::ssize_t>(g.size)});
  const auto n = static_cast<py::ssize_t>(a.shape[0]);
  const auto p = input<cfloat>(power, "power", {n, g.n_rings, plan.settings().n_power});
  const auto prior_view = input<float>(prior, "log_prior", {n, 2});
  py::gil_scoped_release release;
  plan.set_reference({a.data, p.data, prior_view.data, a.shape[0]});
}

template <class T, class F>
py::array_t<T> column(const std::vector<cpu::ImageScore>& scores, F value) {
  auto out = make<T>({scores.size()});
  for (std::size_t i = 0; i < scores.size(); ++i) out.mutable_data()[i] = static_cast<T>(value(scores[i]));
  return out;
}

/// Per image: best pose, log-sum-exp, mass kept; candidates of all images end to end, with offsets.
py::dict as_dict(const std::vector<cpu::ImageScore>& scores) {
  py::dict d;
  using S = const cpu::ImageScore&;
  d["best_score"] = column<float>(scores, [](S s) { return s.best.score; });
  d["best_entry"] = column<std::int32_t>(scores, [](S s) { return s.best.entry; });
  d["best_psi"] = column<std::int32_t>(scores, [](S s) { return s.best.psi; });
  d["best_shift"] = column<std::int32_t>(scores, [](S s) { return s.best.shift; });
  d["log_sum"] = column<double>(scores, [](S s) { return s.log_sum; });
  d["kept"] = column<double>(scores, [](S s) { return s.kept; });
  auto offsets = make<std::int64_t>({scores.size() + 1});
  std::int64_t* at = offsets.mutable_data();
  at[0] = 0;
  for (std::size_t i = 0; i < scores.size(); ++i)
    at[i + 1] = at[i] + static_cast<std::int64_t>(scores[i].candidates.size());
  const auto total = static_cast<std::size_t>(at[scores.size()]);
  auto score = make<float>({total});
  auto entry = make<std::int32_t>({total}), psi = make<std::int32_t>({total}),
       shift = make<std::int32_t>({total});
  std::size_t k = 0;
  for (const auto& s : scores) {
    for (const auto& c : s.candidates) {
      score.mutable_data()[k] = c.score;
      entry.mutable_data()[k] = c.entry;
      psi.mutable_data()[k] = c.psi;
      shift.mutable_data()[k++] = c.shift;
    }
  }
  d["offsets"] = offsets;
  d["score"] = score;
  d["entry"] = entry;
  d["psi"] = psi;
  d["shift"] = shift;
  return d;
}

py::dict run(const ScorePlan& plan, const py::object& samples, const py::object& ctf, double pixel_size_A,
             const py::object& inv_sigma2, const py::object& centres, const py::object& shifts,
             const py::object& log_shift, const py::object& log_psi, int num_threads) {
  const auto& g = plan.grid();
  const auto x = input<cfloat>(samples, "samples", {kAny, g.n_rings, g.half()});
  const auto n = static_cast<py::ssize_t>(x.shape[0]);
  const auto t = input<float>(shifts, "shifts_px", {kAny, 2});
  cpu::ScoreInput in = {};
  in.samples = x.data;
  in.n = x.shape[0];
  in.pixel_size_A = pixel_size_A;
  if (!ctf.is_none()) in.ctf = input<double>(ctf, "ctf", {n, math::kOpticsColumns}).data;
  in.inv_sigma2 = input<float>(inv_sigma2, "inv_sigma2", {n, g.n_rings}).data;
  if (!centres.is_none()) in.centres = input<float>(centres, "centres_px", {n, 2}).data;
  in.shifts = t.data;
  in.n_shifts = t.shape[0];
  in.log_shift = input<float>(log_shift, "log_shift", {static_cast<py::ssize_t>(t.shape[0])}).data;
  if (!log_psi.is_none()) in.log_psi = input<float>(log_psi, "log_psi", {plan.settings().n_psi}).data;
  checked_threads(num_threads);
  std::vector<cpu::ImageScore> scores;
  {
    py::gil_scoped_release release;
    scores = plan.run(in, num_threads);
  }
  return as_dict(scores);
}

/// A CSR offset array: starts at 0, does not fall, ends at `total`.
const std::int64_t* checked_offsets(const View<const std::int64_t>& v, const char* name, std::size_t total) {
  bool good = v.data[0] == 0 && v.data[v.size() - 1] == static_cast<std::int64_t>(total);
  for (std::size_t i = 1; i < v.size(); ++i) good = good && v.data[i] >= v.data[i - 1];
  if (!good)
    throw std::invalid_argument(std::string(name) + ": expected rising offsets from 0 to " +
                                std::to_string(total));
  return v.data;
}

void check_tasks(const cpu::CellInput& in, std::size_t tasks, std::size_t n_slices) {
  for (std::size_t t = 0; t < tasks; ++t) {
    if (in.task_slice[t] < 0 || static_cast<std::size_t>(in.task_slice[t]) >= n_slices)
      throw std::invalid_argument("task_slice: expected 0 to " + std::to_string(n_slices) +
                                  " exclusive, got " + std::to_string(in.task_slice[t]) + " for task " +
                                  std::to_string(t));
    if (in.task_psi[t] < 0 || in.task_psi[t] >= in.n_psi)
      throw std::invalid_argument("task_psi: expected 0 to " + std::to_string(in.n_psi) + " exclusive, got " +
                                  std::to_string(in.task_psi[t]) + " for task " + std::to_string(t));
  }
}

/// tasks = (offsets, slice, opposite, psi), shifts = (offsets, xy), reference = (harmonics, power)
py::array_t<float> cells(const PolarGrid& g, int n_psi, const py::tuple& reference, const py::object& samples,
                         const py::object& ctf, double pixel_size_A, const py::object& inv_sigma2,
                         const py::tuple& shifts, const py::tuple& tasks, int num_threads) {
  const auto a = input<cfloat>(reference[0], "harmonics", {kAny, static_cast<py::ssize_t>(g.size)});
  const auto p =
      input<cfloat>(reference[1], "power", {static_cast<py::ssize_t>(a.shape[0]), g.n_rings, kAny});
  if (2 * static_cast<int>(p.shape[2]) > g.max_m + 2 || p.shape[2] < 1)
    throw std::invalid_argument("power: expected 1 to " + std::to_string(g.max_m / 2 + 1) + " harmonics");
  const auto x = input<cfloat>(samples, "samples", {kAny, g.n_rings, g.half()});
  const auto n = static_cast<py::ssize_t>(x.shape[0]);
  cpu::CellInput in = {};
  in.samples = x.data;
  in.n = x.shape[0];
  in.n_psi = n_psi;
  in.pixel_size_A = pixel_size_A;
  if (!ctf.is_none()) in.ctf = input<double>(ctf, "ctf", {n, math::kOpticsColumns}).data;
  in.inv_sigma2 = input<float>(inv_sigma2, "inv_sigma2", {n, g.n_rings}).data;
  const auto xy = input<float>(shifts[1], "shifts_px", {kAny, 2});
  in.shifts = xy.data;
  in.shift_offsets =
      checked_offsets(input<std::int64_t>(shifts[0], "shift_offsets", {n + 1}), "shift_offsets", xy.shape[0]);
  const auto slice = input<std::int32_t>(tasks[1], "task_slice", {kAny});
  const auto count = static_cast<py::ssize_t>(slice.size());
  in.task_offsets =
      checked_offsets(input<std::int64_t>(tasks[0], "task_offsets", {n + 1}), "task_offsets", slice.size());
  in.task_slice = slice.data;
  in.task_opposite = input<std::uint8_t>(tasks[2], "task_opposite", {count}).data;
  in.task_psi = input<std::int32_t>(tasks[3], "task_psi", {count}).data;
  if (n_psi < 1) throw std::invalid_argument("n_psi: expected at least 1, got " + std::to_string(n_psi));
  check_tasks(in, slice.size(), a.shape[0]);
  auto out = make<float>({static_cast<std::size_t>(cpu::cell_offsets(in).back())});
  float* data = out.mutable_data();
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::score_cells(g, {a.data, p.data, a.shape[0], static_cast<int>(p.shape[2])}, in, data, num_threads);
  return out;
}

}  // namespace

void bind_score(py::module_& m) {
  py::class_<ScorePlan>(m, "ScorePlan", py::module_local())
      .def(py::init(&make_plan), py::arg("grid"), py::arg("settings"))
      .def("set_reference", &set_reference, py::arg("harmonics"), py::arg("power"), py::arg("log_prior"))
      .def("run", &run, py::arg("samples"), py::arg("ctf").none(true), py::arg("pixel_size_A"),
           py::arg("inv_sigma2"), py::arg("centres_px").none(true), py::arg("shifts_px"),
           py::arg("log_shift"), py::arg("log_psi").none(true), py::arg("num_threads"))
      .def_property_readonly("n_slices", &ScorePlan::n_slices)
      .def("reference_bytes", &ScorePlan::reference_bytes)
      .def("thread_bytes", &ScorePlan::thread_bytes, py::arg("n_shifts"));
  m.def("score_cells", &cells, py::arg("grid"), py::arg("n_psi"), py::arg("reference"), py::arg("samples"),
        py::arg("ctf").none(true), py::arg("pixel_size_A"), py::arg("inv_sigma2"), py::arg("shifts"),
        py::arg("tasks"), py::arg("num_threads"));
}

}  // namespace verglas::bind
