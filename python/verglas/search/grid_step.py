"""Expectation-maximisation over a whole grid of poses: the posterior of every image, and the sums it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import gridding, ops
from verglas._array_module import all_to_host, array_module, to_host
from verglas._devices import to_device
from verglas.geometry import euler_to_matrix, healpix_directions, unit_pixels
from verglas.reconstruction.accumulate import direct_grid
from verglas.search.cells import slices_of_pixels
from verglas.search.problem import ImageBatch, Problem, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import FloatArray, IntArray

Tick = Callable[[int], None]

# Even harmonics of C^2 along a ring that the astigmatism of real microscopes makes (a few hundred angstrom).
_N_POWER = 5
MOST_CANDIDATES = 1 << 15


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
        made, opposite = slices_of_pixels(self.order, pixels)
        slices, row = np.unique(made, return_inverse=True)
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
        for name in ("squared", "coefficients", "cross", "power", "mass"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ratio[rows] = other.ratio[rows]

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
        np.add.at(self.squared, group, squared)
        np.add.at(self.coefficients, group, np.broadcast_to(coefficients, squared.shape))
        np.add.at(self.cross, micrograph, (cross * inv).sum(axis=1))
        np.add.at(self.power, micrograph, (power * inv).sum(axis=1))
        self.ratio[batch.rows] = (squared * inv).sum(axis=1) / np.broadcast_to(coefficients, squared.shape).sum(axis=1)


@dataclass
class HalfSums:
    """What one pass over a half set gives.

    Attributes
    ----------
    grids : list of GridSums
        One per class, not folded.
    totals : Totals
    """

    grids: list[ops.GridSums]
    totals: Totals

    def add(self, other: HalfSums, rows: IntArray) -> None:
        """Add what another device made of these rows of the half set; its sums are brought over, one at a time."""
        for mine in self.grids:
            theirs = other.grids.pop(0)
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


class GridStep:
    """One iteration of expectation-maximisation on a grid, for one half set.

    Parameters
    ----------
    problem : Problem
    model : HalfModel
        References and noise.
    mask : (N, N, N) float32
        Of the references.
    step : Step
    """

    def __init__(self, problem: Problem, model: HalfModel, mask: npt.NDArray, step: Step) -> None:
        self.problem, self.model, self.step, self.threads = problem, model, step, problem.threads
        box, device = problem.box, problem.device
        self.where: dict[str, Any] = {"device": device, "threads": self.threads}
        self.directions = DirectionGrid(step.order, problem.symmetry)
        self.narrow = ops.PolarGrid(box, step.radius, diameter_px=problem.diameter_px)
        self.wide = ops.PolarGrid(box, step.insert_radius, diameter_px=wide_diameter_px(problem, step))
        self.shifts = step.shifts_px()
        spectra, grid = spectra_of(problem, model, mask, step.insert_radius)

        def slices(polar: ops.PolarGrid, some: list) -> npt.NDArray:
            made = [ops.polar_slices(s, grid, self.directions.matrices, polar, **self.where) for s in some]
            return joined_slices(made)

        self.search = ops.ScorePlan(
            self.narrow, step.n_psi, n_power=_N_POWER, max_candidates=MOST_CANDIDATES, device=device
        )
        searched = spectra[:1] if step.split else spectra
        prior = class_prior(self.directions.log_prior, np.ones(1) if step.split else model.class_weight)
        self.search.set_reference(slices(self.narrow, searched), log_prior=prior, threads=self.threads)
        self.plan = ops.MaximisePlan(self.wide, len(spectra) * len(self.directions), n_power=_N_POWER, device=device)
        self.plan.set_reference(slices(self.wide, spectra), threads=self.threads)

    def run(self, half: int, poses: PoseTable, tick: Tick, rows: IntArray | None = None) -> HalfSums:
        """E-step and sums; ``poses`` of this half, or of these rows of it, are replaced."""
        problem, classes = self.problem, len(self.model.volumes)
        totals = Totals.zeros(problem, classes)
        chosen = problem.rows_of_half(half) if rows is None else rows
        for batch in image_batches(problem, chosen, self.model, poses):
            found = self.search.run(
                ops.polar(batch.centred(problem.image_mask), self.narrow, **self.where),
                self.shifts,
                ctf=batch.params,
                pixel_size_A=problem.pixel_size_A,
                inv_sigma2=batch.inv_sigma2[:, self.narrow.shells],
                log_shift=self.step.log_shift(),
                first_particle=int(batch.rows[0]),
                threads=self.threads,
            )
            posterior = ops.Posterior.from_scores(found, self.step.n_psi)
            if self.step.split:
                drawn = poses.class_number[batch.rows][posterior.image]
                posterior = replace(posterior, slice=(posterior.slice + len(self.directions) * drawn).astype(np.int32))
            residuals = self.plan.add(
                ops.polar(batch.images, self.wide, **self.where),
                posterior,
                self.shifts,
                ctf=batch.params,
                pixel_size_A=problem.pixel_size_A,
                inv_sigma2=batch.inv_sigma2[:, self.wide.shells],
                centres_px=batch.centre_px.astype(np.float32),
                first_particle=int(batch.rows[0]),
                threads=self.threads,
            )
            assert residuals is not None
            self._learn(batch, found, posterior, all_to_host(residuals), poses, totals)
            tick(len(batch))
        return HalfSums(self._sums(), totals)

    def _learn(
        self,
        batch: ImageBatch,
        found: ops.Scores,
        posterior: ops.Posterior,
        residuals: ops.Residuals,
        poses: PoseTable,
        totals: Totals,
    ) -> None:
        rows, n = batch.rows, len(self.directions)
        poses.angles_deg[rows] = self.directions.angles_deg(
            found.best_slice % n, found.best_opposite, ops.psi_angles_deg(self.step.n_psi)[found.best_psi]
        )
        poses.origin_px[rows] = batch.centre_px + self.shifts[found.best_shift]
        if not self.step.split:
            poses.class_number[rows] = found.best_slice // n
        poses.log_evidence[rows] = found.log_evidence
        poses.max_probability[rows] = np.exp(found.best_score - found.log_evidence)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nan_to_num(posterior.weight * np.log(posterior.weight))
        poses.effective_poses[rows] = np.exp(np.bincount(posterior.image, entropy, minlength=len(batch)))
        totals.mass += np.bincount(posterior.slice // n, posterior.weight, minlength=len(totals.mass))
        shells = len(self.model.sigma2[0])
        radius = self.step.insert_radius + 1

        def by_shell(values: FloatArray) -> FloatArray:
            out = np.zeros((len(batch), shells))
            out[:, 1:radius] = values
            return out

        coefficients = np.zeros(shells)
        coefficients[1:radius] = 2 * np.pi * self.wide.radii
        totals.add(
            self.problem,
            batch,
            by_shell(residuals.squared),
            coefficients,
            by_shell(residuals.cross),
            by_shell(residuals.power),
        )

    def _sums(self) -> list[ops.GridSums]:
        n = len(self.directions)
        made = []
        for k in range(len(self.model.volumes)):
            sums = empty_sums(self.problem, self.step)
            for coset in self.problem.operators.cosets:
                self.plan.insert(sums, self.directions.matrices @ coset, first=k * n, threads=self.threads)
            made.append(sums)
        return made
