r"""Maps that classes start from, when one map of all particles is known: guesses that the particles choose among.

Many other structures are guessed from the map (:mod:`verglas.heterogeneity.proposals`). From the log evidence
:math:`e_{ij}` of every particle under every guess, over all poses, classes are chosen one at a time so that
:math:`\sum_i \ln \sum_k \pi_k e^{e_{ik}}` grows most, and a few iterations of expectation-maximisation make them what
the particles show. Then classes are put to the test: a new guess takes the place of the class that is missed least, and
stays if the particles are explained better after the same few iterations (split and merge: Ueda et al. 2000, Neural
Computation 12, 2109-2128). All of it happens at the resolution that a grid of 15 degrees serves, where a pass is cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from verglas import filters
from verglas.geometry import healpix_spacing_deg
from verglas.heterogeneity.proposals import propose_map
from verglas.image import in_memory, plan_resample, resample_particles
from verglas.initial_model.batch_step import EVIDENCE_ALONE, BatchStep
from verglas.initial_model.course import resample_to_box, working_box
from verglas.initial_model.starts import update_model
from verglas.refinement.schedule import angles_in_plane
from verglas.search.noise import first_noise, mean_power
from verglas.search.problem import Problem, survey
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step, step_radius
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray

_ORDER = 2  # 14.7 degrees
_MARGIN_SHELLS = 2
_SETTLING = 3  # iterations of the single map at this resolution
_FIRST_GUESSES = 60
_GUESSES = 24
_SHORT = 5  # iterations that a guess is given to show what it is worth
_ROUNDS = 12
_TRIES = 2  # guesses of a round that are iterated
_BETTER = 0.02  # nats per particle
_WORTH = 0.1  # of a round, for another to be made
_PATIENCE = 3
_WEIGHT_PASSES = 8
_LEAST_WEIGHT = 1e-3
_MOST_PARTICLES = 6000
_EDGE_A = 8.0

Tell = Callable[[int, int], None]


def mixture_evidence(log_evidence: FloatArray, passes: int = _WEIGHT_PASSES) -> tuple[float, FloatArray]:
    """Mean log evidence of a mixture with the best weights, and these; ``log_evidence`` is (n, K).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.seeds import mixture_evidence
    >>> e = np.array([[0.0, -50.0]] * 3 + [[-50.0, 0.0]])
    >>> value, weight = mixture_evidence(e)
    >>> weight.round(3).tolist(), round(value, 3)
    ([0.75, 0.25], -0.562)
    """
    weight = np.full(log_evidence.shape[1], 1 / log_evidence.shape[1])
    for _ in range(passes):
        log = log_evidence + np.log(weight)
        each = logsumexp(log, axis=1, keepdims=True)
        weight = np.maximum(np.exp(log - each).mean(axis=0), _LEAST_WEIGHT)
        weight /= weight.sum()
    return float(each.mean()), weight


@dataclass(frozen=True)
class Seeds:
    """Classes at low resolution.

    Attributes
    ----------
    model : HalfModel
        Maps, noise, weights.
    score : float
        Mean log evidence of a particle.
    """

    model: HalfModel
    score: float


@dataclass(frozen=True)
class SeedSearch:
    """Particles at low resolution, and the single map that everything is guessed from.

    Attributes
    ----------
    problem : Problem
        In memory, small.
    radius : int
        Last shell scored.
    rows : (m,) int64
        Particles that take part: enough for low resolution.
    shift_range_px : float
    first_noise : (groups, shells) float64
        Before any map.
    seed : int
        Of guesses.
    """

    problem: Problem
    radius: int
    rows: IntArray
    shift_range_px: float
    first_noise: FloatArray
    seed: int

    @cached_property
    def step(self) -> Step:
        """What every pass looks at."""
        shift_step = max(1.0, self.problem.box / (6 * self.radius))
        insert = min(self.grid_radius, self.radius + _MARGIN_SHELLS)
        reach = max(self.shift_range_px, shift_step)
        return Step("grid", self.radius, insert, _ORDER, angles_in_plane(_ORDER), shift_step, reach)

    @property
    def grid_radius(self) -> int:
        """Last shell of the sums."""
        return min((self.problem.box - 1) // 2, self.radius + _MARGIN_SHELLS)

    def single(self, volume: Float32Array) -> Seeds:
        """The single map, of any box over the same field, at this resolution, with its noise."""
        small = resample_to_box(volume, self.problem.box)[None] * self.problem.sphere
        first = HalfModel(small, self.first_noise, np.ones(self.problem.n_micrographs), np.ones(1))
        return self.iterate(first, _SETTLING, learn_noise=True)

    def iterate(self, model: HalfModel, iterations: int, *, learn_noise: bool = False) -> Seeds:
        """A few iterations; the noise stays, or evidence of several models could not be compared."""
        score = 0.0
        for _ in range(iterations):
            poses = PoseTable.unknown(len(self.problem))
            sums = BatchStep(self.problem, model, self.step, self.grid_radius).sums(self.rows, poses)
            made = update_model(self.problem, model, sums)[0]
            model = made if learn_noise else replace(made, sigma2=model.sigma2)
            score = float(poses.log_evidence[self.rows].mean())
        return Seeds(model, score)

    def evidence(self, volume: Float32Array, sigma2: FloatArray) -> FloatArray:
        """(m,) log evidence of every particle under one map."""
        model = HalfModel(volume[None], sigma2, np.ones(self.problem.n_micrographs), np.ones(1))
        step = BatchStep(self.problem, model, self.step, self.grid_radius, EVIDENCE_ALONE)
        return step.evaluate(self.rows, PoseTable.unknown(len(self.problem)))

    def origins_px(self, seeds: Seeds) -> FloatArray:
        """(n, 2) shifts of all particles under their best class, in pixels of this box."""
        poses = PoseTable.unknown(len(self.problem))
        step = BatchStep(self.problem, seeds.model, self.step, self.grid_radius, EVIDENCE_ALONE)
        step.evaluate(np.arange(len(self.problem)), poses)
        return poses.origin_px

    def grow(self, seeds: Seeds, count: int, tell: Tell | None = None) -> Seeds:
        """Up to so many classes, put to the test.

        Parameters
        ----------
        seeds : Seeds
            Of fewer classes.
        count : int
            K.
        tell : callable, optional
            Called with rounds done and in all.
        """
        rng = np.random.default_rng((self.seed, count))
        guesses = self._guesses(seeds, _FIRST_GUESSES, rng)
        table = self._table(seeds.model.volumes, seeds)
        others = self._table(guesses, seeds)
        volumes = list(seeds.model.volumes)
        while len(volumes) < count:
            scores = [mixture_evidence(np.column_stack([table, column]))[0] for column in others.T]
            best = int(np.argmax(scores))
            volumes.append(guesses[best])
            table = np.column_stack([table, others[:, best]])
        weight = mixture_evidence(table)[1]
        now = self.iterate(replace(seeds.model, volumes=np.stack(volumes), class_weight=weight), _SHORT + 1)
        idle = 0
        for number in range(_ROUNDS):
            if tell is not None:
                tell(number, _ROUNDS)
            after = self._replace_one(now, rng)
            idle = 0 if after.score > now.score + _WORTH else idle + 1
            now = after
            if idle == _PATIENCE:
                break
        if tell is not None:
            tell(_ROUNDS, _ROUNDS)
        return now

    def _guesses(self, seeds: Seeds, count: int, rng: np.random.Generator) -> list[Float32Array]:
        """Other structures, each guessed from one of the maps, drawn by its weight."""
        made = []
        for parent in rng.choice(len(seeds.model.volumes), count, p=seeds.model.class_weight):
            guess = propose_map(seeds.model.volumes[parent], self.problem.diameter_px, self._noise(rng), rng)
            guess = guess * self.problem.sphere
            if self.problem.symmetry.upper() != "C1":
                guess = self.problem.operators.apply(guess, self.grid_radius, threads=self.problem.threads)
            made.append(guess)
        return made

    def _noise(self, rng: np.random.Generator) -> Float32Array:
        problem = self.problem
        noise = Map(rng.standard_normal((problem.box,) * 3, dtype=np.float32), problem.pixel_size_A)
        coarse = filters.low_pass(problem.resolution_of_A(self.radius))
        smooth = filters.apply(noise, coarse, threads=problem.threads).data * problem.sphere
        return smooth / smooth.std()

    def _table(self, volumes: list[Float32Array] | Float32Array, seeds: Seeds) -> FloatArray:
        return np.stack([self.evidence(v, seeds.model.sigma2) for v in volumes], axis=1)

    def _replace_one(self, seeds: Seeds, rng: np.random.Generator) -> Seeds:
        """A guess in place of a class, if the particles are explained better for it; else the same."""
        model, count = seeds.model, len(seeds.model.volumes)
        guesses = self._guesses(seeds, _GUESSES, rng)
        table, others = self._table(model.volumes, seeds), self._table(guesses, seeds)
        scores = np.array(
            [
                [mixture_evidence(np.column_stack([np.delete(table, k, 1), column]))[0] for column in others.T]
                for k in range(count)
            ]
        )
        # The class that is missed least when a guess comes; and the guesses that leave most.
        for guess in np.argsort(-scores.max(axis=0), kind="stable")[:_TRIES]:
            k = int(scores[:, guess].argmax())
            volumes, weight = model.volumes.copy(), model.class_weight.copy()
            volumes[k], weight[k] = guesses[guess], 1 / count
            after = self.iterate(replace(model, volumes=volumes, class_weight=weight / weight.sum()), _SHORT)
            if after.score > seeds.score + _BETTER:
                return after
        return seeds


def seed_search(problem: Problem, shift_range_px: float, seed: int) -> SeedSearch:
    """The particles of a problem at the resolution that a coarse grid serves.

    Parameters
    ----------
    problem : Problem
    shift_range_px : float
        Largest shift searched, about the images' centres and not about the shifts on a single map: those of other
        structures' particles are as wrong as their orientations.
    seed : int
    """
    radius = min(problem.last_radius, step_radius(problem.box, problem.diameter_px, healpix_spacing_deg(_ORDER)))
    field_A = problem.box * problem.pixel_size_A
    box = working_box(problem.box, problem.pixel_size_A, field_A / (radius + _MARGIN_SHELLS))
    particles, factor = problem.particles, box / problem.box
    if box < problem.box:
        particles = resample_particles(particles, plan_resample(problem.box, problem.pixel_size_A, None, box))
    particles = in_memory(particles)
    small = Problem.of(
        particles,
        {},
        job=problem.job,
        seed=seed,
        symmetry=problem.symmetry,
        diameter_A=problem.diameter_px * problem.pixel_size_A,
        threads=problem.threads,
        devices=problem.devices[:1],
    )
    # Edges of masks have a width in angstrom: five large pixels would let neighbours in.
    small = replace(small, edge_px=float(np.clip(_EDGE_A / small.pixel_size_A, 1.5, small.edge_px)))
    rows = np.arange(len(small))
    if len(rows) > _MOST_PARTICLES:
        rows = np.sort(np.random.default_rng((seed, 2**33)).choice(rows, _MOST_PARTICLES, replace=False))
    power = survey(particles, threads=problem.threads, device=problem.device).power
    noise = first_noise(mean_power(power, small.group, small.n_groups), job=problem.job)
    return SeedSearch(small, radius, rows, shift_range_px * factor, noise, seed)
