"""The prior's three numbers by marginal likelihood on some micrographs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from verglas.errors import InputError, VerglasWarning
from verglas.polishing.prior import MotionPrior
from verglas.polishing.smoothing import Scene, TrackSmoother, parabolic_evidence
from verglas.polishing.surfaces import Surfaces
from verglas.polishing.tracks import fit_tracks, log_evidence, smoother_of
from verglas.types import Keeper, Snapshot
from verglas.types.arrays import FloatArray

_ROUNDS = 12
# Logarithms beyond which a track is either free or fixed, and no data tell how much so.
_LEAST, _GREATEST = -7.0, 12.0
_FURTHEST = 1.5  # that a logarithm goes in a round: parabolas stand for the surfaces near the tracks of the round alone
_CONVERGED = 0.02  # of a logarithm
_CONVERGED_NATS = 0.1  # that a round promises: what the data cannot tell is not followed to its bounds
_DIFFERENCE = 1e-4  # of a logarithm: the evidence of parabolas is smooth


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one micrograph says of the prior.

    Attributes
    ----------
    surfaces : Surfaces
        Of all coefficients, scaled by the amplitude of the reference.
    places_A : (P, 2) float64
    dose_e_A2 : float
        Of a frame.
    """

    surfaces: Surfaces
    places_A: FloatArray
    dose_e_A2: float

    @property
    def scene(self) -> Scene:
        """What its tracks depend on but for the prior."""
        return Scene(self.places_A, self.dose_e_A2, self.surfaces.information)


@dataclass(frozen=True, eq=False)
class PriorFit:
    """Where the search for a prior stands between two rounds.

    Attributes
    ----------
    prior : MotionPrior
    tracks_A : list of (P, F, 2) float64, or None
        Most probable places under the prior of the round before; None before the first.
    rounds : int
    ended : bool
        Whether a further round changes nothing that the data can tell.
    """

    prior: MotionPrior
    tracks_A: list[FloatArray] | None = None
    rounds: int = 0
    ended: bool = False


def fit_prior(sample: Sequence[Evidence], start: MotionPrior, keeper: Keeper | None = None) -> MotionPrior:
    """The prior that makes the sample likeliest, tracks integrated out.

    In turns: most probable tracks under the prior; then the prior under which parabolas at these tracks are likeliest,
    which takes no further look at the surfaces (:mod:`verglas.polishing.smoothing`).

    Parameters
    ----------
    sample : sequence of Evidence
        Of some micrographs.
    start : MotionPrior
        Where the search begins.
    keeper : Keeper, optional
        Keeps each round; a search that was stopped goes on from there to the same bits.

    Returns
    -------
    MotionPrior

    Raises
    ------
    InputError
        An empty sample.

    Warns
    -----
    VerglasWarning
        The last of twelve rounds still changed the prior.
    """
    if not sample:
        raise InputError("polishing: no micrograph to fit the prior of tracks to")
    kept = None if keeper is None else keeper.load()
    fit = PriorFit(start) if kept is None else _fit_of(kept)
    while not fit.ended:
        fit = _next_round(sample, fit)
        if keeper is not None:
            keeper.save(_snapshot_of(fit), needed=True)
    return fit.prior


def prior_evidence(sample: Sequence[Evidence], prior: MotionPrior) -> float:
    """Logarithm of the marginal likelihood of a prior on a sample, by Laplace's approximation."""
    total = 0.0
    for one in sample:
        smoother = TrackSmoother(prior, one.scene)
        total += log_evidence(smoother, fit_tracks(one.surfaces, smoother))
    return total


def _next_round(sample: Sequence[Evidence], fit: PriorFit) -> PriorFit:
    tracks, seen, scenes = list[FloatArray](), list[FloatArray](), [one.scene for one in sample]
    for i, one in enumerate(sample):
        smoother = smoother_of(fit.prior, one.surfaces, one.places_A, one.dose_e_A2)
        found = fit_tracks(one.surfaces, smoother, None if fit.tracks_A is None else fit.tracks_A[i])
        tracks.append(found.places_A)
        # the apex of the parabola
        seen.append(found.places_A + found.slope / smoother.information[..., None])

    def cost(logarithms: FloatArray) -> float:
        prior = MotionPrior(*np.exp(logarithms).tolist())
        return -sum(parabolic_evidence(TrackSmoother(prior, s), z) for s, z in zip(scenes, seen, strict=True))

    p = fit.prior
    begin = np.clip(np.log([p.velocity_A, p.correlation_length_A, p.acceleration_A]), _LEAST, _GREATEST)
    bounds = [(max(_LEAST, v - _FURTHEST), min(_GREATEST, v + _FURTHEST)) for v in begin]
    # eps, not a relative step: a logarithm may be near zero
    options = {"eps": _DIFFERENCE, "ftol": 1e-12, "gtol": 0.05, "maxfun": 120}
    best = minimize(cost, begin, method="L-BFGS-B", bounds=bounds, options=options)
    promised = cost(begin) - float(best.fun)
    logarithms = np.asarray(best.x)
    rounds = fit.rounds + 1
    prior, settled = MotionPrior(*np.exp(logarithms).tolist()), bool(np.abs(logarithms - begin).max() < _CONVERGED)
    settled = settled or promised < _CONVERGED_NATS
    if rounds == _ROUNDS and not settled:
        warnings.warn(
            f"polishing: the prior of tracks still changed in round {rounds}, the last, which promised {promised:.2g} "
            f"nats more; it is used as it is",
            VerglasWarning,
            stacklevel=3,
        )
    return PriorFit(prior, tracks, rounds, settled or rounds == _ROUNDS)


def _snapshot_of(fit: PriorFit) -> Snapshot:
    p, tracks = fit.prior, fit.tracks_A or []
    record = {"prior": [p.velocity_A, p.correlation_length_A, p.acceleration_A], "rounds": fit.rounds}
    return Snapshot({f"tracks_{i}": one for i, one in enumerate(tracks)}, record | {"ended": fit.ended})


def _fit_of(kept: Snapshot) -> PriorFit:
    tracks = [kept.arrays[f"tracks_{i}"] for i in range(len(kept.arrays))]
    return PriorFit(MotionPrior(*kept.record["prior"]), tracks, kept.record["rounds"], kept.record["ended"])
