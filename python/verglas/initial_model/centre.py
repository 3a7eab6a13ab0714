"""Centres of particles before anything is known of them: against a round map that is learned from the same images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verglas.initial_model.batch_step import EVIDENCE_ALONE, BatchStep
from verglas.initial_model.course import Course
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import random_map, update_model
from verglas.map_geometry.sphere import spherical_average
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import FloatArray
from verglas.types.listener import Progress, count_phase

_PASSES = 4
_LEARNED_FROM = 3000
_RANGE = 2.5  # of the shifts searched later: neighbours lie beyond


def centring_step(course: Course) -> Step:
    """What a pass searches: far shifts, and few directions, since the map is round."""
    radius = min(course.first_radius + 2, course.last_radius)
    reach = _RANGE * course.settings.shift_range_A / course.problem.pixel_size_A
    return Step("grid", radius, min(course.grid_radius, radius + 3), 0, 16, 1.0, max(reach, 1.0))


def centre_particles(
    problem: Problem,
    settings: AbInitioSettings,
    sigma2: FloatArray,
    progress: Progress | None = None,
) -> Problem:
    """The problem with every particle's shift against a round map, which later searches start from.

    A few passes of expectation-maximisation over shifts alone, the map replaced by its spherical average after each.

    Parameters
    ----------
    problem : Problem
    settings : AbInitioSettings
    sigma2 : (groups, shells) float64
        First noise: the power of the images.
    progress : callable, optional
        Called with the phase, images centred, in all, counted once in every pass.
    """
    rng = np.random.default_rng((settings.seed, 2**34))
    rows = np.sort(rng.permutation(len(problem))[:_LEARNED_FROM])
    course = Course(problem, settings, len(problem))
    step = centring_step(course)
    # Round from the first pass on: a map with a shape would draw particles to wherever it looks like them.
    first = spherical_average(random_map(problem, rows[:: max(1, len(rows) // 400)], settings, settings.seed))
    model = HalfModel(first[None], sigma2.copy(), np.ones(problem.n_micrographs), np.ones(1))
    poses = PoseTable.unknown(len(problem))
    tick = count_phase(progress, "centring", _PASSES * len(rows) + len(problem))
    for _ in range(_PASSES):
        new_model, _ = update_model(
            problem, model, BatchStep(problem, model, step, course.grid_radius).sums(rows, poses, tick)
        )
        model = replace(new_model, volumes=spherical_average(new_model.volumes[0] * problem.sphere)[None])
    BatchStep(problem, model, step, course.grid_radius, EVIDENCE_ALONE).evaluate(np.arange(len(problem)), poses, tick)
    return replace(problem, first_origin_px=poses.origin_px)
