#include "bind/bind.h"
#include "bind/bind_grid.h"
#include "ops/refine_pose.h"

namespace verglas::bind {
namespace {

cpu::PoseImages pose_images(const math::GridShape& grid, const py::dict& data, int max_radius) {
  cpu::PoseImages images{};
  const py::ssize_t half = grid.box / 2 + 1;
  const auto transforms = input<cpu::Complex>(data["images"], "images", {kAny, grid.box, half});
  const auto n = static_cast<py::ssize_t>(transforms.shape[0]);
  images.n = transforms.shape[0];
  images.transforms = transforms.data;
  const py::object ctf = data["ctf"], shell_weight = data["shell_weight"], scale = data["scale"];
  if (!ctf.is_none()) images.ctf = input<float>(ctf, "ctf", {n, grid.box, half}).data;
  if (!shell_weight.is_none())
    images.shell_weight = input<float>(shell_weight, "shell_weight", {n, max_radius + 1}).data;
  if (!scale.is_none()) images.scale = input<double>(scale, "scale", {n}).data;
  return images;
}

cpu::PosePrior pose_prior(const py::dict& prior, py::ssize_t n) {
  cpu::PosePrior p{};
  p.angle_sigma_rad = prior["angle_sigma_rad"].cast<double>();
  p.shift_sigma_px = prior["shift_sigma_px"].cast<double>();
  if (p.angle_sigma_rad > 0.0) p.matrices = rotations(prior["matrices"], "prior.matrices", n).data;
  if (p.shift_sigma_px > 0.0) p.shifts_px = input<double>(prior["shifts_px"], "prior.shifts_px", {n, 2}).data;
  return p;
}

cpu::PoseOptions pose_options(const math::GridShape& grid, const py::dict& options, int width) {
  const auto radii = rising_radii(grid, options["radii"], width);
  return {radii.data, static_cast<int>(radii.shape[0]), checked_steps(options["steps"].cast<int>()),
          options["tolerance_rad"].cast<double>(), options["tolerance_px"].cast<double>()};
}

/// poses: matrices and shifts_px are refined in place; the other arrays are written.
void refine_pose(const GridArguments& g, const py::object& spectrum, const py::dict& data,
                 const py::dict& prior_arguments, const py::dict& option_arguments, const py::dict& poses,
                 int num_threads) {
  const auto grid = grid_shape(g);
  const auto window = window_table(g);
  const auto volume = input<cpu::Complex>(spectrum, "spectrum", {grid.rows(), grid.rows(), grid.columns});
  const auto options = pose_options(grid, option_arguments, window.width);
  const auto images = pose_images(grid, data, options.radii[options.n_radii - 1]);
  rotations(poses["matrices"], "matrices");
  const auto matrices = output<double>(poses["matrices"], "matrices", {kAny, 3, 3});
  const auto n = static_cast<py::ssize_t>(matrices.shape[0]);
  cpu::PoseBatch batch{};
  batch.n = matrices.shape[0];
  batch.matrices = matrices.data;
  batch.shifts_px = output<double>(poses["shifts_px"], "shifts_px", {n, 2}).data;
  const py::object index = poses["image_of_pose"];
  if (!index.is_none()) {
    batch.image = input<std::int64_t>(index, "image_of_pose", {n}).data;
    for (std::size_t i = 0; i < batch.n; ++i) {
      if (batch.image[i] < 0 || batch.image[i] >= static_cast<std::int64_t>(images.n))
        throw std::invalid_argument("image_of_pose: expected 0 to " + std::to_string(images.n) +
                                    " (excluded), got " + std::to_string(batch.image[i]));
    }
  } else if (batch.n != images.n) {
    throw std::invalid_argument("matrices: expected one pose per image (" + std::to_string(images.n) +
                                "), got " + std::to_string(batch.n) + " (or give image_of_pose)");
  }
  batch.score = output<double>(poses["scores"], "scores", {n}).data;
  batch.log_prior = output<double>(poses["log_prior"], "log_prior", {n}).data;
  batch.gradient = output<double>(poses["gradient"], "gradient", {n, math::kPoseParameters}).data;
  batch.fisher =
      output<double>(poses["fisher"], "fisher", {n, math::kPoseParameters, math::kPoseParameters}).data;
  batch.evaluations = output<std::int32_t>(poses["evaluations"], "evaluations", {n}).data;
  batch.status = output<std::uint8_t>(poses["status"], "status", {n}).data;
  const auto prior = pose_prior(prior_arguments, n);
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::refine_pose(grid, window, volume.data, images, prior, options, batch, num_threads);
}

}  // namespace

void bind_refine_pose(py::module_& m) { m.def("refine_pose", &refine_pose); }

}  // namespace verglas::bind
