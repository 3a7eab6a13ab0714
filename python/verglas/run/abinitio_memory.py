"""How much memory a first map will take, before it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas import ops
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.geometry import unit_pixels
from verglas.image.particles import RESAMPLING_BYTES
from verglas.initial_model.batch_step import LIMITS
from verglas.initial_model.centre import centring_step
from verglas.initial_model.course import Course
from verglas.initial_model.settings import AbInitioSettings
from verglas.reconstruction.accumulate import direct_grid
from verglas.run.refine_memory import LISTED_BYTES, PIXEL_BYTES, count_poses, thread_bytes
from verglas.search.grid_step import images_at_a_time, wide_diameter_px
from verglas.search.problem import Problem
from verglas.search.step import Step

# Measured in processes of their own (tests/test_memory_plan.py): the interpreter with its libraries; what a page takes
# while it is drawn, matplotlib included, at 96, 128 and 192 px.
_BASE_BYTES = 0.18e9
_PAGE_BYTES = 0.065e9
# Bytes per pixel of images of which evidence alone is asked for: as read, masked, their samples.
_EVIDENCE_PIXEL_BYTES = 20
_PAIRS = 2  # of sums: those of a mini-batch, and the running mean
_SUM_BYTES = 24
# Of a voxel at the particles' own box: the map, its transforms while the box is changed, and the copy that is drawn.
_FINAL_BYTES = 14
_MODELS = 6  # maps of a start that are there at once: before, after, halves, masked


@dataclass(frozen=True)
class InitialModelPlan:
    """Peak memory of each phase.

    Attributes
    ----------
    phases_GB : dict
        Phase -> peak resident memory in GB, everything included.
    limit_GB : float, optional
        Not to be passed.
    """

    phases_GB: dict[str, float]
    limit_GB: float | None = None

    @property
    def peak_GB(self) -> float:
        """The largest phase."""
        return max(self.phases_GB.values())

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {size:.2f}" for name, size in self.phases_GB.items())
        allowed = "" if self.limit_GB is None else f" of {self.limit_GB:.2f}"
        return f"memory: at most {self.peak_GB:.2f} GB{allowed} ({phases})"


def plan_memory(
    problem: Problem, settings: AbInitioSettings, box: int, limit_GB: float | None = None
) -> InitialModelPlan:
    """What the phases will take at their largest.

    Parameters
    ----------
    problem : Problem
        The particles to learn from at the working pixel size; no image is read.
    settings : AbInitioSettings
    box : int
        Side of the particles' own images.
    limit_GB : float, optional
        Most that may be taken.

    Raises
    ------
    InputError
        More than the limit would be taken.
    """
    course = Course(problem, settings, len(problem))
    steps = [course.step(radius) for radius in {course.first_radius, course.last_radius}]
    voxels = float(problem.box**3)
    images = 4.0 * len(problem) * problem.box**2
    models = 4 * voxels * settings.classes * (_MODELS + settings.starts)
    points = float(np.prod(direct_grid(problem.box, course.grid_radius).shape))
    sums = _SUM_BYTES * 2 * _PAIRS * settings.classes * points
    always = _BASE_BYTES + images + models
    own = float(box**3)
    phases = {
        "images": always + (RESAMPLING_BYTES if problem.box < box else 0.0),
        # One map, whatever the number of structures.
        "centring": always + _SUM_BYTES * 2 * points + _search_bytes(problem, centring_step(course), 1),
        "starts": always + sums + max(_search_bytes(problem, step, settings.classes) for step in steps),
        "maps": always + (_FINAL_BYTES + 4 * (settings.classes - 1)) * own,
        "page": always + _PAGE_BYTES + 4 * settings.classes * own,
    }
    plan = InitialModelPlan({name: size / 1e9 for name, size in phases.items()}, limit_GB)
    if limit_GB is not None and plan.peak_GB > limit_GB:
        largest = max(plan.phases_GB, key=lambda name: plan.phases_GB[name])
        raise InputError(
            f"abinitio: {len(problem)} particles at {problem.box} px, of {box}, need {plan.peak_GB:.2f} GB "
            f"({largest}), allowed are {limit_GB:.2f}; allow more (--memory), learn from fewer (--most-particles), to "
            "a coarser --final-resolution, or scale the images down (verglas resample)"
        )
    return plan


def _search_bytes(problem: Problem, step: Step, classes: int) -> float:
    """Images of a batch, their lists where posteriors are broad, slices of the references, sums, what threads hold."""
    listed = images_at_a_time(problem, step, LIMITS, classes)
    searched = replace(problem, batch=min(listed, len(problem)))
    lists = LISTED_BYTES * searched.batch * min(LIMITS.max_candidates, classes * count_poses(problem, step))
    wide = ops.PolarGrid(problem.box, step.insert_radius, diameter_px=wide_diameter_px(problem, step))
    directions = len(unit_pixels(step.order, problem.symmetry))
    # Sums of slices are of both halves of a mini-batch.
    slices = classes * directions * (4.0 * wide.n_rings * wide.n_theta + 2 * ops.MaximisePlan(wide, 1).slice_bytes)
    pixels = float(PIXEL_BYTES * searched.batch * problem.box**2)
    # Where evidence alone is asked for there are no lists, and batches are longer.
    alone = float(_EVIDENCE_PIXEL_BYTES * min(problem.batch, len(problem)) * problem.box**2)
    return max(pixels + lists, alone) + slices + resolve_threads(problem.threads) * thread_bytes(problem, step)
