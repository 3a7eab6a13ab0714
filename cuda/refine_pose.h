// refine_pose: score, gradient and Fisher information of poses on the exact Cartesian pixels, and the climb
// to the maximum, on the device. Definitions in cpp/ops/refine_pose.h, formulas in cpp/math/pose_climb.h.
//
// One block climbs one pose from start to end, so that nothing returns to the host between steps: its threads
// share the pixels of the disc (a warp a patch of 8 x 4, compact in the grid), one thread takes the step.
// Sums are float32 over at most 64 pixels of a thread, then float64, in one order: the result does not depend
// on what else is in the batch.
//   cost   per evaluation pi/2 R^2 pixels of W^3 taps, 8 floating-point operations of each 4 sums, 24 bytes of
//          image, CTF and weight and 8 W^3 bytes of the grid, from cache mostly
//   floor  the larger of operations over the float32 rate and (8 + 4) pi/2 R^2 bytes per evaluation over the
//          memory's, the map once
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/grid.h"
#include "math/pose_batch.h"

namespace verglas::cuda {

constexpr int kMostRadii = 16;

/// All arrays lie on the device.
using PoseImages = math::PoseImages<float2>;
using math::PoseBatch;  // a matrix that is no rotation counts as not finite
using math::PosePrior;

struct PoseOptions {
  int radii[kMostRadii];  // ascending
  int n_radii;            // the last is max_radius, the R of the result
  int max_steps;          // 0 evaluates the poses as they are
  double tolerance_rad, tolerance_px;
};

void refine_pose(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
                 const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                 const PoseBatch& poses, Stream stream);

}  // namespace verglas::cuda
