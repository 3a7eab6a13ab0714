r"""The sign of what is not round: an ab initio map against its twin.

Write a map as its spherical average S and the rest A. Where A is weak, the evidence of an image, marginal over poses,

.. math:: \log \langle e^{l(S + A)} \rangle = l(S) + \kappa_2(A) / 2 + \kappa_3(A) / 6 + \dots,

begins with the second cumulant, in which A and -A are equal: autocorrelations do not know the sign (Kam 1980, J. Theor.
Biol. 82, 15-39). Only the third tells S + A from S - A, so that random starts of a nearly round particle end in either,
and one in the wrong stays there. Each finished start is therefore compared with its twin S - A, which learns from the
same particles and must explain those held out better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start, evaluate_held_out, full_passes
from verglas.map_geometry.sphere import spherical_average
from verglas.search.problem import Problem
from verglas.search.state import HalfModel
from verglas.types.arrays import Float32Array, IntArray

SHARP_NATS = 20.0


def twin(volume: Float32Array) -> Float32Array:
    """2 S - V: the map with the sign of all but its spherical average S turned round.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.sign import twin
    >>> v = np.random.default_rng(0).standard_normal((8, 8, 8)).astype(np.float32)
    >>> bool(np.allclose(twin(twin(v)), v, atol=1e-5))
    True
    """
    return np.asarray(2 * spherical_average(volume) - volume, np.float32)


def better_sign(problem: Problem, settings: AbInitioSettings, start: Start, held_out: IntArray) -> Start:
    """The start or its twin, whichever explains particles held out better after as many further passes; it learns on.

    Classes are turned round one at a time, and only where the part that is not round is weak: where it adds more than
    20 nats to the evidence of a particle, poses are sharp, the expansion above does not hold, and the sign is known.
    Where it adds nothing there is nothing to turn round.

    Parameters
    ----------
    problem : Problem
    settings : AbInitioSettings
    start : Start
        Finished; its evidence is that of these particles under its own noise.
    held_out : (m,) int64
        Particles that it has not learned from.
    """
    train = np.setdiff1d(np.arange(len(problem)), held_out)
    for k in range(len(start.model.volumes)):
        noise = start.model.sigma2
        average = _with_map(start, k, spherical_average, problem)
        gain = start.score - evaluate_held_out(problem, settings, average, held_out, noise).mean()
        if not 0 < gain <= SHARP_NATS:
            continue
        pair = [replace(start, model=m) for m in (start.model, _with_map(start, k, twin, problem))]
        # Both learn on: passes help either, and the one that had none would lose for that alone.
        same, other = (full_passes(problem, settings, s, train, held_out) for s in pair)
        evidence = [evaluate_held_out(problem, settings, s.model, held_out, noise).mean() for s in (same, other)]
        start = full_passes(problem, settings, same if evidence[0] >= evidence[1] else other, train, held_out)
    return start


def _with_map(start: Start, k: int, change: Callable[[Float32Array], Float32Array], problem: Problem) -> HalfModel:
    """The start's model with one of its maps changed."""
    volumes = start.model.volumes.copy()
    volumes[k] = change(volumes[k] * problem.sphere)
    return replace(start.model, volumes=volumes)
