"""How evenly views sample Fourier space, and what tilting the stage would add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.assessment.orientations import counts_of_views, view_counts
from verglas.geometry import direction_vectors, healpix_directions
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.display import one_line

_VIEW_ORDER = 4  # of view_counts
_DIRECTION_ORDER = 3  # 768 distinct directions of Fourier space
_SLICE_RAD = np.deg2rad(3.7)  # thickness of a slice at the radius that is looked at: the cells of view_counts
LEAST_SAMPLED = 0.1  # of the mean density; less counts as this much, or one empty direction would make the factor 0
ENOUGH = 0.81  # sampling compensation factor below which the authors call a set of views limited
_TILTS_DEG = tuple(range(0, 65, 5))
_MOST_VIEWS = 4000  # tilted one by one
_AZIMUTHS = 12


@one_line
@dataclass(frozen=True)
class Sampling:
    """Sampling of Fourier space by slices.

    Attributes
    ----------
    directions : (n, 3) float64
        Unit vectors x, y, z.
    density : (n,) float64
        Slices through each direction, over their mean.
    compensation_factor : float
        1 / mean(1 / density), densities of at least a tenth: the part of the signal to noise that is left of even
        views.
    empty : float
        Share of the directions with less than a tenth of the mean density.
    worst_direction : (3,) float64
        The least sampled.
    """

    directions: FloatArray
    density: FloatArray
    compensation_factor: float
    empty: float
    worst_direction: FloatArray


@one_line
@dataclass(frozen=True)
class TiltProposal:
    """What tilting the stage would do for the sampling.

    Attributes
    ----------
    tilts_deg, compensation_factor : (n,) float64
        Of data taken at each tilt alone, the preference for the grid's plane as it is now.
    proposed_deg : float, optional
        The least tilt that is enough; None where no tilt up to 60 degrees is.
    """

    tilts_deg: FloatArray
    compensation_factor: FloatArray
    proposed_deg: float | None


@any_arrays
def fourier_sampling(angles_deg: npt.ArrayLike, symmetry: str = "C1") -> Sampling:
    r"""Slices through every direction of Fourier space, and the sampling compensation factor.

    A view along v fills the plane normal to it; a direction k lies in it where :math:`v \cdot k` is near zero.

    .. math:: SCF = \left\langle \bar S / S(k) \right\rangle^{-1}, \quad S(k) = \sum_v w(v \cdot k)

    with S of at least a tenth of its mean (the formula alone is 0 wherever one direction is empty). 1 for even views,
    0.81 for side views about one axis.

    Parameters
    ----------
    angles_deg : (n, 3) float
        rot, tilt, psi.
    symmetry : str
        Point group of the map.

    Raises
    ------
    InputError
        Angles of another shape, or none.

    References
    ----------
    Baldwin & Lyumkis, Prog. Biophys. Mol. Biol. 150 (2020) 160.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.assessment import fourier_sampling
    >>> even = vg.geometry.random_orientations(20000, seed=0)
    >>> fourier_sampling(even).compensation_factor > 0.98
    True
    """
    return _sampling(counts_of_views(angles_deg, symmetry, "fourier sampling"))


def _sampling(counts: FloatArray) -> Sampling:
    slices = slices_through(counts)
    density = slices / slices.mean()
    empty = float(np.mean(density < LEAST_SAMPLED))
    directions = _directions()
    return Sampling(directions, density, compensation_factor(slices), empty, directions[int(np.argmin(density))])


def compensation_factor(slices: FloatArray) -> float:
    """1 / mean(mean / slices), of at least a tenth of their mean."""
    return float(1 / np.mean(1 / np.maximum(slices / slices.mean(), LEAST_SAMPLED)))


def slices_through(counts: FloatArray) -> FloatArray:
    """Slices through each of 768 directions of Fourier space, from the views per cell of :func:`view_counts`."""
    filled = counts > 0
    return np.asarray(slices_of(direction_vectors(healpix_directions(_VIEW_ORDER))[filled]) @ counts[filled])


def slices_of(views: FloatArray) -> FloatArray:
    """Weight of each view's slice in each direction, (768, views)."""
    return np.asarray(np.exp(-0.5 * (_directions() @ views.T / np.sin(_SLICE_RAD)) ** 2))


def _directions() -> FloatArray:
    return direction_vectors(healpix_directions(_DIRECTION_ORDER))


@any_arrays
def propose_tilt(angles_deg: npt.ArrayLike, symmetry: str = "C1", *, seed: int = 0) -> TiltProposal:
    """Sampling of data that would be collected at a stage tilt, by turning the present views.

    Particles lie on the grid as they do now and are seen at an angle: each view becomes a circle of views about it, of
    the tilt as its radius, since particles are turned at random in the plane of the grid.

    Parameters
    ----------
    angles_deg : (n, 3) float
        rot, tilt, psi of data taken without tilt.
    symmetry : str
        Point group of the map.
    seed : int
        Of the azimuths.

    Raises
    ------
    InputError
        Angles of another shape, not finite, or none.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import propose_tilt
    >>> angles = np.zeros((500, 3)); angles[:, 1] = np.random.default_rng(0).uniform(0, 30, 500)
    >>> angles[:, 0] = np.random.default_rng(1).uniform(0, 360, 500)
    >>> proposal = propose_tilt(angles)
    >>> bool(proposal.compensation_factor[0] < 0.3), 40 <= proposal.proposed_deg <= 60
    (True, True)
    """
    counts_of_views(angles_deg, symmetry, "propose_tilt")  # refuses what are no angles, which turned ones would hide
    angles = np.atleast_2d(np.asarray(angles_deg, np.float64))
    rng = np.random.default_rng(seed)
    if len(angles) > _MOST_VIEWS:
        angles = angles[rng.choice(len(angles), _MOST_VIEWS, replace=False)]
    views = direction_vectors(angles[:, :2])
    other = np.where(np.abs(views[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(views, other)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(views, first)
    azimuth = rng.uniform(0, 2 * np.pi, (_AZIMUTHS, len(views), 1))
    around = np.cos(azimuth) * first + np.sin(azimuth) * second
    factors = []
    for tilt in np.deg2rad(_TILTS_DEG):
        x, y, z = (np.cos(tilt) * views + np.sin(tilt) * around).reshape(-1, 3).T
        turned = np.column_stack(
            [np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arccos(np.clip(z, -1, 1))), np.zeros(len(x))]
        )
        factors.append(_sampling(view_counts(turned, symmetry)).compensation_factor)
    enough = [tilt for tilt, factor in zip(_TILTS_DEG, factors, strict=True) if factor >= ENOUGH]
    return TiltProposal(np.array(_TILTS_DEG, float), np.array(factors), float(enough[0]) if enough else None)
