r"""Maps of the particles near a point of their coordinates: weighted reconstructions, no model's guess.

.. math:: w_i = \exp\bigl(-\tfrac12 (z_i - z)^T (C_i + h^2 S)^{-1} (z_i - z)\bigr)

with :math:`C_i` the covariance of a particle's coordinates and S the variances of all. A wide kernel mixes
conformations, a narrow one has few particles: the width h is the one whose half maps explain the particles nearest to
the point best that they were not made from (in the manner of Gilles and Singer 2025, PNAS 122, e2419140122).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from verglas.errors import InputError
from verglas.heterogeneity.linear import half_volumes, one_pass, products
from verglas.heterogeneity.posed import PosedImages
from verglas.types.arrays import Float32Array, FloatArray

WIDTHS = (0.15, 0.25, 0.4, 0.6, 1.0)
FEWEST = 20.0  # particles that weights must be worth to make a map
_NEAR = 0.02  # of the particles, or as many as FEWEST, judge the widths
_LEAST = 1e-4  # of the largest weight: particles below it have no part


def kernel_weights(coordinates: FloatArray, covariances: FloatArray, z: FloatArray, width: float) -> FloatArray:
    """(n,) weights of particles about a point, 1 for the nearest.

    Parameters
    ----------
    coordinates, covariances : (n, q), (n, q, q) float64
    z : (q,) float64
    width : float
        h, in standard deviations of the coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.kernel_maps import kernel_weights
    >>> kernel_weights(np.array([[-1.0], [1.0]]), np.zeros((2, 1, 1)), np.array([1.0]), 1.0).round(3).tolist()
    [0.135, 1.0]
    """
    away = coordinates - np.asarray(z, np.float64)
    variance = coordinates.var(axis=0)
    # Along a component that has vanished all particles are alike, and sure of it: no distance, but no division by 0.
    still = (variance == 0) & (np.einsum("iqq->iq", covariances) == 0).all(axis=0)
    spread = covariances + np.diag(np.where(still, 1.0, width**2 * variance))
    distance = np.einsum("iq,iq->i", away, np.linalg.solve(spread, away[:, :, None])[:, :, 0])
    return np.exp(-0.5 * (distance - distance.min()))


def worth(weight: FloatArray) -> float:
    """Number of equal particles that weights are worth, (sum w)^2 / sum w^2."""
    return float(weight.sum() ** 2 / np.square(weight).sum())


def weighted_halves(
    posed: PosedImages, sigma2: FloatArray, weights: FloatArray, contrast: FloatArray
) -> list[Float32Array]:
    """Maps of each half set with weights per particle, regularised by the FSC of the two.

    Parameters
    ----------
    posed : PosedImages
    sigma2 : (groups, radius + 1) float64
    weights : (n, W) float64
        Of W maps, which are made in one pass.
    contrast : (n,) float64

    Returns
    -------
    list of (W, N, N, N) float32
    """
    count = weights.shape[1]
    used = (weights > _LEAST * weights.max(axis=0)).any(axis=1)
    empty = np.zeros((count, posed.box, posed.box, posed.box), np.float32)
    diagonal = np.arange(count)

    def moments(made: Any) -> tuple[FloatArray, FloatArray]:
        w, a = weights[made.batch.rows], contrast[made.batch.rows, None]
        second = np.zeros((len(w), count, count))
        second[:, diagonal, diagonal] = w * a**2
        return w * a, second

    sums = []
    for half in (1, 2):
        rows = posed.rows_of_half(half)
        sums.append(one_pass(posed, empty, sigma2, rows[used[rows]], moments, [posed.radius] * count, mixed=False))
    return half_volumes(posed, sums, posed.sphere)[0]


def choose_width(
    posed: PosedImages,
    sigma2: FloatArray,
    coordinates: FloatArray,
    covariances: FloatArray,
    contrast: FloatArray,
    z: FloatArray,
) -> float:
    """The width of :data:`WIDTHS` whose maps explain the nearest particles of the other half set best.

    Parameters
    ----------
    posed : PosedImages
    sigma2 : (groups, radius + 1) float64
    coordinates, covariances, contrast : (n, q), (n, q, q), (n,) float64
    z : (q,) float64

    Raises
    ------
    InputError
        Fewer than 20 particles are near, whatever the width.
    """
    weights = np.stack([kernel_weights(coordinates, covariances, z, h) for h in WIDTHS], axis=1)
    enough = [k for k in range(len(WIDTHS)) if worth(weights[:, k]) >= FEWEST]
    if not enough:
        raise InputError(f"{worth(weights[:, -1]):.0f} particles lie near {np.round(z, 2)}; it takes {FEWEST:.0f}")
    volumes = weighted_halves(posed, sigma2, weights[:, enough], contrast)
    near = np.argsort(-weights[:, 0], kind="stable")[: max(int(FEWEST), round(_NEAR * len(weights)))]
    lost = np.zeros(len(enough))
    for half in (1, 2):
        rows = np.sort(near[posed.half[near] == half])
        for made in products(posed, volumes[2 - half], sigma2, rows):
            a, w = contrast[made.batch.rows], weights[made.batch.rows, 0]
            power = np.einsum("ikk->ik", made.gram)
            lost += (w[:, None] * (0.5 * np.square(a)[:, None] * power - a[:, None] * made.cross)).sum(axis=0)
    return WIDTHS[enough[int(lost.argmin())]]
