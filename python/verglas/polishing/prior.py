r"""How particles of one micrograph move together: a Gaussian process of three numbers.

The velocity v_pf of particle p between frames f and f + 1, along each axis, has the prior of Zivanov et al. (2019)

.. math::
    -2\ln p(v) = \sum_f v_f^T \Sigma^{-1} v_f + \sum_f \frac{|v_{f+1} - v_f|^2}{(\sigma_A D)^2}, \quad
    \Sigma_{pq} = (\sigma_V D)^2 e^{-|x_p - x_q| / \sigma_D}

with the exposure D of a frame. Eigenvectors of Sigma (over particles) and cosines (over frames) diagonalise it: mode
(d, j) of the velocities has the variance 1 / (1 / L_d + m_j / (sigma_A D)^2) with eigenvalue L_d and
m_j = 2 - 2 cos(pi j / (F - 1)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from verglas.errors import InputError
from verglas.types.arrays import FloatArray


@dataclass(frozen=True)
class MotionPrior:
    """What is known of tracks before data.

    Attributes
    ----------
    velocity_A : float
        sigma_V, angstroms per e/A^2.
    correlation_length_A : float
        sigma_D: distance over which particles move together.
    acceleration_A : float
        sigma_A: change of the velocity from frame to frame, angstroms per e/A^2.

    Raises
    ------
    InputError
        A value that is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.polishing import MotionPrior
    >>> prior = MotionPrior(0.42, 1600.0, 2.6)
    >>> tracks = prior.draw(np.array([[0.0, 0.0], [50.0, 0.0]]), 24, 1.0, np.random.default_rng(0))
    >>> tracks.shape, bool(np.abs(tracks[0] - tracks[1]).max() < np.abs(tracks).max())
    ((2, 24, 2), True)
    """

    velocity_A: float
    correlation_length_A: float
    acceleration_A: float

    def __post_init__(self) -> None:
        """Check ranges once."""
        for name in ("velocity_A", "correlation_length_A", "acceleration_A"):
            value = getattr(self, name)
            if not 0 < value < np.inf:
                raise InputError(f"prior of tracks: expected a positive {name}, got {value}")

    def modes(self, places_A: FloatArray, n_frames: int, dose_e_A2: float) -> VelocityModes:
        """Eigenvectors of the prior's covariance for particles at these places: (P, 2), angstroms."""
        if n_frames < 3:
            raise InputError(f"polishing: a movie of {n_frames} frames; expected at least 3")
        covariance = np.exp(-cdist(places_A, places_A) / self.correlation_length_A)
        values, space = np.linalg.eigh(covariance)
        values = np.clip(values[::-1], 1e-10, None) * (self.velocity_A * dose_e_A2) ** 2
        j = np.arange(n_frames - 1)
        # eigenvectors of the path's Laplacian are the cosines of a DCT-II
        time = np.cos(np.pi * np.outer(j + 0.5, j) / (n_frames - 1)) * np.sqrt(2 / (n_frames - 1))
        time[:, 0] /= np.sqrt(2)
        stiffness = (2 - 2 * np.cos(np.pi * j / (n_frames - 1))) / (self.acceleration_A * dose_e_A2) ** 2
        variance = 1 / (1 / values[:, None] + stiffness)
        return VelocityModes(space[:, ::-1].copy(), time, variance)

    def draw(self, places_A: FloatArray, n_frames: int, dose_e_A2: float, random: np.random.Generator) -> FloatArray:
        """Tracks (P, n_frames, 2) in angstroms, zero in the first frame."""
        modes = self.modes(places_A, n_frames, dose_e_A2)
        parts = random.normal(size=(*modes.variance.shape, 2)) * np.sqrt(modes.variance)[..., None]
        velocity = np.einsum("pd,fj,dja->pfa", modes.space, modes.time, parts, optimize=True)
        start = np.zeros((len(places_A), 1, 2))
        return np.concatenate([start, np.cumsum(velocity, axis=1)], axis=1)

    def log_density(self, tracks_A: FloatArray, places_A: FloatArray, dose_e_A2: float) -> float:
        """Logarithm of the prior's density of the velocities of tracks (P, F, 2)."""
        modes = self.modes(places_A, tracks_A.shape[1], dose_e_A2)
        velocity = np.diff(tracks_A, axis=1)
        parts = np.einsum("pd,fj,pfa->dja", modes.space, modes.time, velocity, optimize=True)
        terms = np.log(2 * np.pi * modes.variance)[..., None] + parts**2 / modes.variance[..., None]
        return float(-0.5 * terms.sum())


@dataclass(frozen=True, eq=False)
class VelocityModes:
    """Orthonormal vectors over particles and over steps, and the prior's variance of each pair of them.

    Attributes
    ----------
    space : (P, P) float64
        Columns are vectors, those of the largest eigenvalue first.
    time : (F - 1, F - 1) float64
        Columns are vectors, slow ones first.
    variance : (P, F - 1) float64
        Of the velocity, squared angstroms.
    """

    space: FloatArray
    time: FloatArray
    variance: FloatArray


@dataclass(frozen=True, eq=False)
class KnownTracks:
    """Tracks of one micrograph without error.

    Attributes
    ----------
    tracks_A : (P, F, 2) float64
    places_A : (P, 2) float64
    dose_e_A2 : float
        Of a frame.
    """

    tracks_A: FloatArray
    places_A: FloatArray
    dose_e_A2: float


def fit_prior_to_tracks(tracks: Sequence[KnownTracks], start: MotionPrior) -> MotionPrior:
    """The prior under which known tracks are likeliest.

    Parameters
    ----------
    tracks : sequence of KnownTracks
        Of some micrographs.
    start : MotionPrior
        Where the search begins.

    Returns
    -------
    MotionPrior

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.polishing import KnownTracks, MotionPrior, fit_prior_to_tracks
    >>> random, truth = np.random.default_rng(1), MotionPrior(0.5, 1000.0, 2.0)
    >>> places = random.uniform(0, 3000, (30, 2))
    >>> some = [KnownTracks(truth.draw(places, 12, 1.0, random), places, 1.0) for _ in range(4)]
    >>> found = fit_prior_to_tracks(some, MotionPrior(1.0, 500.0, 1.0))
    >>> bool(abs(found.velocity_A / 0.5 - 1) < 0.2 and abs(found.acceleration_A / 2 - 1) < 0.2)
    True
    """

    def cost(logarithms: FloatArray) -> float:
        prior = MotionPrior(*np.exp(logarithms).tolist())
        return -sum(prior.log_density(t.tracks_A, t.places_A, t.dose_e_A2) for t in tracks)

    return MotionPrior(*np.exp(_search_logarithms(cost, start)).tolist())


def _search_logarithms(cost: Any, start: MotionPrior) -> FloatArray:
    """Least cost over the logarithms of the three numbers, by Nelder and Mead's simplex."""
    begin = np.log([start.velocity_A, start.correlation_length_A, start.acceleration_A])
    simplex = np.vstack([begin, begin + 0.7 * np.eye(3)])
    options = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 0.05, "maxfev": 150}
    return np.asarray(minimize(cost, begin, method="Nelder-Mead", options=options).x)
