#include <algorithm>

#include "bind/bind_grid.h"
#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/device_arrays.h"
#include "cuda/refine_pose.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

py::object member_of(const py::dict& from, const char* name) { return from[name]; }

/// radii (host, int32), steps, tolerance_rad, tolerance_px
cuda::PoseOptions pose_options(const math::GridShape& grid, const py::dict& options, int width) {
  const auto radii = rising_radii(grid, options["radii"], width);
  if (radii.shape[0] > cuda::kMostRadii)
    throw std::invalid_argument("radii: expected at most " + std::to_string(cuda::kMostRadii) + ", got " +
                                std::to_string(radii.shape[0]));
  cuda::PoseOptions o{};
  o.n_radii = static_cast<int>(radii.shape[0]);
  std::copy_n(radii.data, o.n_radii, o.radii);
  o.max_steps = checked_steps(options["steps"].cast<int>());
  o.tolerance_rad = options["tolerance_rad"].cast<double>();
  o.tolerance_px = options["tolerance_px"].cast<double>();
  return o;
}

/// The bindings of the CPU's refine_pose, with device arrays. Indices of image_of_pose are the caller's to check.
void refine_pose(const GridArguments& g, const py::object& spectrum, const py::dict& data,
                 const py::dict& prior, const py::dict& options, const py::dict& poses,
                 std::uintptr_t stream) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto volume = device_input<cfloat>(spectrum, "spectrum", {grid.rows(), grid.rows(), grid.columns});
  const auto o = pose_options(grid, options, window.width);
  const int last = o.radii[o.n_radii - 1];
  const py::ssize_t half = grid.box / 2 + 1;
  const auto transforms = device_input<cfloat>(data["images"], "images", {kAny, grid.box, half});
  const auto n_images = static_cast<py::ssize_t>(transforms.shape[0]);
  const cuda::PoseImages images{
      transforms.shape[0], as_float2(transforms.data),
      optional_input<float>(member_of(data, "ctf"), "ctf", {n_images, grid.box, half}),
      optional_input<float>(member_of(data, "shell_weight"), "shell_weight", {n_images, last + 1}),
      optional_input<double>(member_of(data, "scale"), "scale", {n_images})};
  const auto matrices = device_output<double>(poses["matrices"], "matrices", {kAny, 3, 3});
  const auto n = static_cast<py::ssize_t>(matrices.shape[0]);
  cuda::PoseBatch batch{};
  batch.n = matrices.shape[0];
  batch.matrices = matrices.data;
  batch.shifts_px = device_output<double>(poses["shifts_px"], "shifts_px", {n, 2}).data;
  batch.image = optional_input<std::int64_t>(member_of(poses, "image_of_pose"), "image_of_pose", {n});
  if (!batch.image && n != n_images)
    throw std::invalid_argument("matrices: expected one pose per image (" + std::to_string(n_images) +
                                "), got " + std::to_string(n) + " (or give image_of_pose)");
  batch.score = device_output<double>(poses["scores"], "scores", {n}).data;
  batch.log_prior = device_output<double>(poses["log_prior"], "log_prior", {n}).data;
  batch.gradient = device_output<double>(poses["gradient"], "gradient", {n, math::kPoseParameters}).data;
  batch.fisher =
      device_output<double>(poses["fisher"], "fisher", {n, math::kPoseParameters, math::kPoseParameters})
          .data;
  batch.evaluations = device_output<std::int32_t>(poses["evaluations"], "evaluations", {n}).data;
  batch.status = device_output<std::uint8_t>(poses["status"], "status", {n}).data;
  cuda::PosePrior p{};
  p.angle_sigma_rad = prior["angle_sigma_rad"].cast<double>();
  p.shift_sigma_px = prior["shift_sigma_px"].cast<double>();
  if (p.angle_sigma_rad > 0.0)
    p.matrices = device_input<double>(prior["matrices"], "prior.matrices", {n, 3, 3}).data;
  if (p.shift_sigma_px > 0.0)
    p.shifts_px = device_input<double>(prior["shifts_px"], "prior.shifts_px", {n, 2}).data;
  py::gil_scoped_release release;
  cuda::refine_pose(grid, window, as_float2(volume.data), images, p, o, batch, stream_of(stream));
}

}  // namespace

void bind_cuda_refine_pose(py::module_& m) { m.def("refine_pose", &refine_pose); }

}  // namespace verglas::bind
