// refine_pose: score, gradient and Fisher information of poses on the exact Cartesian pixels, and the climb
// to the maximum, on the device. Definitions in cpp/ops/refine_pose.h, formulas in cpp/math/pose_climb.h.
//
// One block climbs one pose from start to end, so that nothing returns to the host between steps: its threads
// share the pixels of the disc (a warp a patch of 8 x 4, compact in the grid), one thread takes the step.
// Sums are float32 over at most 64 pixels of a thread, then float64, in one order: the result does not depend
// on what else is in the batch.
//   cost   per evaluation pi/2 R^2 pixels of W^3 taps, 8 floating-point operations of each 4 sums, 24 bytes
//   of
//          image, CTF and weight and 8 W^3 bytes of the grid, from cache mostly
//   floor  the larger of operations over the float32 rate and (8 + 4) pi/2 R^2 bytes per evaluation over the
//          memory's, the map once
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/grid.h"
#include "math/pose_climb.h"

namespace verglas::cuda {

constexpr int kMostRadii = 16;

/// The images; null pointers mean 1. All arrays are the caller's, on the device.
struct PoseImages {
  const float2* transforms;   // (n, box, box/2 + 1) phase-centred half transforms X
  const float* ctf;           // (n, box, box/2 + 1) C
  const float* shell_weight;  // (n, max_radius + 1) 1/sigma2
  const double* scale;        // (n) s
};

/// A sigma of 0 means none.
struct PosePrior {
  double angle_sigma_rad, shift_sigma_px;
  const double* matrices;   // (n poses, 9) centre
  const double* shifts_px;  // (n poses, 2) centre d0
};

struct PoseOptions {
  int radii[kMostRadii];  // ascending
  int n_radii;            // the last is max_radius, the R of the result
  int max_steps;          // 0 evaluates the poses as they are
  double tolerance_rad, tolerance_px;
};

/// As cpu::PoseBatch, on the device.
struct PoseBatch {
  std::size_t n;
  const std::int64_t* image;  // (n) which image each pose belongs to; null: pose i, image i
  double* matrices;           // (n, 9) refined in place
  double* shifts_px;          // (n, 2) refined in place
  double* score;              // (n)
  double* log_prior;          // (n)
  double* gradient;           // (n, 5)
  double* fisher;             // (n, 5, 5)
  std::int32_t* evaluations;  // (n)
  std::uint8_t* status;       // (n) math::PoseStatus; a matrix that is no rotation counts as not finite
};

void refine_pose(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
                 const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                 const PoseBatch& poses, Stream stream);

}  // namespace verglas::cuda
