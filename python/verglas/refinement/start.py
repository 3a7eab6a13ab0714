"""Before the first iteration: particles that can be used, half sets, noise, the reference on the images' grey scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from verglas import filters, fourier, gridding, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.search.grid_step import DirectionGrid
from verglas.search.prepare import reference_power
from verglas.search.problem import ImageBatch, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray

_SCALE_IMAGES = 128
_LEAST_NOISE = 0.1  # of the power of a shell
_INVERTED = 1.2  # correlation with minus the map, on that with the map, that is no accident


def make_problem(
    particles: Particles,
    excluded: dict[int, str],
    settings: RefineSettings,
    *,
    n_classes: int = 1,
    mask_given: bool = False,
) -> RefineProblem:
    """The particles that can be used, as a problem."""
    return RefineProblem.of(
        particles,
        excluded,
        job="refine",
        seed=settings.seed,
        settings=settings,
        n_classes=n_classes,
        mask_given=mask_given,
    )


def low_passed(problem: RefineProblem, references: list[Map]) -> npt.NDArray[np.float32]:
    """References at the initial resolution, inside the sphere, (classes, N, N, N)."""
    made = []
    for reference in references:
        gain = filters.low_pass(problem.settings.initial_resolution_A)
        coarse = filters.apply(Map(reference.data, problem.pixel_size_A), gain, threads=problem.threads)
        made.append(coarse.data * problem.sphere)
    if len(made) == 1:
        made = made * problem.settings.classes
    return np.stack(made).astype(np.float32)


def mean_slice_power(problem: RefineProblem, volume: npt.NDArray[np.float32]) -> FloatArray:
    """Mean power per shell of CTF-modulated slices of a map over all directions."""
    grid = ops.Grid(problem.box)
    return reference_power(gridding.to_grid(volume, grid, threads=problem.threads), grid, problem.particles)


def first_noise(
    problem: RefineProblem, power: npt.NDArray[np.float32], signal: FloatArray, rows: npt.NDArray
) -> FloatArray:
    """sigma^2 per group and shell of these particles: mean power of the images less the reference's share of it."""
    groups = problem.n_groups
    if problem.correlation:
        return np.ones((groups, power.shape[1]))
    sigma2 = np.empty((groups, power.shape[1]))
    everywhere = power[rows].mean(axis=0, dtype=np.float64)
    for g in range(groups):
        members = rows[problem.group[rows] == g]
        mean = power[members].mean(axis=0, dtype=np.float64) if len(members) else everywhere
        sigma2[g] = np.maximum(mean - signal, _LEAST_NOISE * mean)
    if not np.all(sigma2[:, 1:] > 0):
        raise InputError("refine: the images have no power at some resolution (all zero?); nothing can be refined")
    sigma2[:, 0] = sigma2[:, 1]
    return sigma2


def match_grey_scale(problem: RefineProblem, volume: npt.NDArray[np.float32], step: Step) -> float:
    """Factor that puts a map on the images' grey scale, from a scale-free search of some of them.

    L at scale s is s cross - s^2 power / 2: its values at scales 1 and 2 give cross and power at the pose of the
    largest correlation coefficient.
    """
    if problem.device != "cpu":  # a few images, once: on the host whatever the device
        problem = replace(problem, devices=("cpu",), batch=0)
    rows = np.arange(len(problem))[:: max(1, len(problem) // _SCALE_IMAGES)]
    shells = (problem.box - 1) // 2 + 1
    flat = HalfModel(
        volume[None],
        np.ones((problem.n_groups, shells)),
        np.ones(problem.n_micrographs),
        np.ones(1),
    )
    directions = DirectionGrid(step.order, problem.symmetry)
    polar = ops.PolarGrid(problem.box, step.radius, diameter_px=problem.diameter_px)
    grid = ops.Grid(problem.box, max_radius=step.radius)
    spectrum = gridding.to_grid(volume, grid, threads=problem.threads)
    slices = ops.polar_slices(spectrum, grid, directions.matrices, polar)
    upright, inverted = (ops.ScorePlan(polar, step.n_psi, score="correlation") for _ in range(2))
    upright.set_reference(slices, log_prior=directions.log_prior)
    inverted.set_reference(-slices, log_prior=directions.log_prior)
    total = np.zeros(4)
    for batch in image_batches(problem, rows, flat, PoseTable.unknown(len(problem))):
        total += _cross_and_power(problem, batch, (upright, inverted), (spectrum, grid, polar, directions), step)
    cross, power, best, best_inverted = total
    if not power > 0:
        raise InputError("refine: the reference is empty (all zero) at the initial resolution")
    if not cross > 0 or best_inverted > _INVERTED * best:
        raise InputError(
            f"refine: the images resemble the inverted reference (mean correlation {best_inverted / len(rows):.3f}) "
            f"more than the reference ({best / len(rows):.3f}); particles must be white: multiply the images or the "
            "map by -1"
        )
    return cross / power


def _cross_and_power(
    problem: RefineProblem, batch: ImageBatch, plans: tuple[ops.ScorePlan, ops.ScorePlan], reference: tuple, step: Step
) -> FloatArray:
    """Sums over the images: cross and power at the best pose, best correlation with the map and with minus the map."""
    spectrum, grid, polar, directions = reference
    shifts = step.shifts_px()
    samples = ops.polar(batch.centred(problem.image_mask), polar)
    found, against = (
        plan.run(
            samples,
            shifts,
            ctf=batch.params,
            pixel_size_A=problem.pixel_size_A,
            first_particle=int(batch.rows[0]),
            threads=problem.threads,
        )
        for plan in plans
    )
    angles = directions.angles_deg(
        found.best_slice, found.best_opposite, ops.psi_angles_deg(step.n_psi)[found.best_psi]
    )
    once, twice = (
        float(
            ops.refine_pose(
                fourier.forward(batch.images, 2),
                spectrum,
                grid,
                euler_to_matrix(angles),
                -shifts[found.best_shift],
                ctf=ops.ctf(batch.params, problem.box, problem.pixel_size_A),
                scale=np.full(len(batch), factor),
                search=ops.PoseSettings(max_radius=step.radius, steps=0),
                threads=problem.threads,
            ).scores.sum()
        )
        for factor in (1.0, 2.0)
    )
    power = 2 * once - twice
    return np.array([once + power / 2, power, found.best_score.sum(), against.best_score.sum()], np.float64)
