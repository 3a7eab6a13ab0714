// match, peaks, scatter and shell_dot on device arrays.
#include <cmath>

#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "cuda/match.h"
#include "cuda/peaks.h"
#include "cuda/scatter.h"
#include "cuda/shell_dot.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

void match(const py::object& maps, const py::object& mix, const py::object& best, const py::object& which,
           std::uintptr_t stream) {
  const auto images = device_input<float>(maps, "maps", {kAny, kAny});
  const auto depth = static_cast<py::ssize_t>(images.shape[0]),
             pixels = static_cast<py::ssize_t>(images.shape[1]);
  const auto factors = device_input<float>(mix, "mix", {kAny, depth});
  if (factors.shape[0] < 1 || depth < 1)
    throw std::invalid_argument("mix: expected at least one row and column");
  const auto top = device_output<float>(best, "best", {pixels});
  const auto index = device_output<std::int32_t>(which, "which", {pixels});
  py::gil_scoped_release release;
  cuda::match(images.data, factors.data, factors.shape[0], images.shape[0], images.shape[1], top.data,
              index.data, stream_of(stream));
}

void peaks(const py::object& map, float threshold, const py::object& mask, const py::object& found,
           const py::object& count, std::uintptr_t stream) {
  const auto values = device_input<float>(map, "map", {kAny, kAny});
  const auto height = static_cast<py::ssize_t>(values.shape[0]),
             width = static_cast<py::ssize_t>(values.shape[1]);
  const math::PeakMap m{values.data, values.shape[0], values.shape[1],
                        optional_input<std::uint8_t>(mask, "mask", {height, width})};
  static_assert(sizeof(cuda::FoundPeak) == 4 * sizeof(double));
  const auto most = static_cast<py::ssize_t>(cuda::most_peaks(m.height, m.width));
  auto* rows = reinterpret_cast<cuda::FoundPeak*>(device_output<double>(found, "found", {most, 4}).data);
  auto* number = device_output<std::uint32_t>(count, "count", {1}).data;
  py::gil_scoped_release release;
  cuda::peaks(m, threshold, rows, number, stream_of(stream));
}

cuda::ScatterModel model_of(const py::object& atoms, const py::object& first, const py::object& factors) {
  const auto a = device_input<double>(atoms, "atoms", {kAny, 5});
  const auto f = device_input<double>(factors, "factors", {kAny, kAny, 2});
  const auto types = static_cast<py::ssize_t>(f.shape[0]);
  return {a.data, device_input<std::int32_t>(first, "first", {types + 1}).data, f.data,
          static_cast<int>(f.shape[0]), static_cast<int>(f.shape[1])};
}

cuda::ScatterGrid grid_of(int box, double pixel_size_A) {
  if (box < 1) throw std::invalid_argument("box: expected at least 1 pixel, got " + std::to_string(box));
  if (!(pixel_size_A > 0))
    throw std::invalid_argument("pixel_size_A: expected a positive number, got " +
                                std::to_string(pixel_size_A));
  return {box, pixel_size_A};
}

float* form_of(const py::object& form, const cuda::ScatterModel& model, const cuda::ScatterGrid& grid,
               int dimensions) {
  const auto length = static_cast<py::ssize_t>(cuda::form_length(grid.box, dimensions));
  return device_output<float>(form, "form", {model.n_types, length}).data;
}

/// model = (atoms, first, factors), atoms sorted by type
void scatter(const py::tuple& model, const py::object& matrices, const py::object& shifts_A, int box,
             double pixel_size_A, const py::object& form, const py::object& out, std::uintptr_t stream) {
  const auto atoms = model_of(model[0], model[1], model[2]);
  const auto grid = grid_of(box, pixel_size_A);
  const auto r = device_input<double>(matrices, "matrices", {kAny, 3, 3});
  const auto n = static_cast<py::ssize_t>(r.shape[0]);
  const auto s = device_input<double>(shifts_A, "shifts_A", {n, 2});
  float* table = form_of(form, atoms, grid, 2);
  const auto o = device_output<cfloat>(out, "out", {n, box, box / 2 + 1});
  py::gil_scoped_release release;
  cuda::scatter(atoms, r.data, s.data, r.shape[0], grid, table, as_float2(o.data), stream_of(stream));
}

void scatter_volume(const py::tuple& model, int box, double pixel_size_A, const py::object& form,
                    const py::object& out, std::uintptr_t stream) {
  const auto atoms = model_of(model[0], model[1], model[2]);
  const auto grid = grid_of(box, pixel_size_A);
  float* table = form_of(form, atoms, grid, 3);
  const auto o = device_output<cfloat>(out, "out", {box, box, box / 2 + 1});
  py::gil_scoped_release release;
  cuda::scatter_volume(atoms, grid, table, as_float2(o.data), stream_of(stream));
}

void shell_dot(const py::object& a, const py::object& b, const py::object& b_of_a, int max_radius,
               const py::object& out, std::uintptr_t stream) {
  const auto x = device_input<cfloat>(a, "a", {kAny, kAny, kAny});
  const auto n = static_cast<py::ssize_t>(x.shape[0]), box = static_cast<py::ssize_t>(x.shape[1]);
  if (static_cast<py::ssize_t>(x.shape[2]) != box / 2 + 1)
    throw std::invalid_argument("a: expected half transforms (n, N, N // 2 + 1), got N = " +
                                std::to_string(box) + " and " + std::to_string(x.shape[2]) + " columns");
  const auto y = device_input<cfloat>(b, "b", {kAny, box, box / 2 + 1});
  if (max_radius < 0 || max_radius > (box - 1) / 2)
    throw std::invalid_argument("max_radius: expected 0 to " + std::to_string((box - 1) / 2) + ", got " +
                                std::to_string(max_radius));
  if (b_of_a.is_none() && x.shape[0] != y.shape[0])
    throw std::invalid_argument("b: expected as many transforms as a, " + std::to_string(n) + ", got " +
                                std::to_string(y.shape[0]));
  const auto* index = optional_input<std::int64_t>(b_of_a, "b_of_a", {n});
  const auto sums = device_output<double>(out, "out", {n, max_radius + 1});
  py::gil_scoped_release release;
  cuda::shell_dot(as_float2(x.data), as_float2(y.data), index, x.shape[0], y.shape[0], static_cast<int>(box),
                  max_radius, sums.data, stream_of(stream));
}

}  // namespace

void bind_cuda_images(py::module_& m) {
  m.def("match", &match);
  m.def("peaks", &peaks);
  m.def("most_peaks", &cuda::most_peaks);
  m.def("scatter", &scatter);
  m.def("scatter_volume", &scatter_volume);
  m.def("form_length", &cuda::form_length);
  m.def("shell_dot", &shell_dot);
}

}  // namespace verglas::bind
