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
from verglas.search import noise
from verglas.search.grey_scale import INVERTED, CrossPower, cross_and_power
from verglas.search.grid_search import GridSearch
from verglas.search.grid_step import DirectionGrid
from verglas.search.image_batch import ImageBatch
from verglas.search.noise import mean_power
from verglas.search.prepare import reference_power
from verglas.search.problem import image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray

_EMPTY = "refine: the reference is empty (all zero) at the initial resolution"
_SCALE_IMAGES = 128


def make_problem(
    particles: Particles,
    excluded: dict[int, str],
    settings: RefineSettings,
    *,
    n_classes: int = 1,
    mask_given: bool = False,
    threads: int | None = None,
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
        threads=threads,
    )


def low_pass_references(problem: RefineProblem, references: list[Map]) -> npt.NDArray[np.float32]:
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
    return noise.first_noise(mean_power(power[rows], problem.group[rows], groups), signal, job="refine")


def match_grey_scale(problem: RefineProblem, volume: npt.NDArray[np.float32], step: Step) -> float:
    """Factor that puts a map on the images' grey scale, from a scale-free search of some of them."""
    # Asked first: poses that all score alike are all kept, and searched for a long time.
    if not volume.any():
        raise InputError(_EMPTY)
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
    matched = _Match(problem, volume, step)
    cross = power = best = best_inverted = 0.0
    for batch in image_batches(problem, rows, flat, PoseTable.unknown(len(problem))):
        scores, against = matched.search(batch)
        fit = matched.fit(batch, scores)
        cross, power = cross + fit.cross, power + fit.power
        best += float(scores.best_score.sum())
        best_inverted += float(against.best_score.sum())
    if not power > 0:
        raise InputError(_EMPTY)
    if not cross > 0 or best_inverted > INVERTED * best:
        raise InputError(
            f"refine: the images resemble the inverted reference (mean correlation {best_inverted / len(rows):.3f}) "
            f"more than the reference ({best / len(rows):.3f}); particles must be white: multiply the images or the "
            "map by -1"
        )
    return cross / power


class _Match:
    """A scale-free search of a map and of minus the map, and the fit of its grey scale at the poses found."""

    def __init__(self, problem: RefineProblem, volume: npt.NDArray[np.float32], step: Step) -> None:
        self.problem, self.radius = problem, step.radius
        self.directions = DirectionGrid(step.order, problem.symmetry)
        self.polar = ops.PolarGrid(problem.box, step.radius, diameter_px=problem.diameter_px)
        self.grid = ops.Grid(problem.box, max_radius=step.radius)
        self.spectrum = gridding.to_grid(volume, self.grid, threads=problem.threads)
        slices = ops.polar_slices(self.spectrum, self.grid, self.directions.matrices, self.polar)
        self.poses = step.poses(shift_prior=False)
        self.upright, self.inverted = (
            GridSearch(self.polar, self.poses, problem.where, score="correlation") for _ in range(2)
        )
        self.upright.set_reference(slices, self.directions.log_prior)
        self.inverted.set_reference(-slices, self.directions.log_prior)

    def search(self, batch: ImageBatch) -> tuple[ops.Scores, ops.Scores]:
        """Best correlations with the map, and with minus the map."""
        samples = batch.on_rings(ops.polar(batch.centre_images(self.problem.image_mask), self.polar), self.polar)
        # All rings count alike: the noise is not known yet.
        samples = replace(samples, inv_sigma2=None)
        return self.upright.run(samples), self.inverted.run(samples)

    def fit(self, batch: ImageBatch, scores: ops.Scores) -> CrossPower[float]:
        """Cross and power at the best poses, summed over the images."""
        angles = self.directions.angles_deg(
            scores.best_slice, scores.best_opposite, self.poses.psi_deg(scores.best_psi)
        )

        def score_at(scale: float) -> float:
            refined = ops.refine_pose(
                fourier.forward(batch.images, 2),
                self.spectrum,
                self.grid,
                euler_to_matrix(angles),
                -self.poses.shifts_px[scores.best_shift],
                ctf=batch.ctf(),
                scale=np.full(len(batch), scale),
                search=ops.PoseSettings(max_radius=self.radius, steps=0),
                threads=self.problem.threads,
            )
            return float(refined.scores.sum())

        return cross_and_power(score_at)
