"""After a refinement without symmetry: whether its map has a point group all the same, and whether particles say so."""

from __future__ import annotations

import numpy as np

from verglas.assessment import fsc, full_map_fsc
from verglas.assessment.judge import judge_hidden_symmetry
from verglas.initial_model.course import resample_to_box
from verglas.map_geometry.axes import centre_on_axes
from verglas.map_geometry.map_alignment import turned_map
from verglas.map_geometry.symmetry_search import (
    CANDIDATES,
    SymmetryScore,
    choose_symmetry,
    mass_centre,
    moved_map,
    symmetry_scores,
    without_sphere,
)
from verglas.refinement.problem import RefineProblem
from verglas.refinement.state import State
from verglas.refinement.update import ClassMaps
from verglas.run.held_out import HeldOut
from verglas.run.refine_symmetry import weighted_half_map
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.listener import Progress, count_phase
from verglas.types.verdict import Finding

_RELIABLE = 0.143
_FEWEST_SHELLS, _MOST_SHELLS = 4, 12  # that are compared with their turned copies
_BOX = 40  # holds the shells of the search
_PRIMES = (2, 3, 5, 7)  # every group of the search has an axis of one of these folds


def hidden_symmetry(
    problem: RefineProblem, state: State, maps: ClassMaps, progress: Progress | None = None
) -> list[Finding]:
    """``looks-symmetric``, where a map refined without symmetry has a group that held-out particles do not refute.

    The group and its axes come from the mean of the half maps. One half map, turned onto the axes, is compared with
    its mean over the group by particles of the other half: a group that is there takes noise away, one that is not
    averages what differs.

    Parameters
    ----------
    problem : RefineProblem
        Without symmetry.
    state : State
        At the end.
    maps : ClassMaps
        Of the largest class.
    progress : callable, optional
        Called with a phase, how much of it is done, and how much there is.
    """
    curve = _reliability(problem, maps)
    if curve is None:
        return []
    last = min(problem.last_radius, len(curve) - 1 + 2)
    halves = [weighted_half_map(problem, maps, half, last) for half in (0, 1)]
    mean, threads = np.asarray((halves[0] + halves[1]) / 2, np.float32), problem.threads
    to_mass = -mass_centre(mean)
    mean = moved_map(mean, to_mass, threads=threads)
    small = resample_to_box(mean, min(_BOX, problem.box))
    searched = count_phase(progress, "verdict, hidden symmetry", 2)
    searched(0)
    score = _group_of(small, curve, threads)
    searched(1 if score else 2)
    if score is None:
        return []
    to_axes, score, _ = centre_on_axes(mean, curve, score, threads=threads)
    shift = to_mass + to_axes
    upright = turned_map(moved_map(halves[0], shift, threads=threads), score.matrix, threads=threads)
    folded = problem.under(score.symmetry).operators.apply(upright, last, threads=threads)
    # Back to where the particles lie, whose shifts have a range; both, so that both are interpolated alike.
    folded, alone = (
        moved_map(turned_map(v, score.matrix.T, threads=threads), -shift, threads=threads) for v in (folded, upright)
    )
    searched(1)
    # The map is that of half 1, so particles of half 2 judge it.
    held_out = HeldOut.of(problem, state, half=1)
    tick = count_phase(progress, "verdict, hidden symmetry, held-out particles", 2 * len(held_out.rows))
    gain = held_out.evidence(folded[None], tick) - held_out.evidence(alone[None], tick)
    return judge_hidden_symmetry(score.symmetry, score.score, gain)


def _group_of(volume: Float32Array, curve: FloatArray, threads: int | None) -> SymmetryScore | None:
    """The largest group that a map shows: axes of prime folds first, then the groups made of those that fit."""
    single = symmetry_scores(volume, curve, [f"C{n}" for n in _PRIMES], threads=threads)
    folds = {n for n, score in zip(_PRIMES, single, strict=True) if score.fits}
    if not folds:
        return None
    return choose_symmetry(symmetry_scores(volume, curve, groups_of_folds(folds), threads=threads))


def groups_of_folds(folds: set[int]) -> list[str]:
    """Point groups whose axes of prime fold are all among these.

    Examples
    --------
    >>> from verglas.run.refine_hidden_symmetry import groups_of_folds
    >>> groups_of_folds({2}), groups_of_folds({3})
    (['C2', 'C4', 'C8', 'D2', 'D4', 'D8'], ['C3'])
    """
    cubic = {"T": {2, 3}, "O": {2, 3}, "I": {2, 3, 5}}

    def primes_of(group: str) -> set[int]:
        if group in cubic:
            return cubic[group]
        return {n for n in _PRIMES if int(group[1:]) % n == 0} | ({2} if group[0] == "D" else set())

    return [group for group in CANDIDATES if primes_of(group) <= folds]


def _reliability(problem: RefineProblem, maps: ClassMaps) -> FloatArray | None:
    """Expected squared correlation with the truth by shell, of what is left without the spherical average."""
    ones = np.ones(_MOST_SHELLS + 1)
    flat = [Map(without_sphere(v * problem.sphere, ones), problem.pixel_size_A) for v in maps.raw]
    curve = fsc(*flat, threads=problem.threads).curve[: min(_MOST_SHELLS, problem.last_radius) + 1]
    low = np.flatnonzero(curve[2:] < _RELIABLE)
    last = int(low[0]) + 1 if low.size else len(curve) - 1
    return None if last < _FEWEST_SHELLS else full_map_fsc(np.clip(curve[: last + 1], 0.05, 0.99))
