#include <memory>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/score.h"

namespace verglas::bind {
namespace {

using cpu::cfloat;
using cpu::PolarGrid;
using cpu::ScorePlan;

std::unique_ptr<ScorePlan> make_plan(const PolarGrid& grid, int n_psi, int n_power, bool correlation,
                                     double epsilon, double window, std::size_t max_candidates) {
  cpu::ScoreSettings s;
  s.n_psi = n_psi;
  s.n_power = n_power;
  s.correlation = correlation;
  s.epsilon = epsilon;
  s.window = window;
  s.max_candidates = max_candidates;
  return std::make_unique<ScorePlan>(grid, s);
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

}  // namespace

void bind_score(py::module_& m) {
  py::class_<ScorePlan>(m, "ScorePlan")
      .def(py::init(&make_plan), py::arg("grid"), py::arg("n_psi"), py::arg("n_power"),
           py::arg("correlation"), py::arg("epsilon"), py::arg("window"), py::arg("max_candidates"))
      .def("set_reference", &set_reference, py::arg("harmonics"), py::arg("power"), py::arg("log_prior"))
      .def("run", &run, py::arg("samples"), py::arg("ctf").none(true), py::arg("pixel_size_A"),
           py::arg("inv_sigma2"), py::arg("centres_px").none(true), py::arg("shifts_px"),
           py::arg("log_shift"), py::arg("log_psi").none(true), py::arg("num_threads"))
      .def_property_readonly("n_slices", &ScorePlan::n_slices)
      .def("reference_bytes", &ScorePlan::reference_bytes)
      .def("thread_bytes", &ScorePlan::thread_bytes, py::arg("n_shifts"));
}

}  // namespace verglas::bind
