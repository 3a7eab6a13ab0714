"""Tracks of the particles of one micrograph: most probable ones, and what they are worth on data they did not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.polishing.prior import MotionPrior
from verglas.polishing.smoothing import OFFSET_A, Scene, TrackSmoother
from verglas.polishing.surfaces import Surfaces
from verglas.types.arrays import FloatArray, any_arrays

_ROUNDS = 40
_CONVERGED_NATS = 1e-3
_HALVINGS = 8
_DRAWS = 64  # that errors are taken from: to 9 % each, 1 % or better on average


@dataclass(frozen=True, eq=False)
class Tracks:
    """Most probable tracks.

    Attributes
    ----------
    positions_A : (P, F, 2) float64
        About the known track, x then y; their mean over the frames, weighted by information, is zero.
    offset_A : (P, 2) float64
        Place of the particle about that of its pose.
    slope : (P, F, 2) float64
        Of the surfaces there, nats per angstrom.
    log_posterior : float
        Without the prior's normalisation.
    """

    positions_A: FloatArray
    offset_A: FloatArray
    slope: FloatArray
    log_posterior: float

    @property
    def places_A(self) -> FloatArray:
        """(P, F, 2): with the offset."""
        return self.positions_A + self.offset_A[:, None]


@any_arrays
def smoother_of(prior: MotionPrior, surfaces: Surfaces, places_A: FloatArray, dose_e_A2: float) -> TrackSmoother:
    """Of particles at these places, seen as well as their surfaces see them."""
    return TrackSmoother(prior, Scene(places_A, dose_e_A2, surfaces.information))


@any_arrays
def fit_tracks(surfaces: Surfaces, smoother: TrackSmoother, start_A: FloatArray | None = None) -> Tracks:
    """Tracks of greatest posterior probability: steps by the expected curvature, halved while they lose.

    Parameters
    ----------
    surfaces : Surfaces
        Of the data.
    smoother : TrackSmoother
        Of the information of these surfaces.
    start_A : (P, F, 2) float64, optional
        Places where the search begins; those of particles that do not move by default.

    Returns
    -------
    Tracks
    """
    information = smoother.information[..., None]
    here = np.zeros((*surfaces.shape, 2)) if start_A is None else start_A
    value, slope = surfaces.at(here)
    best = float(value.sum()) + smoother.log_prior(here)
    for _ in range(_ROUNDS):
        step = smoother.solve(information * here + slope) - here
        for halving in range(_HALVINGS):
            there = here + step * 0.5**halving
            value, slope_there = surfaces.at(there)
            reached = float(value.sum()) + smoother.log_prior(there)
            if reached > best:
                break
        else:
            break
        gained, best = reached - best, reached
        here, slope = there, slope_there
        if gained < _CONVERGED_NATS:
            break
    positions, offset = smoother.about_mean(here)
    return Tracks(positions, offset, slope, best)


def fit_offsets(surfaces: Surfaces) -> FloatArray:
    """(P, 2) most probable offsets of particles that do not move, each found by itself as :func:`fit_tracks` does."""
    particles, frames = surfaces.shape
    precision = surfaces.information.sum(axis=1)[:, None] + OFFSET_A**-2

    def evaluate(offset: FloatArray) -> tuple[FloatArray, FloatArray]:
        value, slope = surfaces.at(np.repeat(offset[:, None], frames, axis=1))
        penalty = 0.5 * (offset**2).sum(axis=1) / OFFSET_A**2
        return value.sum(axis=1) - penalty, slope.sum(axis=1) - offset / OFFSET_A**2

    here = np.zeros((particles, 2))
    best, slope = evaluate(here)
    share = np.ones(particles)
    for _ in range(_ROUNDS):
        there = here + share[:, None] * slope / precision
        reached, slope_there = evaluate(there)
        better = reached > best
        gained = float(np.where(better, reached - best, 0).sum())
        here, best = np.where(better[:, None], there, here), np.where(better, reached, best)
        slope = np.where(better[:, None], slope_there, slope)
        share = np.where(better, 1.0, share / 2)
        if gained < _CONVERGED_NATS and (better | (share < 0.5**_HALVINGS)).all():
            break
    return here


def log_evidence(smoother: TrackSmoother, tracks: Tracks) -> float:
    """Logarithm of the marginal likelihood of a prior, by Laplace's approximation at its most probable tracks.

    The curvature of the likelihood is the expected one, the same along x and y, so that one determinant serves both.
    """
    return tracks.log_posterior + 2 * smoother.log_determinant


def track_errors_A(smoother: TrackSmoother) -> FloatArray:
    """(P, F) posterior standard deviations along an axis of the positions, by the expected curvature.

    Of draws, always the same: positions of all particles and frames depend on each other.
    """
    draws, _ = smoother.about_mean(smoother.draw(_DRAWS, np.random.default_rng(0)))
    return np.asarray(np.sqrt((draws**2).mean(axis=-1)))


@dataclass(frozen=True, eq=False)
class HeldOutGain:
    """What tracks gain on coefficients that they were not fitted to.

    Attributes
    ----------
    nats : (P,) float64
        Of each particle, over no motion beyond the known track, both folds together.
    """

    nats: FloatArray

    @property
    def total(self) -> float:
        """Of the micrograph."""
        return float(self.nats.sum())

    @property
    def error(self) -> float:
        """Standard error of the total, from the spread of the particles."""
        return float(np.sqrt(len(self.nats)) * self.nats.std(ddof=1)) if len(self.nats) > 1 else np.inf


@any_arrays
def held_out_gain(
    folds: tuple[Surfaces, Surfaces], prior: MotionPrior, places_A: FloatArray, dose_e_A2: float
) -> tuple[HeldOutGain, tuple[Tracks, Tracks]]:
    """Tracks fitted to each fold, judged by the other against a fit of offsets alone; and the tracks of the folds."""
    gains, fits, frames = np.zeros(folds[0].shape[0]), list[Tracks](), folds[0].shape[1]
    for fitted, judge in (folds, folds[::-1]):
        still = np.repeat(fit_offsets(fitted)[:, None], frames, axis=1)
        moving = fit_tracks(fitted, smoother_of(prior, fitted, places_A, dose_e_A2), still)
        gains += judge.at(moving.places_A)[0].sum(axis=1) - judge.at(still)[0].sum(axis=1)
        fits.append(moving)
    return HeldOutGain(gains), (fits[0], fits[1])
