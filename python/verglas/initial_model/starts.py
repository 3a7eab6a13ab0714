r"""Maps without a reference: stochastic expectation-maximisation from random starts.

Mini-batches of particles are scored against the present maps on a grid of all poses, and their sums go into a running
mean, :math:`S \leftarrow (1 - \gamma) S + \gamma \bar s`, from which the next maps are made (Cappe and Moulines 2009,
J. R. Stat. Soc. B 71, 593-613). Batches, resolution and angular sampling grow; early noise and a low resolution keep
the maps from settling in the first basin they meet (Punjani et al. 2017, Nature Methods 14, 290-296).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from verglas import filters, fourier, ops
from verglas.geometry import euler_to_matrix, random_orientations
from verglas.initial_model import snapshots as kept
from verglas.initial_model.batch_step import EVIDENCE_ALONE, BatchStep, BatchSums
from verglas.initial_model.course import Course
from verglas.initial_model.settings import AbInitioSettings
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.sums import Batch, add_batch, finish, solve
from verglas.refinement.update import resolution_shell
from verglas.search.grid_step import ignore_count
from verglas.search.problem import Problem
from verglas.search.state import HalfModel, PoseTable
from verglas.types import Keeper, Map, Snapshot
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.snapshot import from_arrays, to_arrays

Tell = Callable[[int, int], None]  # iterations done, in all

_START_IMAGES = 40  # random poses of few images make a blob that is no sphere
_LEAST_NOISE = 1e-3  # of what it was, from one iteration to the next
_PLACED_AT_ONCE = 8192


@dataclass(frozen=True)
class Start:
    """One random start, finished.

    Attributes
    ----------
    number : int
        From 0.
    model : HalfModel
        Maps, noise, class weights.
    poses : PoseTable
        Best poses of the particles that took part.
    evidence : (held out,) float64
        Log evidence of each held-out particle; 0 is what a map without density has.
    curves : (classes, shells) float64
        FSC of the halves of the last batch.
    """

    number: int
    model: HalfModel
    poses: PoseTable
    evidence: FloatArray
    curves: FloatArray

    @property
    def score(self) -> float:
        """Mean log evidence of a held-out particle."""
        return float(self.evidence.mean())


def random_map(problem: Problem, rows: IntArray, settings: AbInitioSettings, seed: int) -> Float32Array:
    """A blob: some images put in at random orientations, low-passed; its grey scale is right from the start."""
    images = fourier.forward(problem.particles.images(rows) * problem.image_mask, 2)
    ctf = ops.ctf(problem.params[rows], problem.box, problem.pixel_size_A).astype(np.float32)
    matrices = euler_to_matrix(random_orientations(len(rows), seed))
    sums = ops.GridSums.zeros(direct_grid(problem.box, (problem.box - 1) // 2))
    add_batch(sums, Batch(images, matrices, np.zeros((len(rows), 2)), ctf), problem.operators, threads=problem.threads)
    full_sums = finish(sums, problem.operators, threads=problem.threads)
    volume = solve(
        full_sums, problem.operators, ssnr=np.full((problem.box - 1) // 2 + 1, 10.0), threads=problem.threads
    )
    coarse = filters.apply(Map(volume, problem.pixel_size_A), filters.low_pass(settings.initial_resolution_A)).data
    return (coarse * problem.sphere).astype(np.float32)


def run_start(
    problem: Problem,
    settings: AbInitioSettings,
    task: StartTask,
    tell: Tell | None = None,
    *,
    keeper: Keeper | None = None,
    method: Method | None = None,
) -> Start:
    """One random start to its end.

    Parameters
    ----------
    problem : Problem
        Particles at the working pixel size.
    settings : AbInitioSettings
    task : StartTask
    tell : callable, optional
        Called after every iteration.
    keeper : Keeper, optional
        Keeps where the start stands after every iteration; what it has kept goes on, to the same result bit for bit.
    method : Method, optional
        Stochastic expectation-maximisation by default.
    """
    method = method or StochasticEM()
    train = np.setdiff1d(np.arange(len(problem)), task.held_out)
    course = Course(problem, settings, len(train))
    snapshot = None if keeper is None else keeper.load()
    final = kept.restore_final(snapshot)
    if final is not None:
        return Start(task.number, *final)
    if snapshot is None:
        now = method.begin(problem, settings, course, train, task)
    else:
        now = kept.restore_start(snapshot, direct_grid(problem.box, course.grid_radius))
    total = settings.all_iterations
    while now.iteration < total:
        method.iterate(problem, course, train, now)
        now.resolved = max(resolution_shell(c, course.last_radius, 0.143) for c in now.curves)
        now.iteration += 1
        if keeper is not None:
            keeper.save(kept.take_snapshot(now, total))
        if tell is not None:
            tell(now.iteration, total)
    step = BatchStep(problem, now.model, course.step(course.last_radius), course.grid_radius, EVIDENCE_ALONE)
    evidence = step.evaluate(task.held_out, now.poses)
    if keeper is not None:
        keeper.save(kept.take_final_snapshot(now.model, now.poses, evidence, now.curves), needed=True)
    return Start(task.number, now.model, now.poses, evidence, now.curves)


@dataclass(frozen=True)
class StartTask:
    """What one start is given.

    Attributes
    ----------
    number : int
        With the seed it fixes everything random.
    sigma2 : (groups, shells) float64
        First noise: the power of the images.
    held_out : (m,) int64
        Particles that are left out and rank the result.
    """

    number: int
    sigma2: FloatArray
    held_out: IntArray


class Method(Protocol):
    """How a start comes to its map."""

    def begin(
        self,
        problem: Problem,
        settings: AbInitioSettings,
        course: Course,
        train: IntArray,
        task: StartTask,
    ) -> kept.UnderWay:
        """A start before its first iteration."""

    def iterate(self, problem: Problem, course: Course, train: IntArray, now: kept.UnderWay) -> None:
        """The next iteration: new maps and curves."""


class StochasticEM(Method):
    """Mini-batches of posteriors over all poses."""

    def begin(
        self,
        problem: Problem,
        settings: AbInitioSettings,
        course: Course,
        train: IntArray,
        task: StartTask,
    ) -> kept.UnderWay:
        """A blob of some images for each class."""
        sigma2 = task.sigma2
        rng = np.random.default_rng((settings.seed, task.number))
        # Few images on purpose: the average of many is the same ball for every start and class, and nothing would part
        # them.
        few = min(_START_IMAGES, len(train))
        volumes = np.stack(
            [
                random_map(problem, np.sort(rng.choice(train, few, replace=False)), settings, int(rng.integers(2**31)))
                for _ in range(settings.classes)
            ]
        )
        model = HalfModel(
            volumes,
            sigma2.copy(),
            np.ones(problem.n_micrographs),
            np.full(settings.classes, 1 / settings.classes),
        )
        curves = np.zeros((settings.classes, problem.box // 2 + 1))
        poses = PoseTable.unknown(len(problem))
        return kept.UnderWay(rng, rng.permutation(train), 0, model, poses, curves, float(course.first_radius))

    def iterate(self, problem: Problem, course: Course, train: IntArray, now: kept.UnderWay) -> None:
        """The next mini-batch."""
        iteration, size = now.iteration, course.batch(now.iteration)
        # The rest of an order is dropped, not filled up: a batch never holds a particle twice.
        if now.at + size > len(now.order):
            now.order, now.at = now.rng.permutation(train), 0
        rows = np.sort(now.order[now.at : now.at + size])
        now.at += size
        step = course.step(course.radius(iteration, now.resolved))
        batch = BatchStep(problem, now.model, step, course.grid_radius)
        fresh = batch.sums(now.rng.permutation(rows), now.poses)
        now.sums = fresh if now.sums is None else now.sums.step_towards(fresh, course.step_size(iteration))
        now.model, now.curves = update_model(problem, now.model, now.sums)


def full_passes(
    problem: Problem, settings: AbInitioSettings, start: Start, train: IntArray, held_out: IntArray
) -> Start:
    """A start after passes over all its particles at the final resolution, with fresh evidence of those held out."""
    course = Course(problem, settings, len(train))
    step = course.step(course.last_radius)
    model, curves, poses = start.model, start.curves, PoseTable.unknown(len(problem))
    for _ in range(settings.full_iterations):
        model, curves = update_model(
            problem, model, BatchStep(problem, model, step, course.grid_radius).sums(train, poses)
        )
    evidence = BatchStep(problem, model, step, course.grid_radius, EVIDENCE_ALONE).evaluate(held_out, poses)
    return Start(start.number, model, poses, evidence, curves)


def evaluate_held_out(
    problem: Problem, settings: AbInitioSettings, model: HalfModel, held_out: IntArray, sigma2: FloatArray
) -> FloatArray:
    """Evidence of held-out particles by a model, but with given noise.

    Evidences are counted from those of a map without density under the same noise: only with one noise can those of
    several models be compared, and a model that fits its own particles too closely takes the noise for too small.
    """
    course = Course(problem, settings, len(problem) - len(held_out))
    same_noise, step = replace(model, sigma2=sigma2), course.step(course.last_radius)
    scored = BatchStep(problem, same_noise, step, course.grid_radius, EVIDENCE_ALONE)
    return scored.evaluate(held_out, PoseTable.unknown(len(problem)))


def update_model(problem: Problem, model: HalfModel, sums: BatchSums) -> tuple[HalfModel, FloatArray]:
    """Maps, noise and class weights from the running sums."""
    volumes, curves = sums.maps(problem, model.volumes)
    sigma2 = ops.noise_variance(sums.squared, sums.coefficients, before=model.sigma2, least=_LEAST_NOISE)
    # Shell 0 is the mean of the images, which the model does not hold.
    sigma2[:, 0] = sigma2[:, 1]
    # A class without members makes no map that could win any back.
    weight = np.maximum(sums.mass / sums.mass.sum(), 0.02)
    return replace(model, volumes=volumes, sigma2=sigma2, class_weight=weight / weight.sum()), curves


def finish_start(
    problem: Problem, settings: AbInitioSettings, start: Start, tick: Callable[[int], None] = ignore_count
) -> Start:
    """A start with poses of all particles, held-out ones included, which add to its maps as well.

    ``tick`` hears how many particles each batch holds.
    """
    rows = np.arange(len(problem))
    course = Course(problem, settings, len(rows))
    step = course.step(course.last_radius)
    poses = PoseTable.unknown(len(problem))
    sums = BatchStep(problem, start.model, step, course.grid_radius).sums(rows, poses, tick)
    model, curves = update_model(problem, start.model, sums)
    return replace(start, model=model, poses=poses, curves=curves)


def place_particles(
    problem: Problem,
    settings: AbInitioSettings,
    model: HalfModel,
    tell: Tell | None = None,
    *,
    keeper: Keeper | None = None,
) -> PoseTable:
    """Poses of all particles of a problem against maps that do not learn from them.

    Parameters
    ----------
    problem : Problem
    settings : AbInitioSettings
    model : HalfModel
    tell : callable, optional
        Called with particles done, in all.
    keeper : Keeper, optional
        Keeps the poses found so far.
    """
    total = len(problem)
    course = Course(problem, settings, total)
    step = BatchStep(problem, model, course.step(course.last_radius), course.grid_radius, EVIDENCE_ALONE)
    snapshot = None if keeper is None else keeper.load()
    poses = PoseTable.unknown(total) if snapshot is None else from_arrays(PoseTable, "poses.", snapshot.arrays)
    count = 0 if snapshot is None else int(snapshot.record["done"])
    while count < total:
        rows = np.arange(count, min(count + _PLACED_AT_ONCE, total))
        step.evaluate(rows, poses)
        count += len(rows)
        if keeper is not None:
            keeper.save(Snapshot(to_arrays("poses.", poses), {"done": count}))
        if tell is not None:
            tell(count, total)
    return poses
