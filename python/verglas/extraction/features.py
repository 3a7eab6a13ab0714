"""What particle images are judged by when outliers are sought: statistics of each image, and robust z-scores."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from verglas import fourier, masks
from verglas.errors import InputError
from verglas.image import robust_sigma
from verglas.types.arrays import FloatArray, any_arrays

FEATURES = (
    "mean",
    "deviation",
    "skewness",
    "kurtosis",
    "rim mean",
    "rim deviation",
    "profile",
    "low",
    "middle",
    "high",
)

MOST_Z = 50.0  # that an image can score


@any_arrays
def particle_features(images: npt.ArrayLike, radius_px: float, *, profile: npt.ArrayLike | None = None) -> FloatArray:
    """What particle images are judged by, one row each, columns :data:`FEATURES`.

    Mean, deviation, skewness and kurtosis inside the circle; mean and deviation of the rim outside it; distance of the
    rotational profile from the median profile; logarithm of the power in three bands of frequency.

    Parameters
    ----------
    images : (n, y, x) float
        Square boxes.
    radius_px : float
        Of the particle.
    profile : (box // 2,) float, optional
        Median of :func:`rotational_profiles`; that of these images by default. Batches of one set need one.

    Returns
    -------
    (n, 10) float64
    """
    stack = _boxes(images)
    box = stack.shape[1]
    distance = masks.distance_from((box, box))
    inside, rim = distance <= radius_px, (distance > radius_px) & (distance <= max(radius_px + 2, 0.5 * box))
    core, edge = stack[:, inside], stack[:, rim]
    mean, deviation = core.mean(axis=1), np.maximum(core.std(axis=1), 1e-12)
    normal = (core - mean[:, None]) / deviation[:, None]
    profiles = rotational_profiles(stack)
    usual = np.median(profiles, axis=0) if profile is None else np.asarray(profile, np.float64)
    apart = np.sqrt(((profiles - usual) ** 2).mean(axis=1))
    shells = fourier.shells((box, box))
    power = np.abs(fourier.forward(stack, 2)) ** 2
    limits = (1, box // 12 + 2, box // 5 + 3, box // 2 + 1)
    bands = [np.log(power[:, (shells >= a) & (shells < b)].mean(axis=1) + 1e-12) for a, b in itertools.pairwise(limits)]
    return np.column_stack(
        [
            mean,
            np.log(deviation),
            (normal**3).mean(axis=1),
            (normal**4).mean(axis=1),
            edge.mean(axis=1),
            np.log(edge.std(axis=1) + 1e-12),
            apart,
            *bands,
        ]
    )


def rotational_profiles(images: npt.ArrayLike) -> FloatArray:
    """Averages of images (n, box, box) over rings about the centre, (n, box // 2) float64."""
    stack = _boxes(images)
    box = stack.shape[1]
    ring = np.rint(masks.distance_from((box, box))).astype(np.int64).ravel()
    counts = np.bincount(ring)
    by_ring = stack.reshape(len(stack), -1)[:, np.argsort(ring, kind="stable")]
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.asarray((np.add.reduceat(by_ring, begins, axis=1) / counts)[:, : box // 2])


def _boxes(images: npt.ArrayLike) -> FloatArray:
    stack = np.asarray(images, np.float64)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2]:
        raise InputError(f"images: expected square boxes (n, y, x), got shape {stack.shape}")
    return stack


@any_arrays
def outlier_z(features: npt.ArrayLike) -> FloatArray:
    """How far each row lies from the others: root mean square of its robust z-scores.

    Medians and median absolute deviations per column, so that outliers do not hide themselves (after Vargas et al.
    2013, J. Struct. Biol. 183, 342-353, who rank particles by a multivariate z-score).

    Parameters
    ----------
    features : (n, k) float

    Returns
    -------
    (n,) float64
        About 1 for a typical row.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import outlier_z
    >>> rows = np.random.default_rng(0).normal(size=(100, 5)); rows[17] += 9
    >>> int(outlier_z(rows).argmax())
    17
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 2:
        raise InputError(f"features: expected (n, k), got shape {values.shape}")
    if not len(values):
        return np.zeros(0)
    spread = np.array([robust_sigma(column) for column in values.T])
    usable = spread > 0
    if not usable.any():
        return np.zeros(len(values))
    z = (values[:, usable] - np.median(values[:, usable], axis=0)) / spread[usable]
    # Clipped: one feature of a broken image, such as its kurtosis, may be any number and would drown the others.
    return np.sqrt((np.minimum(np.abs(z), MOST_Z) ** 2).mean(axis=1))
