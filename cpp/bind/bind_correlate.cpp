#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/correlate.h"
#include "ops/correlate_rings.h"

namespace verglas::bind {
namespace {

template <class E>
E choice(const std::string& got, const char* name, std::initializer_list<std::pair<const char*, E>> all) {
  std::string expected;
  for (const auto& [word, value] : all) {
    if (got == word) return value;
    expected += (expected.empty() ? "'" : ", '") + std::string(word) + "'";
  }
  throw std::invalid_argument(std::string(name) + ": expected one of " + expected + ", got '" + got + "'");
}

enum class Pairing { best, all, paired };

/// weights: one per shell, or None.
py::tuple correlate(const py::object& images, const py::object& references, int max_shift,
                    const std::string& score, const std::string& fit, const std::string& pairing,
                    const py::object& weights, int num_threads) {
  const auto f = input<float>(images, "images", {kAny, kAny, kAny});
  const auto box = static_cast<py::ssize_t>(f.shape[2]);
  check<float>(images, "images", {kAny, box, box});
  const auto g = input<float>(references, "references", {kAny, box, box});
  const Pairing pairs = choice<Pairing>(
      pairing, "pairing", {{"best", Pairing::best}, {"all", Pairing::all}, {"paired", Pairing::paired}});
  if (max_shift < 0)
    throw std::invalid_argument("max_shift: expected at least 0, got " + std::to_string(max_shift));
  cpu::CorrelateParams params{};
  params.box = static_cast<int>(box);
  params.max_shift = std::min(max_shift, params.box);
  params.score = choice<cpu::CorrelateScore>(score, "score",
                                             {{"product", cpu::CorrelateScore::product},
                                              {"ncc", cpu::CorrelateScore::ncc},
                                              {"phase", cpu::CorrelateScore::phase}});
  params.fit = choice<cpu::PeakFit>(
      fit, "fit",
      {{"none", cpu::PeakFit::none}, {"parabola", cpu::PeakFit::parabola}, {"newton", cpu::PeakFit::newton}});
  if (!weights.is_none()) {
    const auto w = input<float>(weights, "weights", {kAny});
    params.weights = w.data;
    params.n_weights = static_cast<int>(w.shape[0]);
  }
  checked_threads(num_threads);
  const std::size_t n = f.shape[0], m = pairs == Pairing::all ? g.shape[0] : 1;
  auto shift = make<float>({n * m, 2});
  auto value = make<float>({n * m});
  auto reference = make<std::int32_t>({n * m});
  const cpu::CorrelateResult out{shift.mutable_data(), value.mutable_data(), reference.mutable_data()};
  {
    py::gil_scoped_release release;
    cpu::Correlator plan(params);
    if (pairs == Pairing::paired) {
      plan.run_paired(f.data, g.data, n, out, num_threads);
    } else {
      plan.set_references(g.data, g.shape[0], num_threads);
      if (pairs == Pairing::best) {
        plan.run_best(f.data, n, out, num_threads);
      } else {
        plan.run_all(f.data, n, out, num_threads);
      }
    }
  }
  return py::make_tuple(shift, value, reference);
}

/// Returns shifts, angles, scores, references, rotational searches per pair.
py::tuple correlate_rotations(const py::object& images, const py::object& references, int max_shift, int step,
                              double r_min, double r_max, bool best_only, int num_threads) {
  const auto f = input<float>(images, "images", {kAny, kAny, kAny});
  const auto box = static_cast<py::ssize_t>(f.shape[2]);
  check<float>(images, "images", {kAny, box, box});
  const auto g = input<float>(references, "references", {kAny, box, box});
  if (step < 1 || max_shift < 0 || max_shift % step != 0)
    throw std::invalid_argument(
        "max_shift: expected a multiple of step (at least 1) that is not negative, got " +
        std::to_string(max_shift) + " with step " + std::to_string(step));
  if (!(r_min >= 1 && r_max >= r_min && r_max + max_shift <= cpu::ring_reach(static_cast<int>(box))))
    throw std::invalid_argument("radius: expected 1 <= first <= last <= " +
                                std::to_string(cpu::ring_reach(static_cast<int>(box)) - max_shift) +
                                " px (box " + std::to_string(box) + ", shifts to " +
                                std::to_string(max_shift) + "), got " + std::to_string(r_min) + " to " +
                                std::to_string(r_max));
  checked_threads(num_threads);
  const std::size_t pairs = f.shape[0] * (best_only ? 1 : g.shape[0]);
  auto shift = make<float>({pairs, 2});
  auto angle = make<float>({pairs});
  auto score = make<float>({pairs});
  auto reference = make<std::int32_t>({pairs});
  const cpu::RingResult out{shift.mutable_data(), angle.mutable_data(), score.mutable_data(),
                            reference.mutable_data()};
  int searches = 0;
  {
    py::gil_scoped_release release;
    cpu::RingCorrelator plan({static_cast<int>(box), max_shift, step, r_min, r_max});
    plan.set_references(g.data, g.shape[0]);
    searches = plan.run(f.data, f.shape[0], best_only, out, num_threads);
  }
  return py::make_tuple(shift, angle, score, reference, searches);
}

}  // namespace

void bind_correlate(py::module_& m) {
  m.def("correlate", &correlate, py::arg("images"), py::arg("references"), py::arg("max_shift"),
        py::arg("score"), py::arg("fit"), py::arg("pairing"), py::arg("weights").none(true),
        py::arg("num_threads"));
  m.def("correlate_rotations", &correlate_rotations, py::arg("images"), py::arg("references"),
        py::arg("max_shift"), py::arg("step"), py::arg("r_min"), py::arg("r_max"), py::arg("best_only"),
        py::arg("num_threads"));
}

}  // namespace verglas::bind
