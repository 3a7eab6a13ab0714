"""The cone of Fourier space that holds next to no signal: its axis and half-angle by likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from verglas.types.arrays import FloatArray
from verglas.types.display import one_line

_LEFT = 0.1  # of the signal: what leaks into a cone that no view filled, by masks and gridding
_HALF_ANGLES_DEG = np.arange(15.0, 80.0, 5.0)
_AXES_AT_ONCE = 250
_LEAST_LOG_RATIO = 30.0  # of even maps of development seeds at most 16, of missing cones at least 72
_MOST_SHARE = 0.4  # a cone that holds more is not missing, however sure the difference is


@one_line
@dataclass(frozen=True)
class MissingCone:
    """The cone whose lack of signal is most likely.

    Attributes
    ----------
    axis : (3,) float64
        Unit vector x, y, z.
    half_angle_deg : float
        15 to 75, in steps of 5.
    log_ratio : float
        Log-likelihood of a tenth of the signal inside over that of all of it.
    share : float
        Signal inside, over that of the same shells in all directions.
    """

    axis: FloatArray
    half_angle_deg: float
    log_ratio: float
    share: float

    @property
    def found(self) -> bool:
        """Whether the cone stands out: a log-likelihood ratio of 30, and at most 0.4 of the signal inside."""
        return bool(self.log_ratio >= _LEAST_LOG_RATIO and self.share <= _MOST_SHARE)


class HalfProducts(NamedTuple):
    """Sums over voxels, by direction and shell, of abs(A)^2, Re A B*, abs(B)^2 of the transforms of both half maps."""

    power_a: FloatArray
    cross: FloatArray
    power_b: FloatArray


def fit_missing_cone(
    directions: FloatArray, voxels: FloatArray, sums: HalfProducts, independent: FloatArray
) -> MissingCone:
    r"""The most likely missing cone, from sums over voxels by direction and shell.

    In a shell of signal power S and noise power N of each half map, the power of the sum of both is
    :math:`N + 2S` where there is signal, and :math:`N + 0.2 S` where a tenth leaks in. With P the power of that sum
    (twice the halves' common power, and N) a voxel adds to the log-likelihood ratio of signal

    .. math:: P \left( \frac{1}{N + 0.2 S} - \frac{1}{N + 2 S} \right) - \log \frac{N + 2 S}{N + 0.2 S}

    Structure whose own transform is as uneven looks the same: a bundle of parallel rods whose repeats are not resolved.
    The conical FSC alone cannot tell: where no view was taken both halves hold the same small leak of what lies
    beside, and little noise, and agree.

    Parameters
    ----------
    directions : (n, 3) float64
        Unit vectors, evenly over a half sphere.
    voxels : (n, shells) float64
        Voxels of the full transform, by direction and shell.
    sums : HalfProducts
        (n, shells) float64 each.
    independent : (shells,) float64
        Part of a shell's voxels that count, under a mask and by Friedel's law.

    Returns
    -------
    MissingCone
        The axis is the mean of all axes and half-angles by their likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.directional import half_sphere
    >>> from verglas.assessment.missing_cone import HalfProducts, fit_missing_cone
    >>> directions, voxels = half_sphere(400), np.full((400, 4), 20.0)
    >>> signal = voxels * (directions[:, 2:] < np.cos(np.deg2rad(30)))
    >>> sums = HalfProducts(signal + voxels, signal, signal + voxels)
    >>> cone = fit_missing_cone(directions, voxels, sums, np.full(4, 0.5))
    >>> cone.found, cone.half_angle_deg, bool(cone.axis[2] > 0.99)
    (True, 30.0, True)
    """
    power_a, cross, power_b = sums
    total = np.maximum(voxels.sum(axis=0), 1.0)
    both = float(np.sqrt(power_a.sum() / max(float(power_b.sum()), 1e-300)))  # the halves' grey scales may differ
    signal = np.maximum(cross.sum(axis=0) / total, 0.0)
    power = 0.5 * (power_a / max(both, 1e-300) + power_b * both).sum(axis=0) / total
    noise = np.maximum(power - signal, 1e-6 * np.maximum(power, 1e-300))
    low, high = noise + 2 * _LEFT * signal, noise + 2 * signal
    ratio = (2 * cross + noise * voxels) * (1 / low - 1 / high) - voxels * np.log(high / low)
    by_direction = (ratio * independent)[:, 1:].sum(axis=1)
    ratios = _cone_sums(directions, -by_direction)
    # No more certain than of the least ratio: a cone somewhat smaller than the missing one fits in many places, of
    # which the likelihood of many voxels takes one, off the middle.
    weight = np.exp((ratios - ratios.max()) * min(1.0, _LEAST_LOG_RATIO / max(float(ratios.max()), 1.0))).sum(axis=1)
    axis = np.linalg.eigh((directions * weight[:, None]).T @ directions)[1][:, 2]
    axis = axis if axis[2] >= 0 else -axis
    best = int(np.argmax(ratios.max(axis=0)))
    inside = np.abs(directions @ axis) >= np.cos(np.deg2rad(_HALF_ANGLES_DEG[best]))
    # Shells by what they say of signal: beyond the resolution there is none to miss.
    shell_weight = np.where(signal > 0, signal / power.clip(1e-300), 0.0)[1:] / np.maximum(signal[1:], 1e-300)
    held = float((cross[inside][:, 1:] * shell_weight).sum())
    expected = float((voxels[inside][:, 1:] * signal[1:] * shell_weight).sum())
    share = held / expected if expected > 0 else 1.0
    return MissingCone(axis, float(_HALF_ANGLES_DEG[best]), float(ratios.max()), share)


def _cone_sums(directions: FloatArray, values: FloatArray) -> FloatArray:
    """Sums of values within each half-angle of each direction, (directions, half-angles)."""
    edges = np.cos(np.deg2rad(_HALF_ANGLES_DEG))[::-1]
    rings = len(_HALF_ANGLES_DEG) + 1
    sums = np.empty((len(directions), rings - 1))
    for start in range(0, len(directions), _AXES_AT_ONCE):
        cosine = np.abs(directions[start : start + _AXES_AT_ONCE] @ directions.T)
        ring = rings - 1 - np.searchsorted(edges, cosine.ravel(), side="right")
        index = (np.arange(len(cosine))[:, None] * rings + ring.reshape(cosine.shape)).ravel()
        each = np.bincount(index, np.tile(values, len(cosine)), minlength=len(cosine) * rings).reshape(-1, rings)
        sums[start : start + _AXES_AT_ONCE] = np.cumsum(each, axis=1)[:, :-1]
    return sums
