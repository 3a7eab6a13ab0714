#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/scatter.h"

namespace verglas::bind {
namespace {

/// Borrowed arrays of a model; the arguments keep them alive through the call.
cpu::ScatterModel model_of(const py::object& atoms, const py::object& types, const py::object& factors) {
  const auto a = input<double>(atoms, "atoms", {kAny, 5});
  const auto t = input<std::int64_t>(types, "types", {static_cast<py::ssize_t>(a.shape[0])});
  const auto f = input<double>(factors, "factors", {kAny, kAny, 2});
  for (std::size_t i = 0; i < t.shape[0]; ++i) {
    if (t.data[i] < 0 || static_cast<std::size_t>(t.data[i]) >= f.shape[0])
      throw std::invalid_argument("types: expected 0 to " + std::to_string(f.shape[0]) + " - 1, got " +
                                  std::to_string(t.data[i]) + " for atom " + std::to_string(i));
  }
  return {a.data, t.data, a.shape[0], f.data, static_cast<int>(f.shape[0]), static_cast<int>(f.shape[1])};
}

cpu::ScatterGrid grid_of(int box, double pixel_size_A) {
  if (box < 1) throw std::invalid_argument("box: expected at least 1 pixel, got " + std::to_string(box));
  if (!(pixel_size_A > 0))
    throw std::invalid_argument("pixel_size_A: expected a positive number, got " +
                                std::to_string(pixel_size_A));
  return {box, pixel_size_A};
}

py::array_t<std::complex<float>> scatter(const py::object& atoms, const py::object& types,
                                         const py::object& factors, const py::object& matrices,
                                         const py::object& shifts_A, int box, double pixel_size_A,
                                         int num_threads) {
  const auto model = model_of(atoms, types, factors);
  const auto r = input<double>(matrices, "matrices", {kAny, 3, 3});
  const auto s = input<double>(shifts_A, "shifts_A", {static_cast<py::ssize_t>(r.shape[0]), 2});
  const auto grid = grid_of(box, pixel_size_A);
  checked_threads(num_threads);
  auto out = make<std::complex<float>>(
      {r.shape[0], static_cast<std::size_t>(box), static_cast<std::size_t>(box / 2 + 1)});
  auto* data = out.mutable_data();
  py::gil_scoped_release release;
  cpu::scatter(model, r.data, s.data, r.shape[0], grid, data, num_threads);
  return out;
}

py::array_t<std::complex<float>> scatter_volume(const py::object& atoms, const py::object& types,
                                                const py::object& factors, int box, double pixel_size_A,
                                                int num_threads) {
  const auto model = model_of(atoms, types, factors);
  const auto grid = grid_of(box, pixel_size_A);
  checked_threads(num_threads);
  const auto n = static_cast<std::size_t>(box);
  auto out = make<std::complex<float>>({n, n, n / 2 + 1});
  auto* data = out.mutable_data();
  py::gil_scoped_release release;
  cpu::scatter_volume(model, grid, data, num_threads);
  return out;
}

}  // namespace

void bind_scatter(py::module_& m) {
  m.def("scatter", &scatter, py::arg("atoms"), py::arg("types"), py::arg("factors"), py::arg("matrices"),
        py::arg("shifts_A"), py::arg("box"), py::arg("pixel_size_A"), py::arg("num_threads"));
  m.def("scatter_volume", &scatter_volume, py::arg("atoms"), py::arg("types"), py::arg("factors"),
        py::arg("box"), py::arg("pixel_size_A"), py::arg("num_threads"));
}

}  // namespace verglas::bind
