"""One map of the starts that agree: their mean in the best one's frame, and its centre at the origin of the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verglas.geometry import symmetry_matrices
from verglas.initial_model.all_starts import Starts
from verglas.initial_model.consensus import agreeing_starts, common_noise
from verglas.initial_model.course import Course
from verglas.initial_model.starts import Start, evaluate_held_out
from verglas.map_geometry.symmetry_search import mass_centre, moved_map
from verglas.search.problem import Problem
from verglas.types.arrays import Float32Array, FloatArray, IntArray

_SIGMAS = 2.0  # of the difference in evidence, that speak against the mean
_PASSES = 3  # of centring: the centre of what is denser than a fifth of the peak moves a little with the map
_STILL_PX = 0.05


def merge_starts(starts: Starts, held_out: IntArray) -> tuple[Start, int]:
    """The best start with the mean map of all that agree with it, and how many made it.

    Each counts by what its map gains on held-out particles over a round blob. Where held-out particles are explained
    clearly worse by the mean than by the best start alone, the best start is kept.

    Parameters
    ----------
    starts : Starts
        Turned onto the best.
    held_out : (m,) int64
        Particles that no start learned from.
    """
    problem, settings, best = starts.problem, starts.settings, starts.made[0]
    agreeing = agreeing_starts(starts.others, settings.final_resolution_A)
    if not agreeing:
        return best, 1
    scores = {s.number: s.score for s in starts.made}
    blob = best.score - starts.verdict.gain
    weights = [starts.verdict.gain, *(max(scores[c.number] - blob, 0.0) for c in agreeing)]
    stacks = [best.model.volumes * problem.sphere, *(np.stack([m.data for m in c.maps]) for c in agreeing)]
    mean = np.average(stacks, axis=0, weights=weights).astype(np.float32)
    if len(symmetry_matrices(problem.symmetry)) > 1:  # axes of turned maps stand a little off
        radius = Course(problem, settings, len(problem)).grid_radius
        mean = np.stack([problem.operators.apply(v, radius, threads=problem.threads) for v in mean])
    model, noise = replace(best.model, volumes=mean), common_noise(starts.made)
    both = [evaluate_held_out(problem, settings, m, held_out, noise) for m in (model, best.model)]
    gain = both[0] - both[1]
    if gain.mean() < -_SIGMAS * gain.std(ddof=1) / np.sqrt(len(gain)):
        return best, 1
    return replace(best, model=model), 1 + len(agreeing)


def centre_start(problem: Problem, start: Start) -> Start:
    """A start with the centre of mass of each map at the origin, as far as the point group leaves it free.

    Poses that are found afterwards bring the particles there. A wandering centre costs the range of their shifts.
    """
    volumes = [_centre(problem, v * problem.sphere) for v in start.model.volumes]
    return replace(start, model=replace(start.model, volumes=np.stack(volumes)))


def centre_offset_px(volume: Float32Array, symmetry: str) -> FloatArray:
    """Centre of mass of a map, x, y, z in pixels from the origin, where a point group leaves it free.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.merged import centre_offset_px
    >>> v = np.zeros((8, 8, 8), np.float32)
    >>> v[6, 5, 4] = 1
    >>> [float(np.linalg.norm(centre_offset_px(v, s)).round(3)) for s in ("C1", "C3", "D2")]
    [2.236, 2.0, 0.0]
    """
    free: FloatArray = symmetry_matrices(symmetry).mean(axis=0) @ mass_centre(volume)
    return free


def largest_offset_px(volumes: Sequence[Float32Array], symmetry: str) -> float:
    """Distance of the farthest map's centre from the origin."""
    return max(float(np.linalg.norm(centre_offset_px(v, symmetry))) for v in volumes)


def _centre(problem: Problem, volume: Float32Array) -> Float32Array:
    for _ in range(_PASSES):
        offset = centre_offset_px(volume, problem.symmetry)
        if np.linalg.norm(offset) < _STILL_PX:
            break
        volume = moved_map(volume, -offset, threads=problem.threads)
    return volume
