#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/match.h"

namespace verglas::bind {
namespace {

void match(const py::object& maps, const py::object& mix, const py::object& best, const py::object& which,
           int num_threads) {
  const auto images = input<float>(maps, "maps", {kAny, kAny});
  const auto depth = static_cast<py::ssize_t>(images.shape[0]),
             pixels = static_cast<py::ssize_t>(images.shape[1]);
  const auto factors = input<float>(mix, "mix", {kAny, depth});
  if (factors.shape[0] < 1 || depth < 1)
    throw std::invalid_argument("mix: expected at least one row and column");
  const auto top = output<float>(best, "best", {pixels});
  const auto index = output<std::int32_t>(which, "which", {pixels});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::match(images.data, factors.data, factors.shape[0], images.shape[0], images.shape[1], top.data,
             index.data, num_threads);
}

}  // namespace

void bind_match(py::module_& m) { m.def("match", &match); }

}  // namespace verglas::bind
