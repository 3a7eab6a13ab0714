"""One mini-batch of stochastic expectation-maximisation: posteriors over a grid of poses, and the sums they give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas import gridding, ops
from verglas.assessment import fsc, ssnr_from_fsc
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.sums import finish, solve
from verglas.search.grid_step import DirectionGrid, class_prior
from verglas.search.problem import ImageBatch, Problem, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray

_N_POWER = 3
_EPSILON = 0.01  # posterior mass left out of the sums: broad posteriors have long tails that teach nothing
_MOST_CANDIDATES = 1 << 12
_MOST_SUMMED = 256  # of an image's candidates; more are drawn from, in proportion to their probability
_FSC_MOST = 0.99
_GOLDEN = (5**0.5 - 1) / 2  # its multiples spread evenly


@dataclass
class BatchSums:
    """What a mini-batch, or a running mean of several, has taught; everything per particle.

    Attributes
    ----------
    grids : list of (GridSums, GridSums)
        One pair per class, from the two halves of the batch.
    squared : (groups, shells) float64
        Squared residuals.
    coefficients : (groups, shells) float64
        How many coefficients they come from.
    mass : (classes,) float64
        Posterior in each class.
    """

    grids: list[tuple[ops.GridSums, ops.GridSums]]
    squared: FloatArray
    coefficients: FloatArray
    mass: FloatArray

    def moved(self, fresh: BatchSums, step_size: float) -> BatchSums:
        """(1 - step) of these sums plus step of fresh ones (Cappe and Moulines 2009, eq. 11)."""

        def mean(a: npt.NDArray | None, b: npt.NDArray | None) -> npt.NDArray:
            assert a is not None
            assert b is not None
            return (1 - step_size) * a + step_size * b

        grids = [
            (
                ops.GridSums(a[0].grid, mean(a[0].values, b[0].values), mean(a[0].weights, b[0].weights)),
                ops.GridSums(a[1].grid, mean(a[1].values, b[1].values), mean(a[1].weights, b[1].weights)),
            )
            for a, b in zip(self.grids, fresh.grids, strict=True)
        ]
        return BatchSums(
            grids,
            mean(self.squared, fresh.squared),
            mean(self.coefficients, fresh.coefficients),
            mean(self.mass, fresh.mass),
        )

    def maps(self, problem: Problem) -> tuple[Float32Array, FloatArray]:
        """Regularised map of each class, (classes, N, N, N), and the FSC of the batch's halves, (classes, shells).

        Both halves were aligned to one reference, so the FSC is no resolution; as the regularisation of a map that is
        still being found it is a bound that the reference's own noise cannot pass at once.
        """
        volumes, curves = [], []
        for pair in self.grids:
            raw, both = _half_maps(problem, pair)
            radius = both.grid.max_radius
            curve = fsc(*raw, problem.sphere, threads=problem.threads).curve
            curve[radius + 1 :] = 0
            ssnr = ssnr_from_fsc(np.clip(curve[: radius + 1], 1e-3, _FSC_MOST))
            volumes.append(solve(both, problem.operators, ssnr=2 * ssnr, threads=problem.threads))
            curves.append(curve)
        return np.stack(volumes), np.stack(curves)

    def half_maps(self, problem: Problem) -> list[tuple[Map, Map]]:
        """Maps of the batch's halves, neither regularised nor masked, of every class."""
        return [_half_maps(problem, pair)[0] for pair in self.grids]


def _half_maps(problem: Problem, pair: tuple[ops.GridSums, ops.GridSums]) -> tuple[tuple[Map, Map], ops.GridSums]:
    """Maps of two halves, and the finished sums of both together; what is given stays as it is."""
    copies = [ops.GridSums(s.grid, s.values.copy(), s.weights.copy()) for s in pair]  # type: ignore[union-attr]
    one, two = (finish(s, problem.operators, threads=problem.threads) for s in copies)
    first, second = (
        Map(solve(s, problem.operators, threads=problem.threads), problem.pixel_size_A) for s in (one, two)
    )
    return (first, second), one + two


def thinned(posterior: ops.Posterior, rows: IntArray, most: int = _MOST_SUMMED) -> ops.Posterior:
    r"""Posteriors of at most so many candidates each, drawn without bias.

    Systematic resampling (Kitagawa 1996, J. Comput. Graph. Stat. 5, 1-25): a candidate that reaches from c to c' of the
    cumulative probability is taken :math:`\lceil m c' - u \rceil - \lceil m c - u \rceil` times of m. The expectation
    of every weight is what it was, and one above 1 / m is off by less than 1 / m.

    Parameters
    ----------
    posterior : Posterior
        Weights of every image sum to one.
    rows : (n,) int64
        Numbers of the particles, which fix u.
    most : int
        m; images with no more candidates keep them all.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> from verglas.initial_model.batch_step import thinned
    >>> p = ops.Posterior.from_lists(1, image=[0] * 4, slice=[0, 1, 2, 3], psi_deg=[0] * 4, weight=[0.5, 0.3, 0.1, 0.1])
    >>> q = thinned(p, np.array([0]), 2)
    >>> len(q.weight) <= 2, float(q.weight.sum())
    (True, 1.0)
    """
    size = np.diff(posterior.offsets)
    if not (size > most).any():
        return posterior
    image = posterior.image
    before = np.concatenate([[0.0], np.cumsum(posterior.weight)])
    base = before[posterior.offsets[:-1]]
    end = before[1:] - base[image]
    end[posterior.offsets[1:][size > 0] - 1] = 1.0
    begin = np.concatenate([[0.0], end[:-1]])
    begin[posterior.offsets[:-1][size > 0]] = 0.0
    u = ((rows * _GOLDEN) % 1.0)[image]
    times = np.ceil(most * end - u) - np.ceil(most * begin - u)
    many = (size > most)[image]
    kept = ~many | (times > 0)
    weight = np.where(many, times / most, posterior.weight)[kept]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image[kept], minlength=len(size)))])
    return ops.Posterior(
        offsets,
        posterior.slice[kept],
        posterior.opposite[kept],
        posterior.psi_deg[kept],
        posterior.shift[kept],
        weight,
    )


class BatchStep:
    """Posteriors of images against the present models on a grid of poses.

    Parameters
    ----------
    problem : Problem
    model : HalfModel
        Maps of the classes (``volumes``), noise, class weights.
    step : Step
        Resolution and sampling.
    grid_radius : int
        Last shell of the sums' grid, at least ``step.insert_radius``; sums of different steps can then be added.
    """

    def __init__(self, problem: Problem, model: HalfModel, step: Step, grid_radius: int) -> None:
        self.problem, self.model, self.step, self.threads = problem, model, step, problem.threads
        self.grid_radius, self.classes = grid_radius, len(model.volumes)
        self.directions = DirectionGrid(step.order, problem.symmetry)
        self.narrow = ops.PolarGrid(problem.box, step.radius, diameter_px=problem.diameter_px)
        wide = min(float(problem.box), 1.25 * problem.diameter_px + 2 * step.shift_range_px)
        self.wide = ops.PolarGrid(problem.box, step.insert_radius, diameter_px=wide)
        self.shifts = step.shifts_px()
        grid = ops.Grid(problem.box, max_radius=step.insert_radius)
        self.spectra = [gridding.to_grid(v * problem.sphere, grid, threads=self.threads) for v in model.volumes]
        self._grid = grid
        self._start = PoseTable.unknown(len(problem))
        if problem.first_origin_px is not None:
            self._start.origin_px = problem.first_origin_px
        self.search = ops.ScorePlan(
            self.narrow, step.n_psi, n_power=_N_POWER, epsilon=_EPSILON, max_candidates=_MOST_CANDIDATES
        )
        self.search.set_reference(
            self._slices(self.narrow),
            log_prior=class_prior(self.directions.log_prior, model.class_weight),
            threads=self.threads,
        )

    def _slices(self, polar: ops.PolarGrid) -> npt.NDArray[np.complex64]:
        return np.concatenate(
            [
                ops.polar_slices(s, self._grid, self.directions.matrices, polar, threads=self.threads)
                for s in self.spectra
            ]
        )

    def score(self, batch: ImageBatch) -> ops.Scores:
        """Search a batch."""
        return self.search.run(
            ops.polar(batch.centred(self.problem.image_mask), self.narrow, threads=self.threads),
            self.shifts,
            ctf=batch.params,
            pixel_size_A=self.problem.pixel_size_A,
            inv_sigma2=batch.inv_sigma2[:, self.narrow.shells],
            log_shift=self.step.log_shift(),
            first_particle=int(batch.rows[0]),
            threads=self.threads,
        )

    def evaluate(self, rows: IntArray, poses: PoseTable) -> FloatArray:
        """Log evidence of particles, whose best poses go to ``poses``.

        The evidence of a model without any density is 0: scores leave out what does not depend on the pose, and all
        priors sum to one.
        """
        out = []
        for batch in image_batches(self.problem, rows, self.model, self._start):
            found = self.score(batch)
            self._learn_poses(batch, found, poses)
            out.append(found.log_evidence)
        return np.concatenate(out) if out else np.zeros(0)

    def _learn_poses(self, batch: ImageBatch, found: ops.Scores, poses: PoseTable) -> None:
        rows, n = batch.rows, len(self.directions)
        poses.angles_deg[rows] = self.directions.angles_deg(
            found.best_slice % n, found.best_opposite, ops.psi_angles_deg(self.step.n_psi)[found.best_psi]
        )
        poses.origin_px[rows] = batch.centre_px + self.shifts[found.best_shift]
        poses.class_number[rows] = found.best_slice // n
        poses.log_evidence[rows] = found.log_evidence
        poses.max_probability[rows] = np.exp(found.best_score - found.log_evidence)

    def sums(self, rows: IntArray, poses: PoseTable) -> BatchSums:
        """Expectation and sums of particles; rows at even and odd places make the two halves."""
        problem, n = self.problem, len(self.directions)
        block = self.classes * n
        plan = ops.MaximisePlan(self.wide, 2 * block, n_power=_N_POWER)
        plan.set_reference(np.concatenate([self._slices(self.wide)] * 2), threads=self.threads)
        shape = self.model.sigma2.shape
        squared, coefficients, mass = np.zeros(shape), np.zeros(shape), np.zeros(self.classes)
        reach = slice(1, self.step.insert_radius + 1)
        done = 0
        for batch in image_batches(problem, rows, self.model, self._start):
            found = self.score(batch)
            posterior = ops.Posterior.from_scores(found, self.step.n_psi)
            mass += np.bincount(posterior.slice // n, posterior.weight, minlength=self.classes)
            posterior = thinned(posterior, batch.rows)
            half = (done + posterior.image) % 2
            posterior = replace(posterior, slice=(posterior.slice + block * half).astype(np.int32))
            residuals = plan.add(
                ops.polar(batch.images, self.wide, threads=self.threads),
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
            group = problem.group[batch.rows]
            np.add.at(squared[:, reach], group, residuals.squared)
            np.add.at(
                coefficients[:, reach], group, np.broadcast_to(2 * np.pi * self.wide.radii, residuals.squared.shape)
            )
            self._learn_poses(batch, found, poses)
            done += len(batch)
        count = max(done, 1)
        return BatchSums(self._grids(plan, count), squared / count, coefficients / count, mass / count)

    def _grids(self, plan: ops.MaximisePlan, count: int) -> list[tuple[ops.GridSums, ops.GridSums]]:
        n, made = len(self.directions), []
        for k in range(self.classes):
            pair = []
            for half in range(2):
                sums = ops.GridSums.zeros(direct_grid(self.problem.box, self.grid_radius))
                for coset in self.problem.operators.cosets:
                    first = (half * self.classes + k) * n
                    plan.insert(sums, self.directions.matrices @ coset, first=first, threads=self.threads)
                assert sums.values is not None
                assert sums.weights is not None
                np.multiply(sums.values, 1 / count, out=sums.values)
                np.multiply(sums.weights, 1 / count, out=sums.weights)
                pair.append(sums)
            made.append((pair[0], pair[1]))
        return made
