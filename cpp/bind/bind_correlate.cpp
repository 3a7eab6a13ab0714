#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/correlate.h"

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

}  // namespace

void bind_correlate(py::module_& m) {
  m.def("correlate", &correlate, py::arg("images"), py::arg("references"), py::arg("max_shift"),
        py::arg("score"), py::arg("fit"), py::arg("pairing"), py::arg("weights").none(true),
        py::arg("num_threads"));
}

}  // namespace verglas::bind
