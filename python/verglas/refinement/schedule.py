"""Which step comes next: resolution and sampling follow the FSC; phases follow the sharpness of the posterior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verglas.geometry import healpix_spacing_deg
from verglas.refinement.problem import RefineProblem
from verglas.refinement.state import State
from verglas.search.pose_step import coarse_radius
from verglas.search.step import Step
from verglas.types.arrays import IntArray

_FIRST_ORDER = 3  # 7.3 degrees
_GRID_ORDER = 4  # 3.7 degrees: finest grid whose whole posterior is summed
# Shells scored beyond FSC = 0.143: what is left of signal there counts by its own small weight in the reference.
_BEYOND = 2
# Share of particles that change class, above which the resolution is held; but no longer than so many iterations.
_MOVING = 0.05
_MOST_HELD = 12
_STANDING_DEG = 3.0  # median turn below which most poses stand, and fewer alternatives are looked at
# Iterations without a better resolution that end the search over the grid, and then the refinement, whatever poses do.
PATIENCE = 3
_GROWING = 10  # marks the random numbers that draw parts of the half sets
# Median turn, and share of particles that jump to another peak of the search, below which a search is of no use.
_STILL_DEG, _STILL_FAR = 1.0, 0.1


def angles_in_plane(order: int) -> int:
    """In-plane angles at the spacing of the directions, a multiple of 16."""
    return 16 * int(np.ceil(360 / healpix_spacing_deg(order) / 16 - 1e-9))


def order_for(problem: RefineProblem, radius: int) -> int:
    """Coarsest grid that serves a radius, between the first order and the finest."""
    for order in range(_FIRST_ORDER, _GRID_ORDER):
        if coarse_radius(problem, healpix_spacing_deg(order)) >= radius:
            return order
    return _GRID_ORDER


def insert_radius_for(problem: RefineProblem, radius: float) -> int:
    """Last shell of the maps: a third beyond what was scored, and a few shells."""
    return int(min(problem.last_radius, np.ceil(4 / 3 * radius) + 6))


def make_step(problem: RefineProblem, phase: str, radius: int, order: int, shift_range_px: float) -> Step:
    """A step with the shift grid that its radius calls for: a step of shifts is a sixth of a period."""
    shift_step = max(1.0, problem.box / (6 * min(radius, coarse_radius(problem, healpix_spacing_deg(order)))))
    return Step(
        phase,  # type: ignore[arg-type]
        radius,
        insert_radius_for(problem, radius),
        order,
        angles_in_plane(order),
        shift_step,
        max(shift_range_px, shift_step),
        candidates=problem.settings.candidates,
    )


def first_step(problem: RefineProblem, *, split: bool = False) -> Step:
    """The first iteration: the reference's resolution, all poses; ``split`` if one reference begins several classes."""
    settings = problem.settings
    radius = min(problem.last_radius, max(3, int(problem.shell_of(settings.initial_resolution_A))))
    phase = "grid" if settings.mode == "likelihood" else "global"
    if settings.poses == "local":
        phase = "local"
    step = make_step(problem, phase, radius, _FIRST_ORDER, settings.shift_range_A / problem.pixel_size_A)
    return replace(step, split=split, particles=growing(problem, settings.first_particles or 0))


def next_step(problem: RefineProblem, state: State, last: Step) -> Step:
    """What follows from the FSC and the poses of the iteration before."""
    step = _next_step(problem, state, last)
    # Only the grid takes a part: later phases start from poses, which all particles must have by then.
    return replace(step, particles=growing(problem, 2 * last.particles)) if step.phase == "grid" else step


def growing(problem: RefineProblem, count: int) -> int:
    """A part of each half set; 0, all, once the part is no smaller than a half set."""
    return count if count < min(len(problem.rows_of_half(half)) for half in (1, 2)) else 0


def rows_of_step(problem: RefineProblem, step: Step) -> IntArray | None:
    """Particles that a step works on, in order; None for all.

    Drawn once for a seed and its half sets, and each part holds those before it: poses that are known stay in use, and
    a run that goes on draws the same.
    """
    if not step.particles:
        return None
    rng = np.random.default_rng([problem.settings.seed, _GROWING])
    drawn = [rng.permutation(problem.rows_of_half(half))[: step.particles] for half in (1, 2)]
    return np.sort(np.concatenate(drawn))


def _next_step(problem: RefineProblem, state: State, last: Step) -> Step:
    radius = min(problem.last_radius, max(3, int(state.resolution_shell) + _BEYOND))
    shift_range = _shift_range(state, last)
    if last.phase == "grid" and _classes_move(problem, state):
        held = min(radius, last.radius)
        return make_step(problem, "grid", held, order_for(problem, held), shift_range)
    stalled = _has_stalled(problem, state, last, radius)
    if last.phase == "grid" and not stalled and not _is_sharp_enough(problem, state, radius):
        return make_step(problem, "grid", radius, order_for(problem, radius), shift_range)
    phase = "local" if last.phase == "local" or _has_settled(state) else "global"
    step = make_step(problem, phase, radius, _FIRST_ORDER, shift_range)
    stand = last.phase == "global" and state.figures[-1].angle_change_deg < _STANDING_DEG
    candidates = problem.settings.candidates
    return replace(step, candidates=max(1, candidates // 2) if stand else candidates)


def _classes_move(problem: RefineProblem, state: State) -> bool:
    """Whether particles still change class: finer data now would fix a separation that has only begun."""
    if problem.n_classes == 1 or state.iteration > _MOST_HELD:
        return False
    return state.iteration == 1 or state.figures[-1].class_change > _MOVING


def final_step(problem: RefineProblem, last: Step) -> Step:
    """The last pass: the poses once more, maps to the last shell."""
    if last.particles:  # most have no pose yet to start from
        whole = make_step(problem, "global", last.radius, _FIRST_ORDER, last.shift_range_px)
        return replace(whole, insert_radius=problem.last_radius, final=True)
    return replace(last, phase="local", insert_radius=problem.last_radius, final=True)


def _shift_range(state: State, last: Step) -> float:
    """Three times the rms shift change, once that is small."""
    change = state.figures[-1].shift_change_px if state.figures else np.nan
    # Particles that come in next were never centred.
    if last.particles or not np.isfinite(change):
        return last.shift_range_px
    return float(min(last.shift_range_px, max(2.0, 3 * change)))


def _is_sharp_enough(problem: RefineProblem, state: State, radius: int) -> bool:
    """Whether the grid is what limits: the posterior of most particles sits in a few cells of a grid of 7 degrees."""
    serves = coarse_radius(problem, healpix_spacing_deg(_FIRST_ORDER))
    return radius > serves or bool(np.nanmedian(state.poses.effective_poses) < 4)


def _has_stalled(problem: RefineProblem, state: State, last: Step, radius: int) -> bool:
    """Whether the grid gains no more: of a set that is mostly junk most posteriors stay wide for ever.

    Each further sum over the grid would add junk to where junk lies already, in both halves alike. Passes over a part
    of the particles, or over data held back while particles change class, prove nothing.
    """
    if last.particles or state.unimproved < PATIENCE:
        return False
    return all(
        figures.particles == len(problem) and problem.shell_of(figures.search_resolution_A) >= radius - 1
        for figures in state.figures[-PATIENCE:]
    )


def _has_settled(state: State) -> bool:
    """Whether orientations hardly change any more, so that a search of all would find the same."""
    last = state.figures[-1]
    return last.phase != "grid" and last.angle_change_deg < _STILL_DEG and last.far_fraction < _STILL_FAR
