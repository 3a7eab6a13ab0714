"""Several structures in one set of particles: how many, which, and which particle is of which.

One map is fitted to all particles first. Other structures are guessed from it, and the particles choose among them at
low resolution (:mod:`verglas.heterogeneity.seeds`); at the particles' own poses they are split where they differ most
(:mod:`verglas.heterogeneity.fixed_classes`). From there the maps are told apart by expectation-maximisation over
classes and poses, with one noise model and two half sets apart: all that they share is the low-resolution start, which
particles of both halves chose. Every particle is finally judged by the maps of the half that it is not in: the gain
over a single map says whether there are several structures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from verglas.heterogeneity.gain import mean_gain
from verglas.heterogeneity.junk import junk_posterior
from verglas.heterogeneity.migration import migration_matrix
from verglas.heterogeneity.seeds import Seeds, SeedSearch, seed_search
from verglas.heterogeneity.settings import ClassSettings
from verglas.heterogeneity.splitting import Split
from verglas.initial_model.course import resample_to_box
from verglas.refinement import schedule
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.figures import Figures
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.refinement.state import State
from verglas.search.grid_step import GridStep
from verglas.search.half_pass import Runner, run_here
from verglas.search.problem import image_batches, survey
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Keeper, Map, Particles, Snapshot
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, Silence, phase_progress
from verglas.types.snapshot import from_arrays, to_arrays

_NO_JOIN_A = 1e5  # half maps are given nothing in common: particles of one judge the maps of the other
_FEWEST_OF_HALF = 10
REPEAT_SEED = 1_000_003  # repeats begin from guesses that no neighbouring seed draws


class ClassObserver:
    """Who is told how a classification goes, keeps where it stands, and runs its passes; this one runs them here."""

    def __init__(self, listener: Listener | None = None, runner: Runner = run_here) -> None:
        self.listener: Listener = listener or Silence()
        self.runner = runner

    def keeper(self, name: str) -> Keeper | None:
        """For a part of the work, by name."""
        return None


@dataclass(frozen=True)
class ClassTrial:
    """Classes of one number.

    Attributes
    ----------
    classes : int
        K.
    volumes : (K, N, N, N) float32
        Mean of both halves, at the working sampling; the most populated first.
    halves : list of (K, N, N, N) float32
        Two.
    fsc : (K, shells) float64
        Between the halves.
    poses : PoseTable
        Of every particle.
    posterior : (n, K) float64
        Of every particle, under the maps of both halves; at fixed poses, of the other half.
    evidence : (n,) float64
        Log evidence under the maps of the other half.
    iterations : int
    class_change : list of float
        Particles that changed class, by iteration.
    junk : (n,) float64, optional
        Posterior of being explained by noise alone, which those of the classes leave room for
        (:mod:`verglas.heterogeneity.junk`).
    migration : (K, K) int64, optional
        Particles of each class before the last iteration in each class after it.
    splits : list of Split
        How the classes were made from one, where they were made by splitting.
    """

    classes: int
    volumes: Float32Array
    halves: list[Float32Array]
    fsc: FloatArray
    poses: PoseTable
    posterior: FloatArray
    evidence: FloatArray
    iterations: int
    class_change: list[float] = field(default_factory=list)
    junk: FloatArray | None = None
    migration: IntArray | None = None
    splits: list[Split] = field(default_factory=list)

    @property
    def number(self) -> IntArray:
        """(n,) class of every particle, from 0; K of those that are junk."""
        all_of_them = self.posterior if self.junk is None else np.column_stack([self.posterior, self.junk])
        return np.asarray(all_of_them.argmax(axis=1), np.int64)

    def with_junk(self) -> ClassTrial:
        """The same, with noise alone as another explanation of every particle."""
        junk, evidence = junk_posterior(self.evidence)
        made = replace(self, junk=junk, evidence=evidence, posterior=self.posterior * (1 - junk[:, None]))
        made.poses.class_number = made.number
        return made


@dataclass(frozen=True)
class _Work:
    """What all numbers of classes share."""

    problem: RefineProblem
    settings: ClassSettings
    observer: ClassObserver

    def with_classes(self, count: int) -> RefineProblem:
        """The problem for so many classes."""
        settings = replace(self.problem.settings, classes=count, prior_factor=self.settings.prior_factor)
        return replace(self.problem, settings=settings, n_classes=count)


def refine_settings(settings: ClassSettings) -> RefineSettings:
    """What the engine is asked for."""
    return RefineSettings(
        symmetry=settings.symmetry,
        diameter_A=settings.diameter_A,
        initial_resolution_A=settings.initial_resolution_A,
        max_resolution_A=settings.resolution_A,
        join_resolution_A=_NO_JOIN_A,
        shift_range_A=settings.shift_range_A,
        solvent_mask=False,
        first_particles=settings.first_particles,
        seed=settings.seed,
    )


def make_problem(
    particles: Particles, settings: ClassSettings, *, threads: int | None, devices: tuple[str, ...]
) -> tuple[RefineProblem, Float32Array, dict[int, str]]:
    """The particles that can be used, their power spectra, and who was set aside.

    Parameters
    ----------
    particles : Particles
        At the working sampling.
    settings : ClassSettings
    threads : int, optional
    devices : tuple of str
    """
    seen = survey(particles, threads=threads, device=devices[0])
    chosen = refine_settings(settings)
    problem = RefineProblem.of(
        particles, seen.excluded, job="class3d", seed=settings.seed, settings=chosen, n_classes=1
    )
    used = np.setdiff1d(np.arange(len(particles)), list(seen.excluded))
    return replace(problem, devices=devices, threads=threads), seen.power[used], seen.excluded


class ClassSearch:
    """Classes by global search: the single map, and what every number of classes and every repeat begins with.

    Parameters
    ----------
    problem : RefineProblem
        From :func:`make_problem`.
    power : (n, shells) float32
    references : list of Map
        At the working sampling: one, or one per class.
    settings : ClassSettings
    observer : ClassObserver
    """

    def __init__(
        self,
        problem: RefineProblem,
        power: Float32Array,
        references: list[Map],
        settings: ClassSettings,
        observer: ClassObserver,
    ) -> None:
        self.whole, self.power, self.references = _Work(problem, settings, observer), power, references

    @cached_property
    def _single(self) -> tuple[State, Step]:
        """The single map of all particles."""
        return _consensus(self.whole, self.power, self.references[:1])

    @cached_property
    def _judge(self) -> _Judge:
        """The same noise and the same poses looked at for every number of classes: other evidence is of no use."""
        state, step = self._single
        return _Judge(replace(step, particles=0), [h.sigma2.copy() for h in state.halves])

    @cached_property
    def _first(self) -> ClassTrial:
        """One class."""
        return self._trial(self.whole.with_classes(1), *self._single)

    @cached_property
    def _begun(self) -> tuple[_Work, IntArray, State, Step]:
        """Particles that are not junk by the single map, and that map made once more of them alone."""
        state, step = self._single
        everyone = np.arange(len(self.whole.problem))
        junk = self._first.junk
        rows = everyone if junk is None else np.flatnonzero(junk < 0.5)
        if len(rows) == len(everyone) or not has_both_halves(self.whole.problem.half, rows):
            return self.whole, everyone, state, step
        work = replace(self.whole, problem=self.whole.problem.part(rows))
        number = state.iteration + self.whole.settings.consensus_iterations
        start = replace(state, poses=state.poses.of(rows))
        return work, rows, *_iterate_single(work, start, step, "consensus_without_junk", number)

    def trials(self, counts: list[int]) -> Iterator[ClassTrial]:
        """Every number of classes; the single map comes first."""
        _, rows, state, step = self._begun
        yield self._first if len(rows) == len(self.whole.problem) else self._judged(1, rows, state, step)
        for count in counts:
            if count > 1:
                yield self._classes(count, self._seeding, "")

    def again(self, count: int, number: int) -> ClassTrial:
        """So many classes once more, from other guesses; the repeats count from 1."""
        work, _, state, _ = self._begun
        return self._classes(count, _Seeding(work, state, number), f"repeat{number}_")

    @cached_property
    def _seeding(self) -> _Seeding:
        work, _, state, _ = self._begun
        return _Seeding(work, state)

    def _classes(self, count: int, seeding: _Seeding, name: str) -> ClassTrial:
        work, rows, state, step = self._begun
        problem = work.with_classes(count)
        if len(self.references) > 1:
            begun = _given_state(problem, self.power[rows], self.references, state)
        else:
            begun = seeding.state(count)
        now, last, migration = _iterate_classes(work, problem, begun, step, f"{name}classes{count}")
        return self._judged(count, rows, now, last, migration)

    def _judged(
        self, count: int, rows: IntArray, state: State, step: Step, migration: IntArray | None = None
    ) -> ClassTrial:
        """All particles by maps of some."""
        if len(rows) < len(self.whole.problem):
            poses = self._first.poses.copy()
            poses.put(rows, state.poses)
            state = replace(state, poses=poses)
        return self._trial(self.whole.with_classes(count), state, step, migration)

    def _trial(self, problem: RefineProblem, state: State, step: Step, migration: IntArray | None = None) -> ClassTrial:
        made = _trial(problem, state, replace(step, particles=0), self._judge, migration)
        return made.with_junk() if self.whole.settings.junk else made


def has_both_halves(half: IntArray, rows: IntArray) -> bool:
    """Whether enough particles of each half set are left for maps."""
    return bool(np.bincount(half[rows], minlength=3)[1:].min() >= _FEWEST_OF_HALF)


@dataclass
class _Seeding:
    """Classes at low resolution, each number of them grown from the one before."""

    work: _Work
    consensus: State
    repeat: int = 0
    grown: Seeds | None = None

    @cached_property
    def search(self) -> SeedSearch:
        """Guesses from the single map, and the particles that choose among them."""
        problem, settings = self.work.problem, self.work.settings
        seed = settings.seed + REPEAT_SEED * self.repeat
        return seed_search(problem, settings.shift_range_A / problem.pixel_size_A, seed)

    def state(self, count: int) -> State:
        """Start of so many classes."""
        name = f"repeat{self.repeat}_" if self.repeat else ""
        keeper = self.work.observer.keeper(f"{name}seeds{count}")
        saved = None if keeper is None else keeper.load()
        if saved is None:
            first, second = (h.volumes[0] for h in self.consensus.halves)
            before = self.grown or self.search.single((first + second) / 2)
            tell = phase_progress(self.work.observer.listener, f"starts of {count} classes, rounds")
            self.grown = self.search.grow(before, count, tell)
            if keeper is not None:
                arrays = to_arrays("", self.grown.model)
                keeper.save(Snapshot(arrays, {"score": self.grown.score}), needed=True)
        else:
            self.grown = Seeds(from_arrays(HalfModel, "", saved.arrays), saved.record["score"])
        return self._at_working_sampling(self.grown, count)

    def _at_working_sampling(self, seeds: Seeds, count: int) -> State:
        box = self.work.problem.box
        volumes = np.stack([resample_to_box(v, box) for v in seeds.model.volumes]).astype(np.float32)
        halves = [
            HalfModel(volumes.copy(), had.sigma2.copy(), had.scale.copy(), seeds.model.class_weight.copy())
            for had in self.consensus.halves
        ]
        state = self.consensus
        poses = state.poses.copy()
        poses.origin_px = self.search.origins_px(seeds) * (box / self.search.problem.box)
        return State(0, poses, halves, np.zeros((count, state.fsc.shape[1])), state.resolution_shell)


def _given_state(problem: RefineProblem, power: Float32Array, references: list[Map], before: State) -> State:
    """Start of as many classes as there are maps, with the noise of the single map."""
    first, _ = initial_state(problem, power, references)
    for half, had in zip(first.halves, before.halves, strict=True):
        half.sigma2, half.scale = had.sigma2.copy(), had.scale.copy()
    return replace(first, poses=before.poses.copy(), resolution_shell=before.resolution_shell)


def _consensus(work: _Work, power: Float32Array, references: list[Map]) -> tuple[State, Step]:
    """One map of all particles, by a few iterations over all poses."""
    problem = work.with_classes(1)
    keeper = work.observer.keeper("consensus")
    saved = None if keeper is None else keeper.load()
    if saved is None:
        state, notes = initial_state(problem, power, references)
        for note in notes:
            work.observer.listener.say(note.sentence)
        step = _grid_step(problem, schedule.first_step(problem), work.settings)
    else:
        state, step = restore_state(saved)
    return _iterate_single(work, state, step, "consensus", work.settings.consensus_iterations)


def _iterate_single(work: _Work, state: State, step: Step, name: str, number: int) -> tuple[State, Step]:
    """The single map up to this iteration."""
    problem = work.with_classes(1)
    keeper = work.observer.keeper(name)
    saved = None if keeper is None else keeper.load()
    if saved is not None:
        state, step = restore_state(saved)
    while state.iteration < number:
        state, step = _one_iteration(work, problem, state, step, "one map")
        if keeper is not None:
            keeper.save(keep_state(state, step), needed=True)
    return state, step


def _one_iteration(work: _Work, problem: RefineProblem, state: State, step: Step, name: str) -> tuple[State, Step]:
    number = state.iteration + 1

    def progress(phase: str, done: int, total: int) -> None:
        work.observer.listener.progress(f"{name}, iteration {number}", done, total)

    state, made = iterate(problem, state, step, progress, work.observer.runner)
    for note in made.notes:
        work.observer.listener.say(note.sentence)
    work.observer.listener.iteration(state.figures[-1].as_row())
    following = schedule.next_step(problem, state, step)
    # A pass over all particles is followed by such passes; over a part, by twice as many.
    following = replace(following, particles=schedule.growing(problem, 2 * step.particles))
    return state, _grid_step(problem, following, work.settings)


def _grid_step(problem: RefineProblem, step: Step, settings: ClassSettings) -> Step:
    """The step as a posterior over a whole grid, of the order that the settings ask for."""
    made = schedule.make_step(problem, "grid", step.radius, settings.direction_order, step.shift_range_px)
    return replace(made, split=False, particles=step.particles)


def _iterate_classes(
    work: _Work, problem: RefineProblem, state: State, step: Step, name: str
) -> tuple[State, Step, IntArray | None]:
    """Until so few particles change class that the populations stand; and who went where in the last iteration."""
    count = problem.n_classes
    keeper = work.observer.keeper(name)
    saved = None if keeper is None else keeper.load()
    migration = None
    # Maps of a part are no result, and its classes may stand while those of the others were never asked for.
    whole = not step.particles
    if saved is not None:
        state, step = restore_state(saved)
        migration, whole = saved.arrays.get("migration"), bool(saved.record["whole"])
    while not whole or (state.iteration < work.settings.iterations and not _stands(state, work.settings)):
        before, whole = state.poses.class_number, not step.particles
        state, step = _one_iteration(work, problem, state, step, f"{count} classes")
        known = before >= 0
        migration = migration_matrix(before[known], state.poses.class_number[known], count)
        if keeper is not None:
            kept = keep_state(state, step)
            keeper.save(Snapshot(kept.arrays | {"migration": migration}, kept.record | {"whole": whole}), needed=True)
    return state, step, migration


def _stands(state: State, settings: ClassSettings) -> bool:
    return state.iteration > 2 and bool(state.figures[-1].class_change <= settings.still)


@dataclass(frozen=True)
class _Judge:
    """By what held-out evidence is measured: poses and resolution looked at, noise of both halves."""

    step: Step
    sigma2: list[FloatArray]


def _trial(
    problem: RefineProblem, state: State, step: Step, judge: _Judge, migration: IntArray | None = None
) -> ClassTrial:
    """Evidence under the maps of the half that a particle is not in; class and pose under those of both."""
    step = replace(step, split=False)
    count = problem.n_classes
    posterior, evidence = np.zeros((len(problem), count)), np.zeros(len(problem))
    poses = state.poses.copy()
    first, second = state.halves
    both = HalfModel(
        np.asarray((first.volumes + second.volumes) / 2, np.float32),
        (first.sigma2 + second.sigma2) / 2,
        (first.scale + second.scale) / 2,
        (first.class_weight + second.class_weight) / 2,
    )
    for half in (1, 2):
        rows = problem.rows_of_half(half)
        other = replace(state.halves[2 - half], sigma2=judge.sigma2[2 - half])
        evidence[rows] = ClassPass(problem, other, problem.sphere, judge.step).evaluate(rows, poses)[1]
        poses.take(rows, state.poses)
    everyone = np.arange(len(problem))
    posterior[:] = ClassPass(problem, both, problem.sphere, step).evaluate(everyone, poses)[0]
    order = np.argsort(-posterior.sum(axis=0), kind="stable")
    volumes = [h.volumes[order] * problem.sphere for h in state.halves]
    poses.class_number = posterior[:, order].argmax(axis=1)
    return ClassTrial(
        count,
        np.asarray((volumes[0] + volumes[1]) / 2, np.float32),
        volumes,
        state.fsc[order],
        poses,
        posterior[:, order],
        evidence,
        state.iteration,
        [row.class_change for row in state.figures],
        migration=None if migration is None else migration[np.ix_(order, order)],
    )


class ClassPass(GridStep):
    """Posterior over classes and log evidence of particles, whose best poses go to a table; nothing is added up."""

    def evaluate(self, rows: IntArray, poses: PoseTable) -> tuple[FloatArray, FloatArray]:
        """(m, K) posteriors and (m,) evidence of these particles."""
        count, n = len(self.model.volumes), len(self.directions)
        shares, evidence = [np.zeros((0, count))], [np.zeros(0)]
        for batch in image_batches(self.problem, rows, self.model, poses):
            scores = self.score(batch)
            posterior = self.search.posterior(scores)
            number = posterior.image * count + posterior.slice // n
            share = np.bincount(number, posterior.weight, minlength=len(batch) * count).reshape(-1, count)
            shares.append(share / np.maximum(share.sum(axis=1, keepdims=True), 1e-30))
            evidence.append(np.asarray(scores.log_evidence, np.float64))
            self.learn_poses(batch, scores, poses)
        return np.concatenate(shares), np.concatenate(evidence)


def keep_state(state: State, step: Step) -> Snapshot:
    """A state between two iterations, as a checkpoint holds it."""
    arrays = to_arrays("poses.", state.poses) | {"fsc": state.fsc}
    for number, half in enumerate(state.halves, 1):
        arrays |= to_arrays(f"half{number}.", half)
    record: dict[str, Any] = {
        "iteration": state.iteration,
        "resolution_shell": state.resolution_shell,
        "unimproved": state.unimproved,
        "figures": [row.as_record() for row in state.figures],
        "step": vars(step),
    }
    return Snapshot(arrays, record)


def restore_state(saved: Snapshot) -> tuple[State, Step]:
    """What :func:`keep_state` took."""
    arrays, record = saved.arrays, saved.record
    state = State(
        record["iteration"],
        from_arrays(PoseTable, "poses.", arrays),
        [from_arrays(HalfModel, f"half{number}.", arrays) for number in (1, 2)],
        arrays["fsc"],
        record["resolution_shell"],
        None,
        record["unimproved"],
        False,
        [Figures.from_record(row) for row in record["figures"]],
    )
    return state, Step(**record["step"])


def gain_over(after: ClassTrial, before: ClassTrial, image: IntArray) -> tuple[float, float]:
    """Mean gain of held-out log evidence per particle, and its standard error (:func:`mean_gain`)."""
    return mean_gain(after.evidence - before.evidence, image)
