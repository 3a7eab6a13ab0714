"""The prior's three numbers by marginal likelihood on some micrographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.polishing.prior import MotionPrior, search_logarithms
from verglas.polishing.surfaces import Surfaces
from verglas.polishing.tracks import Tracks, basis_of, fit_tracks, log_evidence
from verglas.types.arrays import FloatArray

_EVALUATIONS = 40  # of the simplex, in each of two rounds


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


def fit_prior(sample: Sequence[Evidence], start: MotionPrior) -> MotionPrior:
    """The prior that makes the sample likeliest, tracks integrated out.

    Parameters
    ----------
    sample : sequence of Evidence
        Of some micrographs.
    start : MotionPrior
        Where the search begins.

    Returns
    -------
    MotionPrior

    Raises
    ------
    InputError
        An empty sample.
    """
    if not sample:
        raise InputError("polishing: no micrograph to fit the prior of tracks to")
    former: list[Tracks | None] = [None] * len(sample)

    def cost(logarithms: FloatArray) -> float:
        # beyond these a track is either free or fixed, and no data tell how much so
        prior = MotionPrior(*np.exp(np.clip(logarithms, -7, 12)).tolist())
        total = 0.0
        for i, one in enumerate(sample):
            basis = basis_of(prior, one.surfaces, one.places_A, one.dose_e_A2)
            tracks = fit_tracks(one.surfaces, basis, former[i])
            former[i] = tracks
            total += log_evidence(one.surfaces, basis, tracks)
        return -total

    for _ in range(2):  # a simplex that has shrunk beside the best place starts anew from there
        start = MotionPrior(*np.exp(np.clip(search_logarithms(cost, start, _EVALUATIONS), -7, 12)).tolist())
    return start
