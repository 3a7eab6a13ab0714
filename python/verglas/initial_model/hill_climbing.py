"""Maps without a reference by stochastic hill climbing on projections, in the manner of PRIME.

Every particle keeps one pose. In every iteration it looks through the directions of a grid in random order (each with
its opposite), scores them at all in-plane angles and shifts, and takes the first that correlates better with the
present map than its own does: not the best, so that the poses of many particles do not settle at once around the
accidents of an early map (Reboul et al. 2018, Protein Science 27, 51-61; Elmlund et al. 2013, Structure 21, 1299-1306).
The map is made anew from all poses, with CTF and noise weighting; its resolution grows. There is no likelihood and no
average over poses in it: a check on the stochastic expectation-maximisation of :mod:`verglas.initial_model.starts` by
other means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas._array_module import array_module, to_host
from verglas._devices import work_on
from verglas.geometry import euler_to_matrix, symmetry_matrices
from verglas.initial_model.batch_step import BatchStep
from verglas.initial_model.course import Course
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.snapshots import UnderWay
from verglas.initial_model.starts import Method, StartTask, update_model
from verglas.search.grid_search import GridSearch, PolarBatch
from verglas.search.grid_step import DirectionGrid
from verglas.search.image_batch import ImageBatch
from verglas.search.problem import Problem, image_batches
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types.arrays import FloatArray, IntArray

_TOGETHER = 64  # particles that look through directions in one random order
_FIRST = 4  # slices scored at once at first, then twice as many each time: preparing the images costs as much as 40


@dataclass
class Found:
    """Poses on the grids of a step, one per particle.

    Attributes
    ----------
    score : (n,) float64
        Correlation with the present map.
    slice, opposite, psi, shift : (n,)
        As in :class:`verglas.ops.Scores`.
    """

    score: FloatArray
    slice: IntArray
    opposite: npt.NDArray[np.bool_]
    psi: IntArray
    shift: IntArray

    @classmethod
    def empty(cls, n: int) -> Found:
        """Worse than any pose."""
        zero = np.zeros(n, np.int64)
        return cls(np.full(n, -np.inf), zero, np.zeros(n, bool), zero.copy(), zero.copy())

    def take(self, rows: IntArray, slices: IntArray, scores: ops.Scores, improves: npt.NDArray[np.bool_]) -> None:
        """Those chosen among these rows, found among these slices."""
        into = rows[improves]
        self.score[into] = scores.best_score[improves]
        self.slice[into] = slices[scores.best_slice[improves]]
        self.opposite[into] = scores.best_opposite[improves]
        self.psi[into] = scores.best_psi[improves]
        self.shift[into] = scores.best_shift[improves]


class ClimbStep(BatchStep):
    """Correlations of images with single directions, and sums from the poses that they keep.

    Holds the polar samples of the images: 6 kB each at the usual 40 pixels.

    Parameters
    ----------
    problem, model, step, grid_radius
        As for :class:`verglas.initial_model.batch_step.BatchStep`.
    """

    def __init__(self, problem: Problem, model: HalfModel, step: Step, grid_radius: int) -> None:
        super().__init__(problem, model, step, grid_radius)
        self.found = Found.empty(len(problem))
        # Correlations are no log-likelihoods: a prior of shifts in nats has no scale to be added on.
        unweighted = replace(self.poses, log_shift=None)
        self._single = GridSearch(self.narrow, unweighted, self.where, n_power=3, score="correlation", max_candidates=1)

    def read(self, rows: IntArray) -> None:
        """Prepare the images of these particles for :meth:`correlate`."""
        n = len(self.problem)
        self._x = np.empty((n, self.narrow.n_rings, self.narrow.n_theta // 2), np.complex64)
        self._params = self.problem.params.copy()
        self._inv = np.empty((n, self.narrow.n_rings), np.float32)
        with work_on(self.problem.device):
            self._references = self.slices(self.narrow)
            for batch in image_batches(self.problem, rows, self.model, self._start):
                at_centre = batch.centre_images(self.problem.image_mask)
                self._x[batch.rows] = to_host(ops.polar(at_centre, self.narrow, **self.where.of_ops))
                self._params[batch.rows] = batch.params
                self._inv[batch.rows] = batch.inv_sigma2[:, self.narrow.shells]

    def correlate(self, rows: IntArray, slices: IntArray, allowed: npt.NDArray[np.bool_] | None = None) -> ops.Scores:
        """The best in-plane angle and shift of the best of these directions.

        Parameters
        ----------
        rows : (n,) int64
            Particles.
        slices : (m,) int64
            Slices.
        allowed : (m, 2) bool, optional
            Whether the slice, and its opposite, may be taken; by default what lies in the asymmetric unit.
        """
        allowed = np.isfinite(self.directions.log_prior[slices]) if allowed is None else allowed
        images = PolarBatch(
            self._x[rows],
            self._inv[rows],
            self._params[rows],
            self.problem.pixel_size_A,
            first_particle=int(rows[0]),
        )
        with work_on(self.problem.device):
            references = self._references[array_module(self._references).asarray(slices)]
            self._single.set_reference(references, np.where(allowed, 0.0, -np.inf))
            return self._single.run(images)

    def keep(self, rows: IntArray, angles_deg: FloatArray) -> None:
        """Score the direction that every particle has, at its best in-plane angle and shift."""
        place, opposite = nearest_directions(self.directions, self.problem, angles_deg)
        number = 2 * place + opposite
        for one in np.unique(number):
            own, slices = rows[number == one], np.array([one // 2])
            allowed = np.array([[one % 2 == 0, one % 2 == 1]])
            scores = self.correlate(own, slices, allowed)
            self.found.take(own, slices, scores, np.ones(len(own), bool))

    def climb(self, rows: IntArray, rng: np.random.Generator) -> float:
        """Take for every particle the first direction that is better, in random order; the share that found one."""
        n_better = 0
        shuffled = rng.permutation(rows)
        for begin in range(0, len(rows), _TOGETHER):
            still = np.sort(shuffled[begin : begin + _TOGETHER])
            # Most particles find a better direction among the first few; lists that double waste at most as much again.
            order, first, size = rng.permutation(len(self.directions)), 0, _FIRST
            n_better += len(still)
            while len(still) and first < len(order):
                still = self._first_better(still, order[first : first + size])
                first, size = first + size, 2 * size
            n_better -= len(still)
        return n_better / max(len(rows), 1)

    def _first_better(self, rows: IntArray, order: IntArray) -> IntArray:
        """Take the first of these slices that is better, found by halving; returns the particles that have none."""
        scores = self.correlate(rows, order)
        better = scores.best_score > self.found.score[rows]
        if len(order) == 1:
            self.found.take(rows, order, scores, better)
        elif better.any():
            half = len(order) // 2
            later = self._first_better(rows[better], order[:half])
            if len(later):
                self._first_better(later, order[half:])
        return rows[~better]

    def score(self, batch: ImageBatch) -> ops.Scores:
        """The pose that each particle keeps, for the sums, with all the weight."""
        rows, hill = batch.rows, self.found
        none, score = np.zeros(len(rows)), np.zeros(len(rows), np.float32)
        slices, psi, shift = (a[rows].astype(np.int32) for a in (hill.slice, hill.psi, hill.shift))
        opposite = hill.opposite[rows]
        return ops.Scores(
            score,
            slices,
            opposite,
            psi,
            shift,
            none,
            none + 1,
            np.arange(len(rows) + 1),
            score,
            slices,
            opposite,
            psi,
            shift,
        )


def nearest_directions(
    grid: DirectionGrid, problem: Problem, angles_deg: FloatArray
) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """The direction of a grid nearest to each pose or one of its equivalents: slice, and whether its opposite."""
    sides = np.stack([grid.matrices[:, 2], -grid.matrices[:, 2]], axis=1)
    # Directions outside the asymmetric unit: a vector of zero is nearest to no view.
    sides[~np.isfinite(grid.log_prior)] = 0
    views = euler_to_matrix(angles_deg)[:, 2]
    equivalents = np.einsum("nj,gjk->ngk", views, symmetry_matrices(problem.symmetry))
    cosine = np.einsum("ngk,sk->ngs", equivalents, sides.reshape(-1, 3)).max(axis=1)
    best = cosine.argmax(axis=1)
    return best // 2, best % 2 == 1


class HillClimbing(Method):
    """The method for :func:`verglas.initial_model.starts.run_start`; one map."""

    def begin(
        self,
        problem: Problem,
        settings: AbInitioSettings,
        course: Course,
        train: IntArray,
        task: StartTask,
    ) -> UnderWay:
        """Random poses, and the map that they make."""
        sigma2 = task.sigma2
        rng = np.random.default_rng((settings.seed, task.number))
        blank = np.zeros((1, *(problem.box,) * 3), np.float32)
        model = HalfModel(blank, sigma2.copy(), np.ones(problem.n_micrographs), np.ones(1))
        step = ClimbStep(problem, model, course.step(course.first_radius), course.grid_radius)
        entries = np.argwhere(np.isfinite(step.directions.log_prior))
        first_entries = entries[rng.integers(len(entries), size=len(problem))]
        middle = int(np.argmin((step.shifts.astype(np.float64) ** 2).sum(axis=1)))
        step.found = Found(
            np.full(len(problem), -np.inf),
            first_entries[:, 0],
            first_entries[:, 1] == 1,
            rng.integers(step.step.n_psi, size=len(problem)),
            np.full(len(problem), middle),
        )
        poses = PoseTable.unknown(len(problem))
        model, curves = update_model(problem, model, step.sums(rng.permutation(train), poses))
        return UnderWay(rng, train, 0, model, poses, curves, float(course.first_radius))

    def iterate(self, problem: Problem, course: Course, train: IntArray, now: UnderWay) -> None:
        """Every particle climbs one step; then the map is made anew."""
        radius = course.radius(now.iteration, now.resolved)
        step = ClimbStep(problem, now.model, course.step(radius), course.grid_radius)
        step.read(train)
        step.keep(train, now.poses.angles_deg[train])
        step.climb(train, now.rng)
        now.model, now.curves = update_model(problem, now.model, step.sums(now.rng.permutation(train), now.poses))
