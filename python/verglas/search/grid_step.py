"""Expectation-maximisation over a whole grid of poses: the posterior of every image, and the sums it gives."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from verglas import gridding, ops
from verglas._array_module import array_module, to_host
from verglas._devices import to_device
from verglas._native import resolve_threads
from verglas.geometry import euler_to_matrix, healpix_directions, unit_pixels
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.packed_sums import PackedSums
from verglas.search.cells import slices_of_pixels
from verglas.search.grid_search import GridSearch, SliceSums
from verglas.search.image_batch import ImageBatch
from verglas.search.problem import Problem, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import FloatArray, IntArray

Tick = Callable[[int], None]


def ignore_count(_: int) -> None:
    """A tick that nobody hears."""


MOST_CANDIDATES = 1 << 15
# Candidates of the images searched at a time, if every list is full: 80 MB of lists, posteriors and what they pass
# through (bench/bench_memory.py). The first iterations of small boxes come close to that.
_LIST_ROOM = 1 << 20
_LEAST_PER_THREAD = 16  # images that a thread searches together


@dataclass(frozen=True)
class DirectionGrid:
    """Directions of a HEALPix grid in the asymmetric unit, and the slices that serve them and their opposites.

    Attributes
    ----------
    order : int
        Of the grid.
    symmetry : str
        Point group.
    """

    order: int
    symmetry: str

    @cached_property
    def _layout(self) -> tuple[FloatArray, FloatArray]:
        pixels = unit_pixels(self.order, self.symmetry)
        pixels_made, opposite = slices_of_pixels(self.order, pixels)
        slices, row = np.unique(pixels_made, return_inverse=True)
        # A direction and its opposite share one slice; -inf marks the column that the asymmetric unit does not hold, so
        # that no pose counts twice.
        log_prior = np.full((len(slices), 2), -np.inf)
        log_prior[row, opposite.astype(int)] = -np.log(len(pixels))
        return healpix_directions(self.order, slices), log_prior

    @property
    def directions_deg(self) -> FloatArray:
        """(slices, 2) rot, tilt of the slices made."""
        return self._layout[0]

    @property
    def log_prior(self) -> FloatArray:
        """(slices, 2) of each slice and of its opposite."""
        return self._layout[1]

    @cached_property
    def matrices(self) -> FloatArray:
        """(slices, 3, 3) rotations at psi = 0."""
        d = self.directions_deg
        return euler_to_matrix(np.column_stack([d, np.zeros(len(d))]))

    def __len__(self) -> int:
        return len(self.directions_deg)

    def angles_deg(self, slices: npt.ArrayLike, opposite: npt.NDArray, psi_deg: npt.NDArray) -> FloatArray:
        """(n, 3) rot, tilt, psi of entries of a search."""
        rot, tilt = self.directions_deg[np.asarray(slices)].T
        return np.column_stack([np.where(opposite, rot + 180, rot), np.where(opposite, 180 - tilt, tilt), psi_deg])


def class_prior(log_prior: FloatArray, class_weight: FloatArray) -> FloatArray:
    """Log priors of the directions of all classes, end to end."""
    with np.errstate(divide="ignore"):
        return np.concatenate([log_prior + w for w in np.log(class_weight)])


@dataclass
class Totals:
    """Sums over the particles of a half set that give the next noise spectra, scales and class weights.

    Attributes
    ----------
    squared, coefficients : (groups, shells) float64
        Squared residuals, and how many coefficients they come from.
    cross, power : (micrographs,) float64
        Weighted by 1 / sigma^2: their ratio is the grey scale on the present one.
    mass : (classes,) float64
        Posterior in each class.
    ratio : (n,) float64
        Residual of each particle on what the noise of its group leads one to expect; 1 for the other half set.
    """

    squared: FloatArray
    coefficients: FloatArray
    cross: FloatArray
    power: FloatArray
    mass: FloatArray
    ratio: FloatArray

    @classmethod
    def zeros(cls, problem: Problem, classes: int) -> Totals:
        """Empty sums."""
        groups, micrographs = problem.n_groups, problem.n_micrographs
        shape = (groups, (problem.box - 1) // 2 + 1)
        return cls(
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(micrographs),
            np.zeros(micrographs),
            np.zeros(classes),
            np.ones(len(problem)),
        )

    def merge(self, other: Totals, rows: IntArray) -> None:
        """Add the sums of these rows, made elsewhere."""
        self._add_sums(other)
        self.ratio[rows] = other.ratio[rows]

    def concatenate(self, other: Totals) -> Totals:
        """Sums of both, of particles that follow one another."""
        both = replace(self, ratio=np.concatenate([self.ratio, other.ratio]))
        both._add_sums(other)
        return both

    def _add_sums(self, other: Totals) -> None:
        for name in ("squared", "coefficients", "cross", "power", "mass"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def add(
        self,
        problem: Problem,
        batch: ImageBatch,
        squared: FloatArray,
        coefficients: FloatArray,
        cross: FloatArray,
        power: FloatArray,
    ) -> None:
        """Add images; ``squared`` (m, shells), ``cross`` and ``power`` (m, shells) of the slice on its grey scale."""
        group, micrograph = problem.group[batch.rows], problem.micrograph[batch.rows]
        inv = batch.inv_sigma2.astype(np.float64)
        # add.at, not fancy indexing: a group occurs many times in a batch, and each time counts
        np.add.at(self.squared, group, squared)
        np.add.at(self.coefficients, group, np.broadcast_to(coefficients, squared.shape))
        np.add.at(self.cross, micrograph, (cross * inv).sum(axis=1))
        np.add.at(self.power, micrograph, (power * inv).sum(axis=1))
        self.ratio[batch.rows] = (squared * inv).sum(axis=1) / np.broadcast_to(coefficients, squared.shape).sum(axis=1)


Sums = TypeVar("Sums", ops.GridSums, PackedSums)


@dataclass
class HalfSums(Generic[Sums]):
    """What one pass over a half set gives.

    Attributes
    ----------
    grids : list of GridSums or PackedSums
        One per class, not folded; packed where they wait for others.
    totals : Totals
    """

    grids: list[Sums]
    totals: Totals

    def add(self, other: HalfSums[ops.GridSums], rows: IntArray) -> None:
        """Add what another device made of these rows of the half set; its sums are brought over, one at a time."""
        for mine in self.grids:
            theirs = other.grids.pop(0)
            # popped one by one: two devices' sums of every class at once may not fit
            for total, part in ((mine.values, theirs.values), (mine.weights, theirs.weights)):
                assert total is not None
                total += array_module(total).asarray(to_host(part))
        self.totals.merge(other.totals, rows)


def spectra_of(problem: Problem, model: HalfModel, mask: npt.NDArray, radius: int) -> tuple[list, ops.Grid]:
    """Gridded transforms of the masked references of a half, to this radius, on the problem's device."""
    grid = ops.Grid(problem.box, max_radius=radius)
    threads, device = problem.threads, problem.device
    return [gridding.to_grid(to_device(v * mask, device), grid, threads=threads) for v in model.volumes], grid


def joined_slices(parts: list) -> npt.NDArray:
    """Slices of all references end to end."""
    return array_module(*parts).concatenate(parts)


def empty_sums(problem: Problem, step: Step) -> ops.GridSums:
    """Sums of one class, on the problem's device."""
    return ops.GridSums.zeros(direct_grid(problem.box, step.insert_radius), device=problem.device)


def wide_diameter_px(problem: Problem, step: Step) -> float:
    """Diameter that the M-step's harmonics hold: the particle wherever the search may find it, and half again."""
    return min(float(problem.box), 1.25 * problem.diameter_px + 2 * step.shift_range_px)


@dataclass(frozen=True)
class GridLimits:
    """What a posterior over a grid may leave out.

    Attributes
    ----------
    n_power : int
        Even harmonics of C^2 along a ring; 5 hold the astigmatism of real microscopes (a few hundred angstrom).
    max_candidates : int
        Of one image.
    epsilon : float
        Posterior mass that the candidates may lack.
    """

    n_power: int = 5
    max_candidates: int = MOST_CANDIDATES
    epsilon: float = 1e-3


def images_at_a_time(problem: Problem, step: Step, limits: GridLimits, references: int = 1) -> int:
    """Images of a batch of a search over a grid: fewer than elsewhere where their lists of candidates may be long.

    Results do not depend on it. On a GPU the lists are planned with the batch.
    """
    if problem.device != "cpu":
        return problem.batch
    directions = len(unit_pixels(step.order, problem.symmetry))
    poses = references * directions * step.n_psi * len(step.shifts_px())
    room = _LIST_ROOM // min(limits.max_candidates, poses)
    return min(problem.batch, max(room, _LEAST_PER_THREAD * resolve_threads(problem.threads)))


class GridStep:
    """Posteriors of images over a grid of poses against the maps of a model, and the sums they give, on a device.

    Parameters
    ----------
    problem : Problem
    model : HalfModel
        References and noise.
    mask : (N, N, N) float32
        Of the references.
    step : Step
    limits : GridLimits, optional
    """

    def __init__(
        self, problem: Problem, model: HalfModel, mask: npt.NDArray, step: Step, limits: GridLimits | None = None
    ) -> None:
        limits = limits or GridLimits()
        problem = replace(problem, batch=images_at_a_time(problem, step, limits, len(model.volumes)))
        self.problem, self.model, self.step, self.limits = problem, model, step, limits
        self.where = problem.where
        self.directions = DirectionGrid(step.order, problem.symmetry)
        self.narrow = ops.PolarGrid(problem.box, step.radius, diameter_px=problem.diameter_px)
        self.wide = ops.PolarGrid(problem.box, step.insert_radius, diameter_px=wide_diameter_px(problem, step))
        self.poses = step.poses()
        self.shifts = self.poses.shifts_px
        # One transform to the larger of both radii serves the search and the sums.
        self.spectra, self._grid = spectra_of(problem, model, mask, step.insert_radius)
        self.search = GridSearch(
            self.narrow,
            self.poses,
            self.where,
            n_power=limits.n_power,
            max_candidates=limits.max_candidates,
            epsilon=limits.epsilon,
        )
        # While all classes are one map, searching each would only draw the same posterior K times.
        n_searches, weight = (1, np.ones(1)) if step.split else (len(self.spectra), model.class_weight)
        prior = class_prior(self.directions.log_prior, weight)
        self.search.set_reference(self.slices(self.narrow, n_searches), prior)

    def on(self, problem: Problem) -> GridStep:
        """The same references for other particles; what was made of them is shared."""
        other = copy(self)
        other.problem = replace(problem, batch=self.problem.batch)
        return other

    def slices(self, polar: ops.PolarGrid, classes: int | None = None) -> npt.NDArray:
        """Slices of the first so many classes, or of all, end to end."""
        return joined_slices(
            [
                ops.polar_slices(s, self._grid, self.directions.matrices, polar, **self.where.of_ops)
                for s in self.spectra[:classes]
            ]
        )

    def slice_sums(self, sets: int = 1) -> SliceSums:
        """Empty sums of all slices of all classes, so many times over."""
        n_slices = sets * len(self.spectra) * len(self.directions)
        sums = SliceSums(self.wide, n_slices, self.poses, self.where, n_power=self.limits.n_power)
        slices = self.slices(self.wide)
        sums.set_reference(slices if sets == 1 else joined_slices([slices] * sets))
        return sums

    def score(self, batch: ImageBatch) -> ops.Scores:
        """Search a batch."""
        samples = ops.polar(batch.centre_images(self.problem.image_mask), self.narrow, **self.where.of_ops)
        return self.search.run(batch.on_rings(samples, self.narrow))

    def add(self, sums: SliceSums, batch: ImageBatch, posterior: ops.Posterior) -> ops.Residuals:
        """Add a batch to the sums; its residuals."""
        # Whole images, not the masked ones of the search: a mask would colour the noise that is learned here.
        samples = ops.polar(batch.images, self.wide, **self.where.of_ops)
        return sums.add_measured(batch.on_rings(samples, self.wide, centres=True), posterior)

    def learn_poses(self, batch: ImageBatch, scores: ops.Scores, poses: PoseTable) -> None:
        """Best pose, class and evidence of each image of a batch."""
        rows, n = batch.rows, len(self.directions)
        poses.angles_deg[rows] = self.directions.angles_deg(
            scores.best_slice % n, scores.best_opposite, self.poses.psi_deg(scores.best_psi)
        )
        # The whole-pixel centre that the search was given, not the former shift: the difference was never searched.
        poses.origin_px[rows] = batch.centre_px + self.shifts[scores.best_shift]
        if not self.step.split:
            poses.class_number[rows] = scores.best_slice // n
        poses.log_evidence[rows] = scores.log_evidence
        poses.max_probability[rows] = np.exp(scores.best_score - scores.log_evidence)

    def run(self, half: int, poses: PoseTable, tick: Tick, rows: IntArray | None = None) -> HalfSums[ops.GridSums]:
        """E-step and sums of a half set; ``poses`` of it, or of these rows of it, are replaced."""
        problem, classes = self.problem, len(self.model.volumes)
        totals = Totals.zeros(problem, classes)
        sums = self.slice_sums()
        all_rows = problem.rows_of_half(half) if rows is None else rows
        for batch in image_batches(problem, all_rows, self.model, poses):
            with problem.naming(batch.rows):
                scores = self.score(batch)
                posterior = self.search.posterior(scores)
                if self.step.split:
                    class_of_entry = poses.class_number[batch.rows][posterior.image]
                    posterior = replace(
                        posterior, slice=(posterior.slice + len(self.directions) * class_of_entry).astype(np.int32)
                    )
                residuals = self.add(sums, batch, posterior)
                self.learn_poses(batch, scores, poses)
                self._learn(batch, posterior, residuals, poses, totals)
            tick(len(batch))
        return HalfSums([self.grid_sums(sums, k, empty_sums(problem, self.step)) for k in range(classes)], totals)

    def _learn(
        self,
        batch: ImageBatch,
        posterior: ops.Posterior,
        residuals: ops.Residuals,
        poses: PoseTable,
        totals: Totals,
    ) -> None:
        """Width of each posterior, and what the next noise, scales and class weights are made from."""
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nan_to_num(posterior.weight * np.log(posterior.weight))
        poses.effective_poses[batch.rows] = np.exp(np.bincount(posterior.image, entropy, minlength=len(batch)))
        n = len(self.directions)
        np.add.at(totals.mass, posterior.slice // n, posterior.weight)  # one by one: the same in any batches
        shells = len(self.model.sigma2[0])
        radius = self.step.insert_radius + 1

        def by_shell(values: FloatArray) -> FloatArray:
            out = np.zeros((len(batch), shells))
            out[:, 1:radius] = values
            return out

        coefficients = np.zeros(shells)
        # Rings are sampled along their circumference: a ring stands for 2 pi r coefficients, however many samples it
        # has.
        coefficients[1:radius] = 2 * np.pi * self.wide.radii
        totals.add(
            self.problem,
            batch,
            by_shell(residuals.squared),
            coefficients,
            by_shell(residuals.cross),
            by_shell(residuals.power),
        )

    def grid_sums(self, sums: SliceSums, number: int, into: ops.GridSums) -> ops.GridSums:
        """The slices of one set of sums and class (``number`` counts classes, then sets) inserted into a map's."""
        for coset in self.problem.operators.cosets:
            sums.insert(into, self.directions.matrices @ coset, first=number * len(self.directions))
        return into
