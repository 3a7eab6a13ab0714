"""How much memory a refinement will take, before it starts; and how many images it may work on at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas import ops
from verglas.errors import InputError
from verglas.geometry import unit_pixels
from verglas.reconstruction.known_poses import direct_grid
from verglas.refinement import schedule
from verglas.refinement.grid_step import wide_diameter_px
from verglas.refinement.problem import Problem

# The interpreter with NumPy, SciPy, pandas and matplotlib loaded, and a page being drawn: measured.
_BASE_BYTES = 0.42e9
# Bytes per image of a batch and pixel: raw, centred and transformed images, CTFs, slices and their copies.
_PIXEL_BYTES = 60
_LEAST_BATCH = 8


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of each phase, and what was chosen to keep it below the limit.

    Attributes
    ----------
    phases_GB : dict
        Phase -> peak resident memory in GB, everything included.
    limit_GB : float
        Not to be passed.
    batch : int
        Images worked on at a time.
    cached : bool
        Whether all images are kept in memory, or read again in every iteration.
    """

    phases_GB: dict[str, float]
    limit_GB: float
    batch: int
    cached: bool

    @property
    def peak_GB(self) -> float:
        """The largest phase."""
        return max(self.phases_GB.values())

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {size:.2f}" for name, size in self.phases_GB.items())
        images = "kept in memory" if self.cached else "read again in every iteration"
        return (
            f"memory: at most {self.peak_GB:.2f} GB of {self.limit_GB:.1f} ({phases}); {self.batch} images at a time, "
            f"{images}"
        )


def _phases(problem: Problem, batch: int, cached: bool) -> dict[str, float]:
    box, classes = problem.box, problem.n_classes
    voxels = float(box**3)
    first = schedule.first_step(problem)
    images = 4.0 * len(problem) * box**2 if cached else 0.0
    # References, their next version, raw half maps, two masks.
    models = 4 * voxels * (2 * classes * 3 + 3)
    per_batch = float(_PIXEL_BYTES * batch * box**2)
    pixels = len(unit_pixels(first.order, problem.settings.symmetry))
    wide = ops.PolarGrid(box, first.insert_radius, diameter_px=wide_diameter_px(problem, first))
    slices = classes * pixels * (4.0 * wide.n_rings * wide.n_theta + ops.MaximisePlan(wide, 1).slice_bytes)
    points = float(np.prod(direct_grid(box, problem.last_radius).shape))
    early = float(np.prod(direct_grid(box, first.insert_radius).shape))
    spectrum = 8 * float(np.prod(ops.Grid(box, max_radius=problem.last_radius).shape))
    sums = 24 * 2 * classes
    always = _BASE_BYTES + images + models
    return {
        "grid": always + per_batch + slices + sums * early,
        "poses": always + per_batch + sums * points + 3 * spectrum * classes,
        "reconstruction": always + (sums + _SOLVE_BYTES) * points,
    }


# Of one grid point while a map is solved: the reciprocal weights and the padded transform, or the symmetrised sums.
_SOLVE_BYTES = 28


def plan_memory(problem: Problem, limit_GB: float, *, cached: bool) -> MemoryPlan:
    """Choose the batch so that no phase passes the limit.

    Parameters
    ----------
    problem : Problem
    limit_GB : float
        Memory the process may take.
    cached : bool
        Whether all images are in memory.

    Returns
    -------
    MemoryPlan

    Raises
    ------
    InputError
        Even with the smallest batch the limit would be passed.
    """

    def made(batch: int) -> MemoryPlan:
        phases = {name: size / 1e9 for name, size in _phases(problem, batch, cached).items()}
        return MemoryPlan(phases, limit_GB, batch, cached)

    batch = problem.batch
    while made(batch).peak_GB > limit_GB and batch > _LEAST_BATCH:
        batch = max(_LEAST_BATCH, batch // 2)
    plan = made(batch)
    if plan.peak_GB > limit_GB:
        raise InputError(
            f"refine: a box of {problem.box} px and {problem.n_classes} classes need {plan.peak_GB:.2f} GB, allowed "
            f"are {limit_GB:.2f}; allow more (--memory), use a smaller box (verglas resample) or --max-resolution"
        )
    return plan


def with_plan(problem: Problem, plan: MemoryPlan) -> Problem:
    """The problem with the batch of a plan."""
    return replace(problem, batch=plan.batch)
