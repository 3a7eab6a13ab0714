"""Continuous refinement of poses: a global search supplies candidates, each climbs to its maximum, the best are kept.

The coarse search (:class:`verglas.ops.ScorePlan`) is exhaustive at the resolution its grid serves. Its distinct peaks,
and the pose of the iteration before, climb the exact likelihood (:func:`verglas.ops.refine_pose`) at rising radii;
after each radius only those are kept that can still win.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas._array_module import all_to_host, array_module, to_host
from verglas._devices import to_device
from verglas._native import resolve_threads
from verglas.geometry import euler_to_matrix, matrix_to_euler, symmetry_matrices
from verglas.reconstruction.ewald import SideBands, project_bands
from verglas.reconstruction.sums import Batch, add_batch
from verglas.search.candidates import Candidates, best_of_image, posterior, select_distinct, select_within
from verglas.search.grey_scale import cross_and_power
from verglas.search.grid_search import GridSearch
from verglas.search.grid_step import (
    DirectionGrid,
    HalfSums,
    Tick,
    Totals,
    class_prior,
    empty_sums,
    joined_slices,
    spectra_of,
)
from verglas.search.image_batch import ImageBatch
from verglas.search.problem import Problem, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step, step_radius
from verglas.types.arrays import FloatArray, IntArray

# Candidates kept after each radius, and the log-likelihood within which one may still overtake the best.
_KEPT = (4, 2)
_NATS = 30.0
_FINAL_NATS = 9.2  # a posterior of 1e-4
_LEAST_WEIGHT = 1e-3
_LEAST_SHIFT_PX = 2.0
CLIMBING_PIXELS = 1 << 20  # images whose poses climb together, 64 of 128 pixels
_LEAST_PER_THREAD = 8
_SINGULAR = 1e-9  # of a Fisher matrix: nothing is known of some direction
# A pose has converged when its steps turn no phase at the particle's edge by more than this, in radians.
_COARSE_PHASE, _FINAL_PHASE = 0.25, 0.05


@dataclass(frozen=True)
class _Spectra:
    """Transforms of a batch and their model: whole images, those without neighbours, CTFs, 1 / noise by shell, what
    curves their slices; whose images they are.
    """

    rows: IntArray
    images: npt.NDArray[np.complex64]
    seen: npt.NDArray[np.complex64]
    ctf: npt.NDArray
    shell_weight: npt.NDArray[np.float32]
    bands: SideBands | None = None


@dataclass(frozen=True)
class _Goal:
    """How far a climb goes: the last shell, and the phase at it (radians) that a converged step turns at most."""

    radius: int
    phase: float


class PoseStep:
    """One iteration of continuous refinement, for one half set.

    Parameters
    ----------
    problem : Problem
    model : HalfModel
        References and noise.
    mask : (N, N, N) float32
        Of the references.
    step : Step
    shift_sigma_px : float, optional
        Width of the prior of the shifts (:func:`shift_spread_px`); the step's range by default.
    """

    def __init__(
        self,
        problem: Problem,
        model: HalfModel,
        mask: npt.NDArray,
        step: Step,
        shift_sigma_px: float | None = None,
    ) -> None:
        problem = replace(problem, batch=poses_at_a_time(problem))
        self.problem, self.model, self.step, self.threads = problem, model, step, problem.threads
        self.where = problem.where
        self.spectra, self.grid = spectra_of(problem, model, mask, max(step.radius, step.insert_radius))
        self.correlation = problem.correlation
        self.group, self.operators = symmetry_matrices(problem.symmetry), problem.operators
        least = max(_LEAST_SHIFT_PX, step.shift_range_px)
        self.shift_sigma_px = least if shift_sigma_px is None else shift_sigma_px
        self.most_kept = _KEPT[0]
        with np.errstate(divide="ignore"):
            self.log_class = np.log(model.class_weight)
        if step.phase == "global":
            self._prepare_search()

    def on(self, problem: Problem) -> PoseStep:
        """The same references for other particles; what was made of them is shared."""
        other = copy(self)
        other.problem = replace(problem, batch=self.problem.batch)
        return other

    def _prepare_search(self) -> None:
        step = self.step
        self.directions = DirectionGrid(step.order, self.problem.symmetry)
        radius = min(step.radius, coarse_radius(self.problem, step.step_deg))
        self.polar = ops.PolarGrid(self.problem.box, radius, diameter_px=self.problem.diameter_px)
        self.search = GridSearch(
            self.polar,
            step.poses(shift_prior=False),
            self.where,
            score="correlation" if self.correlation else "likelihood",
            n_power=5,
            max_candidates=256,
        )
        where, matrices = self.where.of_ops, self.directions.matrices
        samples = [ops.polar_slices(s, self.grid, matrices, self.polar, **where) for s in self.spectra]
        prior = class_prior(self.directions.log_prior, self.model.class_weight)
        self.search.set_reference(joined_slices(samples), prior)

    # -- candidates ----------------------------------------------------------------------------------------------

    def _previous(self, batch: ImageBatch, poses: PoseTable) -> Candidates:
        """The poses of the iteration before, in every class."""
        rows, classes = batch.rows, len(self.spectra)
        image = np.repeat(np.arange(len(rows)), classes)
        return Candidates(
            image,
            euler_to_matrix(poses.angles_deg[rows])[image],
            poses.origin_px[rows][image],
            np.tile(np.arange(classes), len(rows)),
            np.zeros(len(image)),
        )

    def _find_peaks(self, batch: ImageBatch) -> Candidates:
        """Distinct peaks of the coarse search."""
        n = len(self.directions)
        samples = ops.polar(batch.centre_images(self.problem.image_mask), self.polar, **self.where.of_ops)
        posteriors = self.search.run(batch.on_rings(samples, self.polar))
        poses = self.search.poses
        angles = self.directions.angles_deg(posteriors.slice % n, posteriors.opposite, poses.psi_deg(posteriors.psi))
        image = posteriors.image
        all_of_them = Candidates(
            image,
            euler_to_matrix(angles),
            batch.centre_px[image] + poses.shifts_px[posteriors.shift],
            (posteriors.slice // n).astype(np.int64),
            posteriors.score.astype(np.float64),
        )
        return all_of_them[select_distinct(all_of_them, self.step.candidates, 1.5 * self.step.step_deg, self.group)]

    def _climb(
        self, candidates: Candidates, data: _Spectra, goal: _Goal, scale: FloatArray | None
    ) -> tuple[Candidates, FloatArray]:
        """Candidates at their maxima at a radius, to a phase; with the log evidence of each peak (Laplace).

        Beside them what is known of each pose: Fisher information, and that of a prior about given poses.
        """
        radius, phase = goal.radius, goal.phase
        per_px = 2 * np.pi * radius / self.problem.box
        search = ops.PoseSettings(
            max_radius=radius,
            steps=20,
            tolerance_px=phase / per_px,
            tolerance_deg=float(np.rad2deg(phase / (per_px * self.problem.diameter_px / 2))),
        )
        out = [np.empty_like(v) for v in (candidates.matrices, candidates.origin_px, candidates.score)]
        information = np.empty((len(candidates), 5, 5))
        precision, log_norm = self._prior_width()
        for k, spectrum in enumerate(self.spectra):
            mine = np.flatnonzero(candidates.class_number == k)
            if not len(mine):
                continue
            maxima = all_to_host(
                ops.refine_pose(
                    data.seen,
                    spectrum,
                    self.grid,
                    candidates.matrices[mine],
                    -candidates.origin_px[mine],
                    ctf=data.ctf,
                    shell_weight=data.shell_weight[:, : radius + 1].copy(),
                    scale=scale,
                    image_of_pose=candidates.image[mine],
                    prior=self._prior(data.rows[candidates.image[mine]]),
                    search=search,
                    **self.where.of_ops,
                )
            )
            out[0][mine], out[1][mine] = maxima.matrices, -maxima.shifts_px
            information[mine] = maxima.fisher + precision
            out[2][mine] = (
                maxima.scores + maxima.log_prior + log_norm + self.log_class[k] - _half_log_det(information[mine])
            )
        return Candidates(candidates.image, out[0], out[1], candidates.class_number, out[2]), information

    def _prior(self, rows: IntArray) -> ops.PosePrior:
        """About the poses that these particles were given, where that is asked for; else of the shifts alone."""
        problem, given = self.problem, self.problem.particles.poses
        shift_sigma_px, shifts_px, matrices = self.shift_sigma_px, np.zeros((len(rows), 2)), None
        if problem.prior_A is not None and given is not None:
            shift_sigma_px = problem.prior_A / problem.pixel_size_A
            shifts_px = -given.shifts_A[rows] / problem.pixel_size_A
        if problem.prior_deg is not None and given is not None:
            matrices = euler_to_matrix(given.angles_deg[rows])
        return ops.PosePrior(problem.prior_deg, shift_sigma_px, matrices, shifts_px)

    def _prior_width(self) -> tuple[FloatArray, float]:
        """Precision (5, 5) of a prior about given poses, rad and px, and the log of its density at its centre."""
        problem = self.problem
        precision = np.zeros(5)
        if problem.prior_deg is not None:
            precision[:3] = np.deg2rad(problem.prior_deg) ** -2.0
        if problem.prior_A is not None:
            precision[3:] = (problem.prior_A / problem.pixel_size_A) ** -2.0
        log_norm = 0.5 * float(np.log(precision[precision > 0] / (2 * np.pi)).sum())
        return np.diag(precision), log_norm

    def _radii(self) -> list[int]:
        """Radii to climb at: from one that the search grid serves to the last."""
        if self.step.phase == "local":
            return [self.step.radius]
        off_deg, off_px = 0.4 * self.step.step_deg, 0.4 * self.step.shift_step_px  # root mean square in a cell
        grid = ops.Grid(self.problem.box, max_radius=self.step.radius)
        coarse = ops.pose_radii(grid, off_deg, off_px, self.problem.diameter_px)
        return [*coarse, self.step.radius]

    def _candidates(self, batch: ImageBatch, poses: PoseTable, data: _Spectra) -> tuple[Candidates, FloatArray]:
        """Final candidates and what is known of their poses (:meth:`_climb`)."""
        previous = self._previous(batch, poses)
        now = previous
        if self.step.phase == "global":
            has_pose = np.isfinite(poses.log_evidence[batch.rows])[previous.image]
            now = Candidates.merge([self._find_peaks(batch), previous[has_pose]])
        scale = self._scale(now, data, len(batch)) if self.correlation else None
        radii = self._radii()
        for i, radius in enumerate(radii[:-1]):
            now, _ = self._climb(now, data, _Goal(radius, _COARSE_PHASE), scale)
            now = now[select_within(now, _KEPT[min(i, len(_KEPT) - 1)], _NATS)]
        now, fisher = self._climb(now, data, _Goal(radii[-1], _FINAL_PHASE), scale)
        candidates = select_within(now, self.most_kept, _FINAL_NATS)
        # The same peak may have been reached from two sides.
        candidates = candidates[
            select_distinct(now[candidates], self.most_kept, max(0.5, 0.1 * self.step.step_deg), self.group)
        ]
        return now[candidates], fisher[candidates]

    def _scale(self, candidates: Candidates, data: _Spectra, n: int) -> FloatArray:
        """Grey scale at which the first candidate of each image fits best: with it L grows with the correlation."""
        first = candidates[np.searchsorted(candidates.image, np.arange(n))]
        radius = min(self.step.radius, 16)

        def score_at(scale: float) -> FloatArray:
            value = np.zeros(n)
            for k, spectrum in enumerate(self.spectra):
                mine = np.flatnonzero(first.class_number == k)
                if len(mine):
                    value[mine] = to_host(
                        ops.refine_pose(
                            data.seen,
                            spectrum,
                            self.grid,
                            first.matrices[mine],
                            -first.origin_px[mine],
                            ctf=data.ctf,
                            shell_weight=data.shell_weight[:, : radius + 1].copy(),
                            scale=np.full(n, scale),
                            image_of_pose=mine,
                            search=ops.PoseSettings(max_radius=radius, steps=0),
                            **self.where.of_ops,
                        ).scores
                    )
            return value

        fit = cross_and_power(score_at)
        # Bounded: a start that does not fit at all has a cross term near zero or below, and a scale of 0 would freeze
        # the climb.
        return np.clip(fit.cross / np.maximum(fit.power, 1e-30), 0.1, 10.0)

    # -- the pass over a half set --------------------------------------------------------------------------------

    def run(self, half: int, poses: PoseTable, tick: Tick, rows: IntArray | None = None) -> HalfSums[ops.GridSums]:
        """Refine the poses of a half set, or of these rows of it (replaced in ``poses``), and make its sums."""
        problem = self.problem
        rows = problem.rows_of_half(half) if rows is None else rows
        totals = Totals.zeros(problem, len(self.spectra))
        sums = [empty_sums(problem, self.step) for _ in self.spectra]
        for batch in image_batches(problem, rows, self.model, poses):
            with problem.naming(batch.rows):
                data = self._spectra_of(batch)
                final, fisher = self._candidates(batch, poses, data)
                weight, evidence = posterior(final, len(batch))
                self._learn(batch, final, fisher, weight, evidence, poses)
                # Light candidates are left out of map and noise alike, and the rest sums to 1 again: dropped from the
                # map alone, their share of the signal would be counted as noise.
                heavy = weight >= _LEAST_WEIGHT
                image = final.image[heavy]
                weight = weight[heavy] / np.bincount(image, weight[heavy], minlength=len(batch))[image]
                self._insert(sums, batch, final[heavy], weight, data)
                self._residuals(batch, final[heavy], weight, data, totals)
            tick(len(batch))
        return HalfSums(sums, totals)

    def _spectra_of(self, batch: ImageBatch) -> _Spectra:
        """What the exact score and the sums need of a batch, on the device."""
        problem, mask = self.problem, self.problem.neighbour_mask
        images = fourier.forward(batch.images, 2, threads=self.threads)
        bands = None
        if problem.ewald_sign is not None and batch.params is not None:
            shape = batch.images.shape[-1], batch.pixel_size_A
            diameter_A = problem.diameter_px * problem.pixel_size_A
            bands = SideBands.of(batch.params, *shape, problem.ewald_sign, diameter_A, **self.where.of_ops)
        return _Spectra(
            batch.rows,
            images,
            images if mask is None else fourier.forward(batch.apply_mask(mask), 2, threads=self.threads),
            batch.ctf(**self.where.of_ops),
            to_device(batch.inv_sigma2, problem.device),
            bands,
        )

    def _learn(
        self,
        batch: ImageBatch,
        final: Candidates,
        fisher: FloatArray,
        weight: FloatArray,
        evidence: FloatArray,
        poses: PoseTable,
    ) -> None:
        n, rows = len(batch), batch.rows
        best = best_of_image(final.image, final.score, n)
        poses.angles_deg[rows] = matrix_to_euler(final.matrices[best])
        poses.origin_px[rows] = final.origin_px[best]
        poses.class_number[rows] = final.class_number[best]
        poses.log_evidence[rows] = evidence
        # A local pass of one class has one candidate per image, whose probability would be 1: that of the search stays.
        if self.step.phase == "global" or len(self.spectra) > 1:
            poses.max_probability[rows] = weight[best]
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nan_to_num(weight * np.log(weight))
        poses.effective_poses[rows] = np.exp(np.bincount(final.image, entropy, minlength=n))
        poses.angle_error_deg[rows], poses.shift_error_px[rows] = _accuracy(fisher[best])

    def _insert(
        self, sums: list[ops.GridSums], batch: ImageBatch, final: Candidates, weight: FloatArray, data: _Spectra
    ) -> None:
        for k, target in enumerate(sums):
            mine = np.flatnonzero(final.class_number == k)
            if not len(mine):
                continue
            image = final.image[mine]
            shell_weight = batch.inv_sigma2[image, : self.step.insert_radius + 1] * weight[mine, None]
            some = Batch(
                _take_rows(data.images, image),
                final.matrices[mine],
                -final.origin_px[mine],
                _take_rows(data.ctf, image),
                to_device(shell_weight.astype(np.float32), self.problem.device),
                None if data.bands is None else data.bands[image],
            )
            # Operators that the grid can fold exactly are applied to the sums at the end; only the others cost an
            # insertion each.
            add_batch(target, some, self.operators, **self.where.of_ops)

    def _residuals(
        self, batch: ImageBatch, final: Candidates, weight: FloatArray, data: _Spectra, totals: Totals
    ) -> None:
        """Residuals averaged over the posterior, on all shells: |X|^2 - 2 Re[(C A)* X] + |C A|^2."""
        n, shells = len(batch), len(self.model.sigma2[0])
        cross, power = np.zeros((n, shells)), np.zeros((n, shells))
        # Beyond the radius of the grid the map is unknown: there the residual is the image itself.
        n_known = self.grid.max_radius + 1
        for k, spectrum in enumerate(self.spectra):
            mine = np.flatnonzero(final.class_number == k)
            if not len(mine):
                continue
            image = final.image[mine]
            matrices, shifts_px = final.matrices[mine], -final.origin_px[mine]
            ctf, where = _take_rows(data.ctf, image), self.where.of_ops
            if data.bands is None:
                slices = ops.project(spectrum, self.grid, matrices, shifts_px=shifts_px, ctf=ctf, **where)
            else:
                bands = data.bands[image]
                slices = project_bands(spectrum, self.grid, matrices, bands, ctf, shifts_px=shifts_px, **where)
            for total, with_what, index in ((cross, data.images, image), (power, slices, None)):
                products = to_host(
                    ops.shell_dot(slices, with_what, b_of_a=index, max_radius=n_known - 1, **self.where.of_ops)
                )
                np.add.at(total[:, :n_known], image, weight[mine, None] * products)
        squared = to_host(ops.shell_dot(data.images, **self.where.of_ops)) - 2 * cross + power
        coefficients = fourier.shell_counts((self.problem.box,) * 2)[0][:shells].astype(np.float64)
        # The mean of an image is not modelled: its grey offset would pass for noise of the lowest shell.
        squared[:, 0] = coefficients[0] = 0
        totals.add(self.problem, batch, squared, coefficients, cross, power)
        totals.mass += np.bincount(final.class_number, weight, minlength=len(totals.mass))


def poses_at_a_time(problem: Problem) -> int:
    """Images of a batch while poses climb: on the host fewer than elsewhere, as soon as every thread has its own.

    Each has transforms, CTFs and slices of its own, and no tables that more images would share. Results do not depend
    on it.
    """
    if problem.device != "cpu":
        return problem.batch
    most = max(CLIMBING_PIXELS // problem.box**2, _LEAST_PER_THREAD * resolve_threads(problem.threads))
    return min(problem.batch, most)


def shift_spread_px(step: Step, poses: PoseTable, rows: IntArray) -> float:
    """Width of the prior of the shifts: what those of a half set spread over now, or the range of the first search."""
    rows_with_pose = rows[np.isfinite(poses.log_evidence[rows])]
    if not len(rows_with_pose):
        return max(_LEAST_SHIFT_PX, step.shift_range_px)
    return max(_LEAST_SHIFT_PX, float(np.sqrt(np.mean(poses.origin_px[rows_with_pose] ** 2))))


def _take_rows(values: npt.NDArray, index: npt.NDArray) -> npt.NDArray:
    """These rows; without a copy where they are all rows in order."""
    if np.array_equal(index, np.arange(len(values))):
        return values
    return values[array_module(values).asarray(index)]


def coarse_radius(problem: Problem, step_deg: float) -> int:
    """Last shell that a grid of this spacing serves."""
    return step_radius(problem.box, problem.diameter_px, step_deg)


def _half_log_det(fisher: FloatArray) -> FloatArray:
    """Half the log determinant of F / 2 pi: the Laplace approximation of a peak's volume; 0 where F is singular."""
    sign, value = np.linalg.slogdet(fisher / (2 * np.pi))
    return np.where(sign > 0, 0.5 * np.maximum(value, -50.0), 0.0)


def _accuracy(fisher: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cramer-Rao bound of each pose: rms angle in degrees, rms shift in pixels; NaN where it is singular."""
    bound = np.diagonal(ops.pose_covariance(fisher, least=_SINGULAR), axis1=1, axis2=2)
    angle, shift = np.rad2deg(np.sqrt(bound[:, :3].sum(axis=1))), np.sqrt(bound[:, 3:].sum(axis=1))
    return np.where(np.isfinite(angle), angle, np.nan), np.where(np.isfinite(shift), shift, np.nan)
