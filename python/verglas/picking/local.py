"""Local statistics of a micrograph: means over discs, the power of fine detail, slow trends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import fourier, image, masks
from verglas.fourier import fast_size
from verglas.image import robust_sigma
from verglas.types.arrays import FloatArray

# Pixels that a surface is fitted to, at most about.
_FITTED = 20000
# Columns of the terms 1, x, y, x^2, xy, y^2 that a surface of each order takes.
_TERMS = (1, 3, 6)


def disc_mean(values: npt.ArrayLike, radius_px: float) -> FloatArray:
    """Mean over a disc about every pixel, the image mirrored beyond its border."""
    array = np.asarray(values, np.float64)
    margin = int(np.ceil(radius_px)) + 1
    shape = tuple(fast_size(n + 2 * margin) for n in array.shape)
    pads = [(margin, m - n - margin) for m, n in zip(shape, array.shape, strict=True)]
    mode = "reflect" if min(array.shape) > max(max(p) for p in pads) else "edge"
    padded = np.pad(array, pads, mode=mode)  # type: ignore[call-overload]
    disc = masks.soft_circle(min(shape), radius_px)
    disc = image.crop_or_pad(disc / disc.sum(dtype=np.float64), shape)
    product = fourier.forward(padded, 2) * fourier.forward(disc, 2)
    window = tuple(slice(p[0], p[0] + n) for p, n in zip(pads, array.shape, strict=True))
    return fourier.inverse(product, shape)[window]


def fine_power(grey: npt.ArrayLike, width_px: float) -> FloatArray:
    """Square of what a Gaussian of a width leaves of an image."""
    values = np.asarray(grey, np.float64)
    return np.asarray((values - ndimage.gaussian_filter(values, width_px, mode="reflect")) ** 2)


def log_deviation(variance: FloatArray) -> FloatArray:
    """Logarithm of the deviation; a millionth of the median variance is the least."""
    return np.asarray(np.log(np.maximum(variance, 1e-6 * float(np.median(variance)) + 1e-12)) / 2)


def without_trend(values: FloatArray, taken: npt.NDArray[np.bool_], orders: Sequence[int]) -> tuple[FloatArray, float]:
    """Values minus a surface through what lies within 3 robust deviations of it, one fit after another.

    Parameters
    ----------
    values : (y, x) float64
    taken : (y, x) bool
        Pixels that it is fitted to.
    orders : sequence of int
        0, 1 or 2 of each fit: a constant, a plane, a quadratic surface.

    Returns
    -------
    rest : (y, x) float64
    sigma : float
        Robust deviation of the rest where ``taken``.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.local import without_trend
    >>> y, x = np.mgrid[:50, :60]
    >>> wedge = 0.1 * x + np.random.default_rng(0).normal(size=x.shape); wedge[:10] += 50
    >>> rest, sigma = without_trend(wedge, np.ones(x.shape, bool), (1, 1, 1))
    >>> bool(abs(rest[10:].mean()) < 0.1), bool(0.9 < sigma < 1.1)
    (True, True)
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in values.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    flat, rows = values.ravel(), np.flatnonzero(taken)
    rows = rows[:: max(1, rows.size // _FITTED)]
    rest = flat[rows] - np.median(flat[rows])
    sigma = max(robust_sigma(rest), 1e-12)
    fit: FloatArray = np.zeros(1)
    for order in orders:
        columns, near = _TERMS[order], np.abs(rest) <= 3 * sigma
        solution = np.linalg.lstsq(terms[rows[near], :columns], flat[rows[near]], rcond=None)[0]
        fit = np.asarray(solution, np.float64)
        rest = flat[rows] - terms[rows, :columns] @ fit
        sigma = max(robust_sigma(rest[np.abs(rest - np.median(rest)) <= 4 * sigma]), 1e-12)
    return (flat - terms[:, : len(fit)] @ fit).reshape(values.shape), sigma
