// The windowed form of score: for every image its own list of (slice, psi) tasks, each at all of the image's
// shifts. Used by branch and bound and by local searches, where few poses of a fine grid are wanted.
//
//   score(task, shift) = sum_k Re[conj(C A) X S(t)] / sigma2 - 1/2 sum_k C^2 |A|^2 / sigma2          (no priors)
//
// Cost per image and kLanes shifts: one set of lane harmonics (ops/polar.h), 4 grid.size multiply-adds per
// slice, 2 max_m per task. Tasks sorted by slice and side share the slice's part. Parallel over images; every
// value is computed by one fixed sequence of operations.
#pragma once
#include <cstdint>
#include <vector>

#include "ops/polar.h"

namespace verglas::cpu {

struct CellReference {
  const cfloat* harmonics;  ///< (n, grid.size), normalised
  const cfloat* power;      ///< (n, n_rings, n_power), normalised
  std::size_t n;
  int n_power;
};

struct CellInput {
  const cfloat* samples;    ///< (n, n_rings, half)
  const double* ctf;        ///< (n, math::kOpticsColumns) or null
  const float* inv_sigma2;  ///< (n, n_rings)
  std::size_t n;
  double pixel_size_A;
  const std::int64_t* shift_offsets;  ///< (n + 1): shifts of image i
  const float* shifts;                ///< (total, 2) x, y pixels
  const std::int64_t* task_offsets;   ///< (n + 1): tasks of image i
  const std::int32_t* task_slice;     ///< (tasks) index into the reference
  const std::uint8_t* task_opposite;  ///< (tasks) whether the slice's opposite is meant
  const std::int32_t* task_psi;       ///< (tasks) psi = (j + 1/2) 360 / n_psi degrees
  int n_psi;
};

/// Values before image i in the output: sum over earlier images of tasks times shifts; (n + 1).
std::vector<std::int64_t> cell_offsets(const CellInput& in);

/// scores[cell_offsets[i] + task * n_shifts_i + shift], written.
void score_cells(const PolarGrid& grid, const CellReference& reference, const CellInput& in, float* scores,
                 int num_threads);

}  // namespace verglas::cpu
