"""The refinement loop on arrays: start, iterate, converge. Files, pages and resuming are :mod:`verglas.run.refine`'s."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.geometry import angular_distance
from verglas.refinement import schedule, start
from verglas.refinement.grid_step import GridStep, HalfSums
from verglas.refinement.pose_step import PoseStep
from verglas.refinement.problem import Problem, Survey
from verglas.refinement.settings import Step
from verglas.refinement.state import HalfModel, PoseTable, State
from verglas.refinement.update import ClassMaps, class_maps, fold_in, learn, resolution_shell
from verglas.types import Map

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]  # phase, particles done, in all

_SMALL_DEG, _SMALL_PX = 1.0, 0.5
_EMPTY_CLASS = 0.01
_PATIENCE = 2


@dataclass(frozen=True)
class Iteration:
    """What one iteration made, besides the state.

    Attributes
    ----------
    step : Step
    maps : list of ClassMaps
        One per class.
    """

    step: Step
    maps: list[ClassMaps]


def peak_memory_GB() -> float:
    """Largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def initial_state(problem: Problem, found: Survey, references: list[Map]) -> tuple[State, list[str]]:
    """State before the first iteration, and sentences on what was done to the references.

    Parameters
    ----------
    problem : Problem
    found : Survey
        Of the problem's particles.
    references : list of Map
        One per class, or one for all; same box as the particles.
    """
    step, settings = schedule.first_step(problem), problem.settings
    said = []
    volumes = start.low_passed(problem, references)
    coarse = schedule.make_step(problem, "grid", step.radius, step.order, step.shift_range_px)
    factors = [start.match_grey_scale(problem, v, coarse) for v in (volumes[:1] if len(references) == 1 else volumes)]
    for k, factor in enumerate(factors):
        volumes[k if len(factors) > 1 else slice(None)] *= np.float32(factor)
        name = "the reference" if len(factors) == 1 else f"reference {k + 1}"
        said.append(f"{name} was multiplied by {factor:.4g} to match the grey scale of the images, and low-passed to "
                    f"{settings.initial_resolution_A:g} A")  # fmt: skip
    signal = np.mean([start.mean_slice_power(problem, v) for v in volumes], axis=0)
    micrographs = int(problem.micrograph.max()) + 1
    classes = len(volumes)
    halves = [
        HalfModel(
            volumes.copy(), start.first_noise(problem, found.power, signal, problem.rows_of_half(half)),
            np.ones(micrographs), np.full(classes, 1 / classes),
        )
        for half in (1, 2)
    ]  # fmt: skip
    poses = PoseTable.unknown(len(problem))
    given = problem.particles.poses
    if settings.poses == "local" and given is not None:
        poses.angles_deg, poses.origin_px = given.angles_deg.copy(), given.shifts_A / problem.pixel_size_A
        if "rlnClassNumber" in problem.particles.table:
            number = problem.particles.table["rlnClassNumber"].to_numpy(np.int64) - 1
            poses.class_number = np.clip(number, 0, classes - 1)
    shells = problem.box // 2 + 1
    return State(0, poses, halves, np.zeros((classes, shells)), float(step.radius)), said


def _pass(problem: Problem, state: State, step: Step, progress: Progress | None) -> tuple[list[HalfSums], list[float]]:
    """Expectation and sums of both halves, each with its own references."""
    mask = problem.sphere if state.mask is None else state.mask
    found, seconds, done = [], [], [0]

    def tick(count: int) -> None:
        done[0] += count
        if progress is not None:
            progress(step.phase, done[0], len(problem))

    for half in (1, 2):
        begun = time.perf_counter()
        kind = GridStep if step.phase == "grid" else PoseStep
        work = kind(problem, state.halves[half - 1], mask, step)
        found.append(work.run(half, state.poses, tick))
        seconds.append(time.perf_counter() - begun)
    return found, seconds


def iterate(problem: Problem, state: State, step: Step, progress: Progress | None = None) -> tuple[State, Iteration]:
    """One iteration.

    Parameters
    ----------
    problem : Problem
    state : State
        Not changed.
    step : Step
    progress : callable, optional
        Called with (phase, particles done, particles in all).

    Returns
    -------
    State, Iteration
        The new state, with one more row, and the maps made.
    """
    begun = time.perf_counter()
    settings = problem.settings
    before = state.poses
    halves = [HalfModel(**{k: v.copy() for k, v in vars(h).items()}) for h in state.halves]
    new = State(state.iteration + 1, before.copy(), halves, state.fsc, state.resolution_shell, state.mask,
                state.unimproved, False, list(state.rows))  # fmt: skip
    found, pass_seconds = _pass(problem, new, step, progress)
    between = time.perf_counter()
    for half in (1, 2):
        learn(problem, halves[half - 1], found[half - 1].totals, new.poses, problem.rows_of_half(half))
    mask = problem.sphere if new.mask is None else new.mask
    T = settings.regularisation or (1.0 if len(halves[0].volumes) == 1 else 4.0)
    maps = [class_maps(problem, s, mask, step.insert_radius, regularisation_T=T) for s in fold_in(problem, found)]
    for half in (0, 1):
        halves[half].volumes = np.stack([m.halves[half] for m in maps])
    new.fsc = np.stack([m.masked for m in maps])
    shells = [resolution_shell(m.masked, step.insert_radius) for m in maps]
    largest = int(np.argmax(sum(h.class_weight for h in halves)))
    new.resolution_shell = shells[largest]
    row = _row(problem, new, before, step)
    row |= {
        "resolution_A": problem.resolution_of_A(shells[largest]),
        "resolution_unmasked_A": problem.resolution_of_A(resolution_shell(maps[largest].unmasked, step.insert_radius)),
        "seconds": time.perf_counter() - begun,
        "seconds_expectation": sum(pass_seconds),
        "seconds_reconstruction": time.perf_counter() - between,
        "peak_memory_GB": peak_memory_GB(),
    }
    new.rows.append(row)
    grew = new.resolution_shell > state.resolution_shell + 0.5
    new.unimproved = 0 if grew else state.unimproved + 1
    new.finished = _converged(new, step)
    return new, Iteration(step, maps)


def _row(problem: Problem, state: State, before: PoseTable, step: Step) -> dict[str, Any]:
    poses = state.poses
    angle = angular_distance(poses.angles_deg, before.angles_deg, problem.settings.symmetry)
    shift = np.hypot(*(poses.origin_px - before.origin_px).T)
    known = np.isfinite(before.log_evidence)
    populations = sum(h.class_weight for h in state.halves) / 2

    def median(values: FloatArray) -> float:
        return float(np.median(values)) if len(values) else float("nan")

    finite = np.isfinite(poses.angle_error_deg)
    return {
        "iteration": state.iteration,
        "phase": step.phase,
        "search_resolution_A": problem.resolution_of_A(step.radius),
        "insert_resolution_A": problem.resolution_of_A(step.insert_radius),
        "step_deg": step.step_deg,
        "shift_step_A": step.shift_step_px * problem.pixel_size_A,
        "shift_range_A": step.shift_range_px * problem.pixel_size_A,
        "log_likelihood": float(np.mean(poses.log_evidence)),
        "max_probability": float(np.nanmean(poses.max_probability))
        if np.isfinite(poses.max_probability).any()
        else 1.0,
        "effective_poses": float(np.mean(poses.effective_poses)),
        "angle_change_deg": median(angle[known]),
        "shift_change_A": median(shift[known]) * problem.pixel_size_A,
        "shift_change_px": float(np.sqrt(np.mean(shift[known] ** 2))) if known.any() else float("nan"),
        "far_fraction": float(np.mean(angle[known] > step.step_deg)) if known.any() else 1.0,
        "class_change": float(np.mean(poses.class_number[known] != before.class_number[known])) if known.any() else 1.0,
        "populations": ";".join(f"{p:.4f}" for p in populations),
        "accuracy_deg": median(poses.angle_error_deg[finite]),
        "accuracy_shift_A": median(poses.shift_error_px[finite]) * problem.pixel_size_A,
    }


def _converged(state: State, step: Step) -> bool:
    """Neither the resolution nor the poses change any more."""
    row = state.rows[-1]
    if step.phase == "grid" or state.unimproved < _PATIENCE:
        return False
    floor = row["accuracy_deg"] if np.isfinite(row["accuracy_deg"]) else 0.0
    return bool(row["angle_change_deg"] <= max(_SMALL_DEG / 2, floor) and row["class_change"] <= 0.02)
