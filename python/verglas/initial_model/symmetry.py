"""Symmetry of an ab initio map: found by self-correlation, its axes put to convention, and put to the test.

A map's own correlation with its turned copies proposes a group; images decide. The map is symmetrised, learns again
under the group, and must explain held-out particles no worse than it did without symmetry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verglas.assessment import fsc
from verglas.initial_model.batch_step import BatchStep
from verglas.initial_model.course import Course
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start, evaluate_held_out, full_passes
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
from verglas.search.problem import Problem
from verglas.search.state import PoseTable
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.display import one_line

_RELIABLE = 0.143  # FSC of half maps, up to the first shell below which shells count
_FEWEST_SHELLS = 5
_TRIED = 3
_HINT_SIGMAS = 12.0  # above random axes: a group worth trying though the map is too noisy to show it
_SIGMAS = 2.0  # loss of evidence, in its standard errors, that refuses a group


@one_line
@dataclass(frozen=True)
class SymmetryFound:
    """What was found of a map's symmetry.

    Attributes
    ----------
    symmetry : str
        Group that the map was given; C1 where none fits.
    scores : list of SymmetryScore
        Of all candidates.
    gain, gain_error : float
        Held-out evidence under the group over that without, nats per particle, and its standard error; NaN where no
        group was tried.
    sentence : str
        For a person.
    """

    symmetry: str
    scores: list[SymmetryScore]
    gain: float
    gain_error: float
    sentence: str


def reliability(problem: Problem, settings: AbInitioSettings, start: Start, rows: IntArray) -> FloatArray:
    """Expected squared correlation of a start's map with the truth by shell, without its spherical average.

    2 F / (1 + F) of the FSC of two half maps, up to the shell that can last be relied on. Both halves are aligned to
    one map, so it is an upper bound.
    """
    course = Course(problem, settings, len(rows))
    step = BatchStep(problem, start.model, course.step(course.last_radius), course.grid_radius)
    halves = step.sums(rows, PoseTable.unknown(len(problem))).half_maps(problem)[0]
    ones = np.ones(course.last_radius + 1)
    flat = [Map(without_sphere(m.data * problem.sphere, ones), m.pixel_size_A) for m in halves]
    curve = fsc(*flat, threads=problem.threads).curve[: course.last_radius + 1]
    low = np.flatnonzero(curve[2:] < _RELIABLE)
    last = int(low[0]) + 1 if low.size else course.last_radius
    curve = np.clip(curve[: max(last, min(_FEWEST_SHELLS, course.last_radius)) + 1], 0.05, 0.99)
    return np.asarray(2 * curve / (1 + curve))


def align_to_axes(
    volume: Float32Array, curve: FloatArray, candidates: Sequence[str] = CANDIDATES, *, threads: int | None = None
) -> tuple[list[SymmetryScore], SymmetryScore | None, Float32Array]:
    """Scores of all candidates, the group that fits, and the map centred and turned onto its axes (not symmetrised).

    Parameters
    ----------
    volume : (N, N, N) float32
        Masked.
    curve : (shells,) float64
        :func:`reliability`, or ones.
    candidates : sequence of str
        Groups.
    threads : int, optional
        Threads; all by default.

    Examples
    --------
    >>> import numpy as np
    >>> import verglas as vg
    >>> from verglas.initial_model.symmetry import align_to_axes
    >>> from verglas.map_geometry.map_alignment import turned_map
    >>> m = vg.simulate.density(vg.simulate.phantom(32, 4.0, 90.0, "C4"), 32, 4.0)
    >>> turned = turned_map(m.data, vg.euler_to_matrix([[20.0, 50.0, 70.0]])[0])
    >>> scores, result, upright = align_to_axes(turned, np.ones(9), ["C2", "C4", "D4"])
    >>> inner = upright[1:, 1:, 1:]  # about the origin
    >>> result.symmetry, bool(np.corrcoef(inner.ravel(), np.rot90(inner, axes=(1, 2)).ravel())[0, 1] > 0.9)
    ('C4', True)
    """
    volume = moved_map(volume, -mass_centre(volume), threads=threads)
    scores = symmetry_scores(volume, curve, candidates, threads=threads)
    symmetry = choose_symmetry(scores)
    if symmetry is None:
        return scores, None, volume
    return scores, *_centre_and_turn(volume, curve, symmetry, threads)


def _centre_and_turn(
    volume: Float32Array, curve: FloatArray, symmetry: SymmetryScore, threads: int | None
) -> tuple[SymmetryScore, Float32Array]:
    _, symmetry, at_centre = centre_on_axes(volume, curve, symmetry, threads=threads)
    return symmetry, turned_map(at_centre, symmetry.matrix, threads=threads)


def proposals(scores: Sequence[SymmetryScore]) -> list[SymmetryScore]:
    """Groups worth trying on the images: the largest that fit; where none does, the one farthest above accident.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.symmetry import proposals
    >>> from verglas.map_geometry.symmetry_search import SymmetryScore
    >>> weak = SymmetryScore("O", 24, 0.2, 0.1, 17.0, np.eye(3))
    >>> [s.symmetry for s in proposals([weak, SymmetryScore("C2", 2, 0.2, 0.2, 3.0, np.eye(3))])]
    ['O']
    """
    fitting = sorted((s for s in scores if s.fits), key=lambda s: (-s.order, -s.score))[:_TRIED]
    if fitting:
        return fitting
    best = max(scores, key=lambda s: s.significance)
    return [best] if best.significance >= _HINT_SIGMAS else []


@dataclass(frozen=True, eq=False)
class StartUnderGroup:
    """A start, the problem and settings that it is under, and what was found of its symmetry."""

    problem: Problem
    settings: AbInitioSettings
    start: Start
    symmetry: SymmetryFound


def with_symmetry(problem: Problem, settings: AbInitioSettings, start: Start, held_out: IntArray) -> StartUnderGroup:
    """The best start under the group that its map has; everything as it was where there is none.

    Parameters
    ----------
    problem : Problem
        Without symmetry.
    settings : AbInitioSettings
    start : Start
        With one class.
    held_out : (m,) int64
        Particles that no start learned from.
    """
    train = np.setdiff1d(np.arange(len(problem)), held_out)
    curve = reliability(problem, settings, start, train)
    volume = start.model.volumes[0] * problem.sphere
    volume = moved_map(volume, -mass_centre(volume), threads=problem.threads)
    scores = symmetry_scores(volume, curve, threads=problem.threads)
    best = max(scores, key=lambda s: s.score)
    refusal = ""
    gain, error = float("nan"), float("nan")
    for proposal in proposals(scores):
        symmetry, upright = _centre_and_turn(volume, curve, proposal, problem.threads)
        group = replace(settings, symmetry=symmetry.symmetry)
        folded = problem.under(symmetry.symmetry)
        trial = _full_passes_under(folded, group, start, upright, held_out)
        noise = start.model.sigma2
        without = replace(start.model, volumes=upright[None])
        difference = evaluate_held_out(folded, group, trial.model, held_out, noise) - evaluate_held_out(
            problem, settings, without, held_out, noise
        )
        gain, error = float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
        said = (
            f"the map without symmetry reaches {symmetry.score:.2f} of what its noise allows "
            f"({symmetry.significance:.0f} standard deviations above random axes), "
            f"and under the group held-out particles are explained "
            f"{'better' if gain > 0 else 'worse'} by {abs(gain):.2f} +- {error:.2f} nats each"
        )
        # A group that the map itself does not show has to be proved by the images; else they must not speak against it.
        if gain > (-_SIGMAS if proposal.fits else _SIGMAS) * error:
            sentence = f"Symmetry {symmetry.symmetry}: {said}.{refusal}"
            result = SymmetryFound(symmetry.symmetry, scores, gain, error, sentence)
            return StartUnderGroup(folded, group, trial, result)
        refusal += f" {symmetry.symmetry} was tried and refused: {said}."
    sentence = f"No symmetry: the best candidate, {best.symmetry}, reaches {best.score:.2f} of what its noise allows."
    return StartUnderGroup(problem, settings, start, SymmetryFound("C1", scores, gain, error, sentence + refusal))


def _full_passes_under(
    folded: Problem, group: AbInitioSettings, start: Start, upright: Float32Array, held_out: IntArray
) -> Start:
    """The start after learning under a group, from its map with the axes where the group has them."""
    train = np.setdiff1d(np.arange(len(folded)), held_out)
    radius = Course(folded, group, len(train)).grid_radius
    volume = folded.operators.apply(upright, radius, threads=folded.threads)
    model = replace(start.model, volumes=volume[None])
    return full_passes(folded, group, replace(start, model=model), train, held_out)
