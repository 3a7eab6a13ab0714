"""Tracks of the particles of one micrograph: most probable ones, and what they are worth on data they did not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from verglas.polishing.prior import MotionPrior, TrackBasis
from verglas.polishing.surfaces import Surfaces
from verglas.types.arrays import FloatArray

OFFSET_A = 0.5  # standard deviation along an axis of the error of a particle's place, as its pose says it
_ITERATIONS = 60


@dataclass(frozen=True, eq=False)
class Tracks:
    """Most probable tracks.

    Attributes
    ----------
    positions_A : (P, F, 2) float64
        About the known track, x then y; their mean over the frames, weighted by information, is zero.
    offset_A : (P, 2) float64
        Place of the particle about that of its pose.
    parts : (d, j, 2) float64
        Coefficients of the modes.
    log_posterior : float
        Without the prior's normalisation.
    """

    positions_A: FloatArray
    offset_A: FloatArray
    parts: FloatArray
    log_posterior: float

    @property
    def places_A(self) -> FloatArray:
        """(P, F, 2): with the offset."""
        return self.positions_A + self.offset_A[:, None]


def frame_weights(surfaces: Surfaces) -> FloatArray:
    """(F,) information of each frame, averaged over particles: about which mean a track is counted."""
    weights = surfaces.information.mean(axis=0)
    return weights if weights.sum() > 0 else np.ones(len(weights))


def fit_tracks(surfaces: Surfaces, basis: TrackBasis | None, start: Tracks | None = None) -> Tracks:
    """Tracks of greatest posterior probability, by L-BFGS.

    Parameters
    ----------
    surfaces : Surfaces
        Of the data.
    basis : TrackBasis or None
        Modes of the tracks; None: particles do not move, only their offsets are fitted.
    start : Tracks, optional
        Of the same particles and frames, where the search begins.

    Returns
    -------
    Tracks
    """
    particles, frames = surfaces.shape
    shape = (0, 0) if basis is None else basis.sd.shape
    size = 2 * shape[0] * shape[1]

    def divide(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        parts, offset = x[:size].reshape(*shape, 2), OFFSET_A * x[size:].reshape(particles, 2)
        return parts, offset, np.zeros((particles, frames, 2)) if basis is None else basis.positions(parts)

    def cost(x: FloatArray) -> tuple[float, FloatArray]:
        _, offset, positions = divide(x)
        value, slope = surfaces.at(positions + offset[:, None])
        gradient = x.copy()
        if basis is not None:
            gradient[:size] -= basis.gradient(slope).ravel()
        gradient[size:] -= OFFSET_A * slope.sum(axis=1).ravel()
        return float(0.5 * x @ x - value.sum()), gradient

    begin = np.zeros(size + 2 * particles)
    if start is not None:
        begin[size:] = start.offset_A.ravel() / OFFSET_A
        if basis is not None:
            # what a damped least-squares fit of the former track makes of new modes may lie far out in the prior
            begin[:size] = np.clip(basis.parts_of(start.positions_A), -4, 4).ravel()
    result = minimize(cost, begin, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS, "ftol": 1e-7})
    parts, offset, positions = divide(np.asarray(result.x))
    return Tracks(positions, offset, parts, -float(result.fun))


def log_evidence(surfaces: Surfaces, basis: TrackBasis, tracks: Tracks) -> float:
    """Logarithm of the marginal likelihood of a prior, by Laplace's approximation at its most probable tracks.

    The curvature of the likelihood is the expected one, the same along x and y, so that one determinant serves both.
    """
    design = basis.design() * np.sqrt(surfaces.information)[..., None]
    flat = design.reshape(-1, design.shape[-1])
    inner = flat.T @ flat
    inner[np.diag_indices_from(inner)] += 1.0
    diagonal = np.diag(np.linalg.cholesky(inner))
    return float(tracks.log_posterior - 2 * np.log(diagonal).sum())


def track_errors_A(surfaces: Surfaces, basis: TrackBasis) -> FloatArray:
    """(P, F) posterior standard deviations along an axis of the positions, by the expected curvature."""
    design = basis.design()
    weighted = (design * np.sqrt(surfaces.information)[..., None]).reshape(-1, design.shape[-1])
    inner = weighted.T @ weighted
    inner[np.diag_indices_from(inner)] += 1.0
    root = np.linalg.cholesky(inner)
    solved = solve_triangular(root, design.reshape(-1, design.shape[-1]).T, lower=True)
    return np.asarray(np.sqrt((solved**2).sum(axis=0)).reshape(design.shape[:2]))


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


def held_out_gain(folds: tuple[Surfaces, Surfaces], basis: TrackBasis) -> tuple[HeldOutGain, tuple[Tracks, Tracks]]:
    """Tracks fitted to each fold, judged by the other against a fit of offsets alone; and the tracks of the folds."""
    gains, fits = np.zeros(folds[0].shape[0]), []
    for fitted, judge in (folds, folds[::-1]):
        still = fit_tracks(fitted, None)
        moving = fit_tracks(fitted, basis, still)
        gains += judge.at(moving.places_A)[0].sum(axis=1) - judge.at(still.places_A)[0].sum(axis=1)
        fits.append(moving)
    return HeldOutGain(gains), (fits[0], fits[1])


def basis_of(prior: MotionPrior, surfaces: Surfaces, places_A: FloatArray, dose_e_A2: float) -> TrackBasis:
    """Modes of the tracks of these particles, about their mean weighted by information."""
    return TrackBasis.of(prior, places_A, dose_e_A2, frame_weights(surfaces))
