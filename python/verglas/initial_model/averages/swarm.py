"""One map of several: a swarm of maps that move towards their own best, the swarm's best, and what averages say.

Maps are turned onto the one that explains the averages best, in the hand that fits; every round each moves as a
particle of a swarm does and is then made anew, in part, from averages matched to it. The best map seen is kept, so the
result explains the averages no worse than the best that was given (the consensus of Sorzano et al. 2018, J. Struct.
Biol. 204, 329-337).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.initial_model.averages.matching import mean_correlation
from verglas.initial_model.averages.views import Views
from verglas.initial_model.consensus import turn_onto
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays

_ROUNDS = 12
_INERTIA, _PULL = 0.5, 0.8
_FRESH = 0.5  # share of a member's map that is made anew in a round
_SHARE = 0.7  # of the averages it is made from, drawn anew each time
_ORDER = 2


@dataclass(frozen=True)
class SwarmConsensus:
    """The map, its mean correlation with the averages, and those of the maps given."""

    volume: Float32Array
    score: float
    given: FloatArray


@any_arrays
def swarm_consensus(
    views: Views, volumes: Sequence[Float32Array], *, seed: int = 0, rounds: int = _ROUNDS
) -> SwarmConsensus:
    """The consensus of maps of one particle, judged by class averages.

    Parameters
    ----------
    views : Views
        The averages.
    volumes : sequence of (N, N, N) float32
        Two or more maps, in the box of the averages, of any orientation and hand.
    seed : int
        Of the swarm's steps.
    rounds : int
        Of moving.

    Returns
    -------
    SwarmConsensus

    Raises
    ------
    InputError
        Fewer than two maps, or another box.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.initial_model.averages import Views, swarm_consensus
    >>> truth = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(truth, 20, 32, 5.0, ctf=False, shift_sd_A=0.0, snr=2.0)
    >>> density = vg.simulate.density(truth, 32, 5.0).data
    >>> noise = np.random.default_rng(0).normal(0, density.std(), (2, 32, 32, 32)).astype(np.float32)
    >>> result = swarm_consensus(Views.of(p.images(), 9, 26), list(density + noise), rounds=2)
    >>> bool(result.score >= result.given.max())
    True
    """
    if len(volumes) < 2:
        raise InputError(f"swarm consensus: expected two maps or more, got {len(volumes)}")
    for number, volume in enumerate(volumes, 1):
        if volume.shape != (views.box,) * 3:
            raise InputError(
                f"swarm consensus: expected maps of the averages' box, {views.box}, got {volume.shape} (map {number})"
            )
    rng = np.random.default_rng(seed)
    members = np.stack([_normalise(views, v * views.sphere) for v in volumes])
    own_score = np.array([mean_correlation(views, v, _ORDER) for v in members])
    given, best = own_score.copy(), int(own_score.argmax())
    target = Map(members[best], 1.0)
    for i in range(len(members)):
        if i != best:
            turned = turn_onto(target, Map(members[i], 1.0), views.radius, views.threads).map.data
            members[i] = _normalise(views, turned * views.sphere)
            own_score[i] = mean_correlation(views, members[i], _ORDER)
    own, velocity = members.copy(), np.zeros_like(members)
    # The best as it was given: turning the others has changed nothing about it.
    leader, leader_score = members[best].copy(), float(given[best])
    for _ in range(rounds):
        for i in range(len(members)):
            toward_own, toward_leader = rng.random(2).astype(np.float32)
            pull = toward_own * (own[i] - members[i]) + toward_leader * (leader - members[i])
            velocity[i] = _INERTIA * velocity[i] + _PULL * pull
            moved = _normalise(views, members[i] + velocity[i])
            part = views.draw(rng, _SHARE)
            fresh = part.map(part.place(moved, _ORDER).matrices)
            members[i] = _normalise(views, (1 - _FRESH) * moved + _FRESH * _normalise(views, fresh))
            score = mean_correlation(views, members[i], _ORDER)
            if score > own_score[i]:
                own[i], own_score[i] = members[i], score
            if score > leader_score:
                leader, leader_score = members[i].copy(), score
    return SwarmConsensus(leader, leader_score, given)


def _normalise(views: Views, volume: Float32Array) -> Float32Array:
    """Of the deviation 1 inside the sphere: maps of programs differ in their grey scale."""
    inside = volume[views.sphere > 0.5]
    return np.asarray(volume / max(float(inside.std()), 1e-30), np.float32)
