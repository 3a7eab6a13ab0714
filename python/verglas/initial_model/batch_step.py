"""One mini-batch of stochastic expectation-maximisation: posteriors over a grid of poses, and the sums they give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._array_module import all_to_host
from verglas._devices import work_on
from verglas.assessment import fsc, ssnr_from_fsc
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.sums import finish, solve
from verglas.search.grid_search import SliceSums
from verglas.search.grid_step import GridLimits, GridStep, Tick, ignore_count
from verglas.search.problem import Problem, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray

# Broad posteriors have long tails that teach nothing.
LIMITS = GridLimits(n_power=3, max_candidates=1 << 12, epsilon=0.01)
# Where only the evidence and the best pose are asked for, both of which come without a list: the same numbers.
EVIDENCE_ALONE = replace(LIMITS, max_candidates=1)
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

    def step_towards(self, fresh: BatchSums, step_size: float) -> BatchSums:
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

    def maps(self, problem: Problem, before: Float32Array) -> tuple[Float32Array, FloatArray]:
        """Regularised map of each class, (classes, N, N, N), and the FSC of the batch's halves, (classes, shells).

        A class that no image of a half went to keeps the map that it had, ``before``: from it, it may win some back.

        Both halves were aligned to one reference, so the FSC is no resolution; as the regularisation of a map that is
        still being found it is a bound that the reference's own noise cannot pass at once.
        """
        volumes, curves = [], []
        for pair, kept in zip(self.grids, before, strict=True):
            if not all(s.weights is not None and s.weights.any() for s in pair):
                volumes.append(kept)
                curves.append(np.zeros(problem.box // 2 + 1))
                continue
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


def thin_posterior(posterior: ops.Posterior, rows: IntArray, most: int = _MOST_SUMMED) -> ops.Posterior:
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
    >>> from verglas.initial_model.batch_step import thin_posterior
    >>> p = ops.Posterior.from_lists(1, image=[0] * 4, slice=[0, 1, 2, 3], psi_deg=[0] * 4, weight=[0.5, 0.3, 0.1, 0.1])
    >>> q = thin_posterior(p, np.array([0]), 2)
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
    # Sums of many floats end beside 1: exact ends, or an image is given one candidate too many or too few.
    end[posterior.offsets[1:][size > 0] - 1] = 1.0
    begin = np.concatenate([[0.0], end[:-1]])
    begin[posterior.offsets[:-1][size > 0]] = 0.0
    # Of the particle, not of a random stream: the same whatever the batch that it comes in.
    u = ((rows * _GOLDEN) % 1.0)[image]
    times = np.ceil(most * end - u) - np.ceil(most * begin - u)
    many = (size > most)[image]
    keep = ~many | (times > 0)
    weight = np.where(many, times / most, posterior.weight)[keep]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(image[keep], minlength=len(size)))])
    return ops.Posterior(
        offsets,
        posterior.slice[keep],
        posterior.opposite[keep],
        posterior.psi_deg[keep],
        posterior.shift[keep],
        weight,
    )


class BatchStep(GridStep):
    """Posteriors of images against the present models on a grid of poses, and sums of the two halves of a batch.

    Parameters
    ----------
    problem : Problem
    model : HalfModel
        Maps of the classes (``volumes``), noise, class weights.
    step : Step
        Resolution and sampling.
    grid_radius : int
        Last shell of the sums' grid, at least ``step.insert_radius``; sums of different steps can then be added.
    limits : GridLimits
        ``EVIDENCE_ALONE`` for a step that is only evaluated: no candidates are listed and sorted.
    """

    def __init__(
        self, problem: Problem, model: HalfModel, step: Step, grid_radius: int, limits: GridLimits = LIMITS
    ) -> None:
        with work_on(problem.device):
            super().__init__(problem, model, problem.sphere, step, limits)
        self.grid_radius, self.classes = grid_radius, len(model.volumes)
        self._start = PoseTable.unknown(len(problem))
        if problem.first_origin_px is not None:
            self._start.origin_px = problem.first_origin_px

    def evaluate(self, rows: IntArray, poses: PoseTable, tick: Tick = ignore_count) -> FloatArray:
        """Log evidence of particles, whose best poses go to ``poses``; ``tick`` hears how many each batch holds.

        The evidence of a model without any density is 0: scores leave out what does not depend on the pose, and all
        priors sum to one.
        """
        out = []
        with work_on(self.problem.device):
            for batch in image_batches(self.problem, rows, self.model, self._start):
                scores = self.score(batch)
                self.learn_poses(batch, scores, poses)
                out.append(scores.log_evidence)
                tick(len(batch))
        return np.concatenate(out) if out else np.zeros(0)

    def sums(self, rows: IntArray, poses: PoseTable, tick: Tick = ignore_count) -> BatchSums:
        """Expectation and sums of particles; rows at even and odd places make the two halves."""
        with work_on(self.problem.device):
            return self._add_up(rows, poses, tick)

    def _add_up(self, rows: IntArray, poses: PoseTable, tick: Tick) -> BatchSums:
        problem, n = self.problem, len(self.directions)
        block = self.classes * n
        plan = self.slice_sums(2)
        shape = self.model.sigma2.shape
        squared, coefficients, mass = np.zeros(shape), np.zeros(shape), np.zeros(self.classes)
        reach = slice(1, self.step.insert_radius + 1)
        n_summed = 0
        for batch in image_batches(problem, rows, self.model, self._start):
            scores = self.score(batch)
            posterior = self.search.posterior(scores)
            np.add.at(mass, posterior.slice // n, posterior.weight)  # one by one: the same in any batches
            posterior = thin_posterior(posterior, batch.rows)
            # Counted over the whole pass, not within the batch: the halves do not depend on the batch size.
            half = (n_summed + posterior.image) % 2
            posterior = replace(posterior, slice=(posterior.slice + block * half).astype(np.int32))
            residuals = self.add(plan, batch, posterior)
            group = problem.group[batch.rows]
            np.add.at(squared[:, reach], group, residuals.squared)
            np.add.at(
                coefficients[:, reach], group, np.broadcast_to(2 * np.pi * self.wide.radii, residuals.squared.shape)
            )
            self.learn_poses(batch, scores, poses)
            n_summed += len(batch)
            tick(len(batch))
        count = max(n_summed, 1)
        return BatchSums(self._grids(plan, count), squared / count, coefficients / count, mass / count)

    def _grids(self, plan: SliceSums, count: int) -> list[tuple[ops.GridSums, ops.GridSums]]:
        """Per particle, on the host: what is small is kept and mixed there, whatever the device."""
        grids = []
        for k in range(self.classes):
            pair = []
            for half in range(2):
                grid = direct_grid(self.problem.box, self.grid_radius)
                empty = ops.GridSums.zeros(grid, device=self.problem.device)
                sums = all_to_host(self.grid_sums(plan, half * self.classes + k, empty))
                np.multiply(sums.values, 1 / count, out=sums.values)
                np.multiply(sums.weights, 1 / count, out=sums.weights)
                pair.append(sums)
            grids.append((pair[0], pair[1]))
        return grids
