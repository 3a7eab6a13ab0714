// score_cells: log-likelihoods of chosen poses on the device. What is computed is cpp/ops/score_cells.h; its
// loops are these.
//
// Tasks of one image on one slice and side that follow each other are a run. One block: a run and 16 shifts;
// c_m of 64 harmonics at a time goes through shared memory to the tasks, each a sum over m with the phases of
// a table. Every value is made by one sequence of operations in float32.
//   cost    per run and shift 4 size multiply-adds, per task and shift 2 (max_m + 1); 8 size bytes of harmonics read
//           per run and shift, from the second-level cache for the images of a batch
//   floor   operations over the float32 rate for many tasks a run, the bytes of the harmonics for few
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/polar_weighted.h"

namespace verglas::cuda {

struct CellProblem {
  PolarTables grid;
  TileLayout layout;       ///< without rows for the power term
  const float* harmonics;  ///< (n_slices, size) complex
  const float* power;      ///< (n_slices, n_rings, n_power) complex
  int n_power, n_psi;
  const float* circle;             ///< (2 n_psi, 2) cos and sin of pi k / n_psi
  const float* columns;            ///< (tiles, layout.floats()): shifts of an image, filled up to whole tiles
  const float* cp;                 ///< (n, n_rings, n_power) complex, of weigh
  const std::int64_t* first_tile;  ///< (n + 1) of each image
  const std::int64_t* n_shifts;    ///< (n)
  const std::int64_t* first_task;  ///< (n + 1)
  const std::int64_t* first_score;  ///< (n + 1)
  const std::int32_t* psi;          ///< (tasks)
  const std::int64_t* run;          ///< (runs + 1) first task of each run
  const std::int32_t* run_image;    ///< (runs)
  const std::int32_t* run_entry;    ///< (runs) 2 slice + opposite
  std::size_t runs;
  int most_tiles;  ///< of any image
};

/// scores (first_score[n]), written.
void score_cells(const CellProblem& problem, float* scores, Stream stream);

}  // namespace verglas::cuda
