// match, peaks, radon, scatter, shell_dot, and of movies warp, shift_score and eer, on device arrays.
#include <pybind11/stl.h>

#include <cmath>
#include <cstring>

#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "bind/eer_arguments.h"
#include "cuda/eer.h"
#include "cuda/match.h"
#include "cuda/peaks.h"
#include "cuda/radon.h"
#include "cuda/scatter.h"
#include "cuda/shell_dot.h"
#include "cuda/shift_score.h"
#include "cuda/warp.h"

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

constexpr py::ssize_t kRadonView = sizeof(math::RadonView) / sizeof(double);
static_assert(sizeof(math::RadonView) % sizeof(double) == 0);

/// What the kernels take of each angle, as rows of doubles to be brought to the device.
py::array_t<double> radon_views(const std::vector<double>& angles_rad, int nz, int nx) {
  py::array_t<double> out({static_cast<py::ssize_t>(angles_rad.size()), kRadonView});
  for (std::size_t i = 0; i < angles_rad.size(); ++i) {
    if (!std::isfinite(angles_rad[i]))
      throw std::invalid_argument("angles: angle " + std::to_string(i) + " is not finite");
    const math::RadonView view = math::radon_view(angles_rad[i], nz, nx);
    std::memcpy(out.mutable_data(static_cast<py::ssize_t>(i), 0), &view, sizeof(view));
  }
  return out;
}

cuda::RadonViews radon_shape(const View<const double>& views, const std::vector<std::size_t>& volume,
                             const std::vector<std::size_t>& images) {
  if (volume[0] < 2 || volume[2] < 2 || images[2] < 1)
    throw std::invalid_argument("volume: expected at least 2 voxels along z and x, and one detector pixel");
  return {reinterpret_cast<const math::RadonView*>(views.data),
          static_cast<int>(views.shape[0]),
          static_cast<int>(images[2]),
          static_cast<int>(volume[0]),
          static_cast<int>(volume[1]),
          static_cast<int>(volume[2])};
}

void radon(const py::object& volume, const py::object& views, const py::object& images,
           std::uintptr_t stream) {
  const auto in = device_input<float>(volume, "volume", {kAny, kAny, kAny});
  const auto angles = device_input<double>(views, "views", {kAny, kRadonView});
  const auto out = device_output<float>(
      images, "images",
      {static_cast<py::ssize_t>(angles.shape[0]), static_cast<py::ssize_t>(in.shape[1]), kAny});
  const auto shape = radon_shape(angles, in.shape, out.shape);
  py::gil_scoped_release release;
  cuda::radon(shape, in.data, out.data, stream_of(stream));
}

void radon_adjoint(const py::object& images, const py::object& views, const py::object& volume,
                   std::uintptr_t stream) {
  const auto angles = device_input<double>(views, "views", {kAny, kRadonView});
  const auto out = device_output<float>(volume, "volume", {kAny, kAny, kAny});
  const auto in = device_input<float>(
      images, "images",
      {static_cast<py::ssize_t>(angles.shape[0]), static_cast<py::ssize_t>(out.shape[1]), kAny});
  const auto shape = radon_shape(angles, out.shape, in.shape);
  py::gil_scoped_release release;
  cuda::radon_adjoint(shape, in.data, out.data, stream_of(stream));
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

/// math::DelayTable for the device: (rows, kDelayStride) float32.
py::array_t<float> delay_table() {
  static const math::DelayTable table;
  const auto columns = static_cast<py::ssize_t>(math::kDelayStride);
  const auto rows = static_cast<py::ssize_t>(table.rows().size()) / columns;
  return py::array_t<float>({rows, columns}, table.rows().data());
}

void warp(const py::object& frames, const py::object& shifts, const py::object& weights,
          const py::object& taps, const py::object& sums, std::uintptr_t stream) {
  const auto images = device_input<float>(frames, "frames", {kAny, kAny, kAny});
  const auto n = static_cast<py::ssize_t>(images.shape[0]);
  const auto field = device_input<float>(shifts, "shifts", {n, kAny, kAny, 2});
  const auto factors = device_input<float>(weights, "weights", {n, kAny});
  const auto table =
      device_input<float>(taps, "taps", {2 * math::DelayTable::kSteps + 2, math::kDelayStride});
  const auto rows = static_cast<py::ssize_t>(images.shape[1]),
             columns = static_cast<py::ssize_t>(images.shape[2]);
  const auto out =
      device_output<float>(sums, "sums", {static_cast<py::ssize_t>(factors.shape[1]), rows, columns});
  if (rows < 1 || columns < 1 || field.shape[1] < 1 || field.shape[2] < 1)
    throw std::invalid_argument("frames, shifts: expected at least one pixel and one node");
  py::gil_scoped_release release;
  cuda::warp({images.data, field.data, factors.data, table.data, images.shape[0], images.shape[1],
              images.shape[2], field.shape[1], field.shape[2], factors.shape[1]},
             out.data, stream_of(stream));
}

/// scratch = (sum, values)
void shift_score(const py::object& patches, const py::object& shifts, const py::object& weights,
                 const py::object& frequencies_y, const py::object& frequencies_x, const py::tuple& scratch,
                 const py::object& value, const py::object& gradient, const py::object& curvature,
                 std::uintptr_t stream) {
  const auto data = device_input<cfloat>(patches, "patches", {kAny, kAny, kAny, kAny});
  py::ssize_t side[4];
  for (int i = 0; i < 4; ++i) side[i] = static_cast<py::ssize_t>(data.shape[i]);
  const auto d = device_input<double>(shifts, "shifts", {side[0], side[1], 2});
  const auto w = device_input<float>(weights, "weights", {side[2], side[3]});
  const auto fy = device_input<double>(frequencies_y, "frequencies_y", {side[2]});
  const auto fx = device_input<double>(frequencies_x, "frequencies_x", {side[3]});
  const auto sum = device_output<cfloat>(scratch[0], "sum", {side[0], side[2], side[3]});
  const auto values = device_output<double>(scratch[1], "values", {side[0], side[1]});
  const auto v = device_output<double>(value, "value", {side[0]});
  auto* g = optional_output<double>(gradient, "gradient", {side[0], side[1], 2});
  auto* c = optional_output<double>(curvature, "curvature", {side[0], side[1], 3});
  if ((g == nullptr) != (c == nullptr))
    throw std::invalid_argument("gradient, curvature: expected both or neither");
  py::gil_scoped_release release;
  cuda::shift_score({as_float2(data.data), w.data, fy.data, fx.data, d.data, data.shape[0], data.shape[1],
                     data.shape[2], data.shape[3]},
                    {v.data, g, c, as_float2(sum.data), values.data}, stream_of(stream));
}

/// What a strip of so many bytes needs: numbers of int32 in `steps`, of int64 in `entries`.
std::pair<std::size_t, std::size_t> eer_scratch(std::size_t bytes, int run_bits, int x_bits, int y_bits) {
  const std::size_t chunks = cuda::eer_chunks(bytes);
  const auto entries = static_cast<std::size_t>(cuda::eer_entries({run_bits, x_bits, y_bits, 0}));
  return {2 * chunks * entries, 2 * chunks};
}

/// scratch = (steps, entries)
void eer(const py::object& strip, int run_bits, int x_bits, int y_bits, int upsampling_log2,
         const py::object& counts, const py::tuple& scratch, const py::object& result,
         std::uintptr_t stream) {
  const auto bytes = device_input<std::uint8_t>(strip, "strip", {kAny});
  check_eer_code({run_bits, x_bits, y_bits, upsampling_log2});
  const auto grid = device_output<std::uint32_t>(counts, "counts", {kAny, kAny});
  check_eer_grid(grid.shape, upsampling_log2);
  const auto needed = eer_scratch(bytes.shape[0], run_bits, x_bits, y_bits);
  auto* steps = reinterpret_cast<cuda::EerStep*>(
      device_output<std::int32_t>(scratch[0], "steps", {static_cast<py::ssize_t>(needed.first)}).data);
  auto* entries = reinterpret_cast<cuda::EerEntry*>(
      device_output<std::int64_t>(scratch[1], "entries", {static_cast<py::ssize_t>(needed.second)}).data);
  auto* numbers = device_output<std::int64_t>(result, "result", {2}).data;
  py::gil_scoped_release release;
  cuda::eer(bytes.data, bytes.shape[0], {run_bits, x_bits, y_bits, upsampling_log2},
            grid.shape[0] >> upsampling_log2, grid.shape[1] >> upsampling_log2, grid.data, steps, entries,
            numbers, stream_of(stream));
}

}  // namespace

void bind_cuda_images(py::module_& m) {
  m.def("match", &match);
  m.def("peaks", &peaks);
  m.def("most_peaks", &cuda::most_peaks);
  m.def("radon_views", &radon_views);
  m.def("radon", &radon);
  m.def("radon_adjoint", &radon_adjoint);
  m.def("scatter", &scatter);
  m.def("scatter_volume", &scatter_volume);
  m.def("form_length", &cuda::form_length);
  m.def("shell_dot", &shell_dot);
  m.def("delay_table", &delay_table);
  m.def("warp", &warp);
  m.def("shift_score", &shift_score);
  m.def("eer_scratch", &eer_scratch);
  m.def("eer", &eer);
}

}  // namespace verglas::bind
