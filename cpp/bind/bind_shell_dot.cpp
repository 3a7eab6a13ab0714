#include <algorithm>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/shell_dot.h"

namespace verglas::bind {
namespace {

void shell_dot(const py::object& a, const py::object& b, const py::object& b_of_a, int max_radius,
               const py::object& out, int num_threads) {
  const auto x = input<std::complex<float>>(a, "a", {kAny, kAny, kAny});
  const auto n = static_cast<py::ssize_t>(x.shape[0]), box = static_cast<py::ssize_t>(x.shape[1]);
  if (static_cast<py::ssize_t>(x.shape[2]) != box / 2 + 1)
    throw std::invalid_argument("a: expected half transforms (n, N, N // 2 + 1), got N = " +
                                std::to_string(box) + " and " + std::to_string(x.shape[2]) + " columns");
  const auto y = input<std::complex<float>>(b, "b", {kAny, box, box / 2 + 1});
  if (max_radius < 0 || max_radius > (box - 1) / 2)
    throw std::invalid_argument("max_radius: expected 0 to " + std::to_string((box - 1) / 2) + ", got " +
                                std::to_string(max_radius));
  const std::int64_t* index = nullptr;
  if (b_of_a.is_none()) {
    if (x.shape[0] != y.shape[0])
      throw std::invalid_argument("b: expected as many transforms as a, " + std::to_string(n) + ", got " +
                                  std::to_string(y.shape[0]));
  } else {
    index = input<std::int64_t>(b_of_a, "b_of_a", {n}).data;
    const auto last = static_cast<std::int64_t>(y.shape[0]);
    if (std::any_of(index, index + n, [last](std::int64_t j) { return j < 0 || j >= last; }))
      throw std::invalid_argument("b_of_a: expected indices from 0 to " + std::to_string(last - 1));
  }
  const auto sums = output<double>(out, "out", {n, max_radius + 1});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::shell_dot(x.data, y.data, index, x.shape[0], static_cast<int>(box), max_radius, sums.data,
                 num_threads);
}

}  // namespace

void bind_shell_dot(py::module_& m) { m.def("shell_dot", &shell_dot); }

}  // namespace verglas::bind
