#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "cuda/common_lines.h"

namespace verglas::bind {
namespace {

cuda::CentralLines central_lines(const py::object& samples, const py::object& loss) {
  const auto x = device_input<std::complex<float>>(samples, "lines", {kAny, kAny, kAny});
  const auto n = static_cast<py::ssize_t>(x.shape[0]), half = static_cast<py::ssize_t>(x.shape[1]);
  if (half < 2 || x.shape[2] < 1)
    throw std::invalid_argument("lines: expected (n, directions >= 2, components >= 1), got " +
                                std::to_string(half) + " directions of " + std::to_string(x.shape[2]) +
                                " components");
  if (n > 65535)
    throw std::invalid_argument("lines: expected 65535 images at most, got " + std::to_string(n));
  const auto l = device_input<float>(loss, "loss", {n, half});
  return {as_float2(x.data), l.data, static_cast<int>(n), static_cast<int>(half),
          static_cast<int>(x.shape[2])};
}

void common_lines(const py::object& samples, const py::object& loss, const py::object& angle,
                  const py::object& score, std::uintptr_t stream) {
  const auto lines = central_lines(samples, loss);
  const auto a = device_output<double>(angle, "angle", {lines.n, lines.n}),
             s = device_output<double>(score, "score", {lines.n, lines.n});
  py::gil_scoped_release release;
  cuda::common_lines(lines, a.data, s.data, stream_of(stream));
}

/// Rotations, candidates and image have been looked at on the host: matrices, and indices within the images.
void common_line_scores(const py::object& samples, const py::object& loss, const py::object& rotations,
                        const py::object& candidates, const py::object& own, const py::object& out,
                        std::uintptr_t stream) {
  const auto lines = central_lines(samples, loss);
  const auto r = device_input<double>(rotations, "rotations", {lines.n, 3, 3});
  const auto c = device_input<double>(candidates, "candidates", {kAny, 3, 3});
  const auto m = static_cast<py::ssize_t>(c.shape[0]);
  const auto index = device_input<std::int64_t>(own, "image", {m});
  const auto sums = device_output<double>(out, "out", {m});
  py::gil_scoped_release release;
  cuda::common_line_scores(lines, r.data, c.data, index.data, c.shape[0], sums.data, stream_of(stream));
}

}  // namespace

void bind_cuda_common_lines(py::module_& m) {
  m.def("common_lines", &common_lines);
  m.def("common_line_scores", &common_line_scores);
}

}  // namespace verglas::bind
