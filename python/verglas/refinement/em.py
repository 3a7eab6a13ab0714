"""The refinement loop on arrays: start, iterate, converge. :mod:`verglas.run.refine` adds files, pages and resuming."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas import filters
from verglas._devices import work_on
from verglas.geometry import angular_distance
from verglas.refinement import schedule, start
from verglas.refinement.curvature import on_the_sphere
from verglas.refinement.figures import Figures
from verglas.refinement.prior_choice import HeldOutPoses
from verglas.refinement.problem import RefineProblem
from verglas.refinement.score_mask import LOCAL, HeldOutShells, ScoreMask
from verglas.refinement.state import State
from verglas.refinement.update import ClassMaps, Judge, MapUpdate, class_maps, learn, mask_from_map, resolution_shell
from verglas.regularisation import PRIORS, LocalWiener, Prior, Wiener
from verglas.search.grid_step import HalfSums
from verglas.search.half_pass import HalfTask, Runner, run_here
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.listener import Progress
from verglas.types.verdict import Finding

_EMPTY_CLASS = 0.01
_PERTURBATION = 0.3
_STILL = 0.02  # particles that may change class


@dataclass(frozen=True)
class Iteration:
    """What one iteration made, besides the state.

    Attributes
    ----------
    step : Step
    maps : list of ClassMaps
        One per class.
    notes : list of Finding
        What a reader should know: classes that were seeded again, GPUs that ran out of memory.
    """

    step: Step
    maps: list[ClassMaps]
    notes: list[Finding]


def peak_memory_GB() -> float:
    """Largest resident size of this process so far."""
    # On Linux ru_maxrss survives exec, and so holds the peak of whatever started this program; VmHWM does not.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def initial_state(
    problem: RefineProblem,
    power: npt.NDArray[np.float32],
    references: list[Map],
    mask: npt.NDArray[np.float32] | None = None,
) -> tuple[State, list[Finding]]:
    """State before the first iteration, and sentences on what was done to the references.

    Parameters
    ----------
    problem : RefineProblem
    power : (n, shells) float32
        Of the problem's images (:class:`verglas.search.problem.Survey`).
    references : list of Map
        One per class, or one for all; same box as the particles.
    mask : (N, N, N) float32, optional
        The user's solvent mask.
    """
    settings = problem.settings
    step = schedule.first_step(problem, split=len(references) < settings.classes)
    notes = []
    volumes = start.low_pass_references(problem, references)
    coarse = schedule.make_step(problem, "grid", step.radius, step.order, step.shift_range_px)
    factors = [start.match_grey_scale(problem, v, coarse) for v in (volumes[:1] if len(references) == 1 else volumes)]
    for k, factor in enumerate(factors):
        volumes[k if len(factors) > 1 else slice(None)] *= np.float32(factor)
        name = "the reference" if len(factors) == 1 else f"reference {k + 1}"
        sentence = (
            f"{name} was multiplied by {factor:.4g} to match the grey scale of the images, and low-passed to "
            f"{settings.initial_resolution_A:g} A"
        )
        numbers = {"factor": float(factor), "low_pass_A": settings.initial_resolution_A}
        notes.append(Finding("grey_scale", "go on", sentence, numbers))
    signal = np.mean([start.mean_slice_power(problem, v) for v in volumes], axis=0)
    micrographs = problem.n_micrographs
    classes = len(volumes)
    halves = [
        HalfModel(
            volumes.copy(),
            start.first_noise(problem, power, signal, problem.rows_of_half(half)),
            np.ones(micrographs),
            np.full(classes, 1 / classes),
        )
        for half in (1, 2)
    ]
    poses = PoseTable.unknown(len(problem))
    given = problem.particles.poses
    if settings.poses == "local" and given is not None:
        poses.angles_deg, poses.origin_px = given.angles_deg.copy(), given.shifts_A / problem.pixel_size_A
        if "rlnClassNumber" in problem.particles.table:
            number = problem.particles.table["rlnClassNumber"].to_numpy(np.int64) - 1
            poses.class_number = np.clip(number, 0, classes - 1)
    if step.split:
        poses.class_number = np.random.default_rng(settings.seed).integers(classes, size=len(problem))
    shells = problem.box // 2 + 1
    return State(0, poses, halves, np.zeros((classes, shells)), float(step.radius), mask), notes


def _mask_of(problem: RefineProblem, state: State) -> Float32Array:
    """The solvent mask, or the sphere as long as there is none."""
    return problem.sphere if state.mask is None else state.mask


def _pass(
    problem: RefineProblem, state: State, step: Step, progress: Progress | None, notes: list[Finding], runner: Runner
) -> list[HalfSums]:
    """Expectation and sums of both halves, each with its own references; poses of the state are replaced."""
    mask = _mask_of(problem, state) if state.score_mask is None else state.score_mask
    done, one_at_a_time = [0], threading.Lock()

    def tick(count: int) -> None:
        with one_at_a_time:
            done[0] += count
            if progress is not None:
                progress(step.phase, done[0], len(problem))

    tasks = [HalfTask(problem, state.halves[half - 1], mask, step, half, notes) for half in (1, 2)]
    return runner(tasks, state.poses, tick)


def _expectation(
    problem: RefineProblem, state: State, step: Step, progress: Progress | None, notes: list[Finding], runner: Runner
) -> list[HalfSums]:
    """A pass over the particles of the step, and what it teaches of noise, scales and classes (in the state)."""
    rows = schedule.rows_of_step(problem, step)
    part = problem if rows is None else problem.part(rows)
    some = state if rows is None else replace(state, poses=state.poses.of(rows))
    matched = _pass(part, some, step, progress, notes, runner)
    for half in (1, 2):
        learn(part, state.halves[half - 1], matched[half - 1].totals, some.poses, part.rows_of_half(half))
    if rows is not None:
        state.poses.put(rows, some.poses)
    return matched


def iterate(
    problem: RefineProblem,
    state: State,
    step: Step,
    progress: Progress | None = None,
    runner: Runner = run_here,
) -> tuple[State, Iteration]:
    """One iteration.

    Parameters
    ----------
    problem : RefineProblem
    state : State
        Not changed.
    step : Step
    progress : callable, optional
        Called with (phase, particles done, particles in all).
    runner : callable
        Runs the passes over the half sets: in this process, or on the workers of a cluster
        (:class:`verglas.cluster.Passes`), with the same result.

    Returns
    -------
    State, Iteration
        The new state, with one more row, and the maps made.
    """
    begun = time.perf_counter()
    settings = problem.settings
    before = state.poses
    # Volumes are replaced, all else is learned in place.
    halves = [HalfModel(h.volumes, h.sigma2.copy(), h.scale.copy(), h.class_weight.copy()) for h in state.halves]
    new = State(
        state.iteration + 1,
        before.copy(),
        halves,
        state.fsc,
        state.resolution_shell,
        state.mask,
        state.unimproved,
        False,
        list(state.figures),
        state.score_mask,
    )
    notes: list[Finding] = []
    before_pass = time.perf_counter()
    if settings.ewald and step.phase == "local":
        problem = on_the_sphere(problem, before, step, notes)
    matched = _expectation(problem, new, step, progress, notes, runner)
    between = time.perf_counter()
    maps: list[ClassMaps] = []
    for _ in range(len(halves[0].volumes)):
        sums = [half.grids.pop(0) for half in matched]  # class_maps frees them one by one
        priors, judge = _priors(problem, new, step, len(maps))
        how = MapUpdate(
            step.insert_radius,
            settings.T,
            may_end(problem, step),
            state.mask,
            priors,
            judge,
            iteration=new.iteration,
            class_number=len(maps),
        )
        with work_on(problem.device):
            maps.append(class_maps(problem, sums, how))
    for half in (0, 1):
        halves[half].volumes = np.stack([m.halves[half] for m in maps])
    new.fsc = np.stack([m.masked for m in maps])
    shells = [resolution_shell(m.masked, step.insert_radius) for m in maps]
    largest = int(np.argmax(halves[0].class_weight + halves[1].class_weight))
    new.resolution_shell = shells[largest]
    if not problem.mask_given:
        new.mask = mask_from_map(problem, maps[largest].halves, shells[largest]) if len(maps) == 1 else None
    scored = _score_mask(problem, new, step, maps[largest])
    new.score_mask = scored.weight
    notes += [] if step.final or step.split else reseed_empty_classes(problem, new)
    timing = _Timing(begun, between - before_pass, between)
    new.figures.append(_figures(problem, new, before, step, _Made(maps[largest], scored, timing)))
    new.unimproved = 0 if _has_improved(state, new) else state.unimproved + 1
    new.finished = state.finished or _has_converged(new, step)
    return new, Iteration(step, maps, notes)


def _priors(problem: RefineProblem, state: State, step: Step, class_number: int) -> tuple[list[Prior], Judge | None]:
    """The prior that the settings name; of ``auto`` the priors to compare, and what compares them."""
    named = problem.settings.regularisation
    if problem.map_prior is not None:
        return [problem.map_prior], None
    if named != "auto":
        return [PRIORS[named]()], None
    # Poses of a grid are too coarse to tell what is gained at high resolution.
    if step.phase == "grid":
        return [Wiener()], None
    held_out = HeldOutPoses(problem, state.halves, state.poses, _mask_of(problem, state), step.insert_radius)
    return [Wiener(), LocalWiener()], partial(held_out.choose, class_number=class_number)


def _score_mask(problem: RefineProblem, state: State, step: Step, maps: ClassMaps) -> ScoreMask:
    """What of the references of this state is scored, as the settings ask for."""
    asked = problem.settings.score_mask
    # Poses of a grid are too coarse to tell what poses gain at high resolution.
    if asked == "off" or maps.weight is None or (asked == "auto" and step.phase == "grid"):
        return ScoreMask()
    mask = _mask_of(problem, state)
    weight = mask * maps.weight
    if asked == "local":
        return ScoreMask(LOCAL, weight)
    radius = min(int(state.resolution_shell), step.insert_radius)
    with work_on(problem.device):
        return HeldOutShells(problem, state.halves, state.poses, radius).compare(mask, weight)


def may_end(problem: RefineProblem, step: Step) -> bool:
    """Whether the maps of a step can be the result: continuous poses, maps to the last shell."""
    return step.final or (step.phase != "grid" and step.insert_radius == problem.last_radius)


def reseed_empty_classes(problem: RefineProblem, state: State) -> list[Finding]:
    """Give every class that lost its particles half of the largest one, with a small change; says so.

    Without this, a class once empty stays empty: its reference is an average of nothing.
    """
    weights = (state.halves[0].class_weight + state.halves[1].class_weight) / 2
    notes = []
    for k in np.flatnonzero(weights < _EMPTY_CLASS):
        largest = int(np.argmax(weights))
        weights[k] = weights[largest] = weights[largest] / 2
        change = _perturbation(problem, state, int(k))  # the same for both halves, so that the class stays one class
        for half in state.halves:
            size = np.float32(_PERTURBATION * half.volumes[largest].std())
            half.volumes[k] = half.volumes[largest] + size * change
            half.class_weight[k] = half.class_weight[largest] = half.class_weight[largest] / 2
        sentence = f"iteration {state.iteration}: class {k + 1} was empty; it starts again from class {largest + 1}"
        notes.append(Finding("empty_class", "warn", sentence, {"class": int(k) + 1, "from_class": largest + 1}))
    return notes


def _perturbation(problem: RefineProblem, state: State, k: int) -> npt.NDArray[np.float32]:
    """Smooth noise of unit variance inside the sphere, at the present resolution."""
    rng = np.random.default_rng([problem.settings.seed, state.iteration, k])
    noise = Map(rng.standard_normal((problem.box,) * 3, dtype=np.float32), problem.pixel_size_A)
    coarse = filters.low_pass(max(problem.resolution_of_A(state.resolution_shell), 2 * problem.pixel_size_A))
    smooth = filters.apply(noise, coarse, threads=problem.threads).data * problem.sphere
    return smooth / smooth.std()


@dataclass(frozen=True)
class _Timing:
    """When an iteration began, how long its two passes took, and when maps began to be made; seconds."""

    begun: float
    passes: float
    maps_begun: float


@dataclass(frozen=True)
class _Made:
    """What an iteration made: maps of the largest class, what of them is scored next, and how long that took."""

    maps: ClassMaps
    scored: ScoreMask
    timing: _Timing


def _figures(problem: RefineProblem, state: State, before: PoseTable, step: Step, made: _Made) -> Figures:
    """Of an iteration."""
    poses, maps, scored, timing = state.poses, made.maps, made.scored, made.timing
    angle = angular_distance(poses.angles_deg, before.angles_deg, problem.symmetry)
    shift = np.hypot(*(poses.origin_px - before.origin_px).T)
    known, reached = np.isfinite(before.log_evidence), np.isfinite(poses.log_evidence)
    populations = (state.halves[0].class_weight + state.halves[1].class_weight) / 2
    sharp, finite = np.isfinite(poses.max_probability), np.isfinite(poses.angle_error_deg)
    now = time.perf_counter()
    return Figures(
        iteration=state.iteration,
        phase=step.phase,
        search_resolution_A=problem.resolution_of_A(step.radius),
        insert_resolution_A=problem.resolution_of_A(step.insert_radius),
        step_deg=step.step_deg,
        shift_step_A=step.shift_step_px * problem.pixel_size_A,
        shift_range_A=step.shift_range_px * problem.pixel_size_A,
        log_likelihood=float(np.mean(poses.log_evidence[reached])),
        max_probability=float(np.nanmean(poses.max_probability)) if sharp.any() else 1.0,
        effective_poses=float(np.mean(poses.effective_poses[reached])),
        angle_change_deg=_median(angle[known]),
        shift_change_A=_median(shift[known]) * problem.pixel_size_A,
        shift_change_px=float(np.sqrt(np.mean(shift[known] ** 2))) if known.any() else float("nan"),
        far_fraction=float(np.mean(angle[known] > step.step_deg)) if known.any() else 1.0,
        class_change=float(np.mean(poses.class_number[known] != before.class_number[known])) if known.any() else 1.0,
        populations=tuple(float(p) for p in populations),
        accuracy_deg=_median(poses.angle_error_deg[finite]),
        accuracy_shift_A=_median(poses.shift_error_px[finite]) * problem.pixel_size_A,
        resolution_A=problem.resolution_of_A(resolution_shell(maps.masked, step.insert_radius)),
        resolution_unmasked_A=problem.resolution_of_A(resolution_shell(maps.unmasked, step.insert_radius)),
        seconds=now - timing.begun,
        seconds_expectation=timing.passes,
        seconds_reconstruction=now - timing.maps_begun,
        peak_memory_GB=peak_memory_GB(),
        regularisation=maps.choice.name,
        regularisation_gain=maps.choice.gain,
        regularisation_gain_error=maps.choice.error,
        particles=2 * step.particles or len(problem),
        score_mask=scored.name,
        score_mask_gain=scored.gain,
        score_mask_gain_error=scored.error,
    )


def _median(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _has_improved(before: State, now: State) -> bool:
    """A third of a shell more, or poses known better by a twentieth: a better map that the FSC does not show yet."""
    old, new = (np.nan_to_num(s.figures[-1].accuracy_deg, nan=np.inf) if s.figures else np.inf for s in (before, now))
    return bool(now.resolution_shell > before.resolution_shell + 1 / 3 or new < 0.95 * old)


def _has_converged(state: State, step: Step) -> bool:
    """Neither the resolution nor the poses change any more: poses by less than half of how well they are known."""
    figures = state.figures[-1]
    if step.phase == "grid" or state.unimproved == 0 or not figures.class_change <= _STILL:
        return False
    known = np.nan_to_num(figures.accuracy_deg)
    return bool(figures.angle_change_deg <= known / 2 or state.unimproved >= schedule.PATIENCE)


def refine_state(
    problem: RefineProblem,
    state: State,
    step: Step,
    *,
    progress: Progress | None = None,
    after: Callable[[State, Iteration, Step | None], None] | None = None,
    runner: Runner = run_here,
) -> tuple[State, Iteration]:
    """Iterate until nothing changes any more; then once more, if the last maps did not reach the last shell.

    Parameters
    ----------
    problem : RefineProblem
    state : State
        From :func:`initial_state`, or of an earlier iteration.
    step : Step
        The next step.
    progress : callable, optional
        Called with (phase, particles done, particles in all).
    after : callable, optional
        Called after every iteration with the state, what was made, and the step that follows (None after the last): a
        refinement goes on from there as if it had not been stopped.
    runner : callable
        As in :func:`iterate`.

    Returns
    -------
    State, Iteration
        Of the final pass.
    """
    while True:
        state, made = iterate(problem, state, step, progress, runner)
        following: Step | None
        if step.final:
            following = None
        elif state.finished or state.iteration >= problem.settings.iterations:
            following = None if may_end(problem, step) else schedule.final_step(problem, step)
        else:
            following = schedule.next_step(problem, state, step)
        if after is not None:
            after(state, made, following)
        if following is None:
            return state, made
        step = following
        del made  # maps that would be held beside the sums of the next iteration
