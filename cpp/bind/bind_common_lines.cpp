#include <algorithm>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/common_lines.h"

namespace verglas::bind {
namespace {

cpu::CentralLines central_lines(const py::object& samples, const py::object& loss) {
  const auto x = input<std::complex<float>>(samples, "lines", {kAny, kAny, kAny});
  const auto n = static_cast<py::ssize_t>(x.shape[0]), half = static_cast<py::ssize_t>(x.shape[1]);
  if (half < 2 || x.shape[2] < 1)
    throw std::invalid_argument("lines: expected (n, directions >= 2, components >= 1), got " +
                                std::to_string(half) + " directions of " + std::to_string(x.shape[2]) +
                                " components");
  const auto l = input<float>(loss, "loss", {n, half});
  return {x.data, l.data, x.shape[0], static_cast<int>(half), static_cast<int>(x.shape[2])};
}

void common_lines(const py::object& samples, const py::object& loss, const py::object& angle,
                  const py::object& score, int num_threads) {
  const auto lines = central_lines(samples, loss);
  const auto n = static_cast<py::ssize_t>(lines.n);
  const auto a = output<double>(angle, "angle", {n, n}), s = output<double>(score, "score", {n, n});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::common_lines(lines, a.data, s.data, num_threads);
}

void common_line_scores(const py::object& samples, const py::object& loss, const py::object& rotations,
                        const py::object& candidates, const py::object& own, const py::object& out,
                        int num_threads) {
  const auto lines = central_lines(samples, loss);
  const auto n = static_cast<py::ssize_t>(lines.n);
  const auto r = input<double>(rotations, "rotations", {n, 3, 3});
  const auto c = input<double>(candidates, "candidates", {kAny, 3, 3});
  const auto m = static_cast<py::ssize_t>(c.shape[0]);
  const auto index = input<std::int64_t>(own, "image", {m});
  if (std::any_of(index.data, index.data + m, [n](std::int64_t i) { return i < 0 || i >= n; }))
    throw std::invalid_argument("image: expected indices from 0 to " + std::to_string(n - 1));
  const auto finite = [](const double* p, std::size_t count) {
    return std::all_of(p, p + count, [](double v) { return std::abs(v) < 2; });
  };
  if (!finite(r.data, 9 * lines.n) || !finite(c.data, 9 * static_cast<std::size_t>(m)))
    throw std::invalid_argument("rotations, candidates: expected rotation matrices");
  const auto sums = output<double>(out, "out", {m});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::common_line_scores(lines, r.data, c.data, index.data, c.shape[0], sums.data, num_threads);
}

}  // namespace

void bind_common_lines(py::module_& m) {
  m.def("common_lines", &common_lines);
  m.def("common_line_scores", &common_line_scores);
}

}  // namespace verglas::bind
