"""How alike are two images: the correlation coefficient, and the normalised cross-correlation without mean removal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import any_arrays


def _pair(f: npt.ArrayLike, g: npt.ArrayLike, mask: npt.ArrayLike | None) -> tuple[npt.NDArray, ...]:
    a, b = np.asarray(f, np.float64), np.asarray(g, np.float64)
    if a.shape != b.shape:
        raise InputError(f"correlation: the arrays have shapes {a.shape} and {b.shape}; they must be the same")
    weight = np.ones(a.shape) if mask is None else np.asarray(mask, np.float64)
    if weight.shape != a.shape:
        raise InputError(f"correlation: the mask has shape {weight.shape}, the arrays {a.shape}")
    if a.size == 0 or not weight.sum() > 0:
        raise InputError("correlation: nothing to compare, the arrays or the mask are empty")
    return a, b, weight


@any_arrays
def correlation_coefficient(f: npt.ArrayLike, g: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
    """Pearson's correlation coefficient: sum (f - mean f)(g - mean g) / (N sd f sd g).

    Parameters
    ----------
    f, g : (...) float
        Images or volumes of one shape.
    mask : (...) float, optional
        Weights >= 0 of each pixel, in the means and in the sums.

    Returns
    -------
    float
        In [-1, 1]; unchanged by f -> a f + b with a > 0. 0 if either is constant; NaN if either holds one.

    Raises
    ------
    InputError
        Shapes differ or the mask is empty.

    Examples
    --------
    >>> from verglas import image
    >>> round(image.correlation_coefficient([1.0, 2.0, 3.0], [3.0, 5.0, 7.0]), 12)
    1.0
    """
    a, b, weight = _pair(f, g, mask)
    a = a - np.average(a, weights=weight)
    b = b - np.average(b, weights=weight)
    return _normalised_product(a, b, weight)


@any_arrays
def correntropy(f: npt.ArrayLike, g: npt.ArrayLike, sigma: float, mask: npt.ArrayLike | None = None) -> float:
    r"""Correntropy: the mean of :math:`\exp(-(f - g)^2 / (2 \sigma^2))`, a robust likeness of two images.

    Pixels that differ by much more than sigma count nothing, whatever their values: unlike correlation, a few wild
    pixels cannot outvote the others. For a large sigma it is one minus the mean square over 2 sigma^2.

    Parameters
    ----------
    f, g : (...) float
        Images or volumes of one shape, and of one grey scale.
    sigma : float
        Width of the kernel; about the deviation of the noise.
    mask : (...) float, optional
        Weights >= 0 of each pixel.

    Returns
    -------
    float
        In (0, 1]; 1 for equal images.

    Raises
    ------
    InputError
        Shapes differ, the mask is empty, or sigma is not positive.

    References
    ----------
    Liu, Pokharel and Principe (2007) IEEE Trans. Signal Process. 55, 5286-5298; Sorzano et al. (2010) J. Struct. Biol.
    171, 197-206 (2D classes by it).

    Examples
    --------
    >>> from verglas import image
    >>> image.correntropy([1.0, 2.0], [1.0, 2.0], 0.5), round(image.correntropy([0.0, 0.0], [0.0, 99.0], 1.0), 6)
    (1.0, 0.5)
    """
    a, b, weight = _pair(f, g, mask)
    if not sigma > 0:
        raise InputError(f"correntropy: expected a sigma above 0, got {sigma:g}")
    return float(np.average(np.exp(-0.5 * ((a - b) / sigma) ** 2), weights=weight))


@any_arrays
def ncc(f: npt.ArrayLike, g: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
    """Normalised cross-correlation without mean removal: sum f g / sqrt(sum f^2 sum g^2).

    For two maps whose frequencies are those of one shell, this is the Fourier shell correlation of that shell.

    Parameters
    ----------
    f, g : (...) float
        Images or volumes of one shape.
    mask : (...) float, optional
        Weights >= 0 of each pixel.

    Returns
    -------
    float
        In [-1, 1]; unchanged by f -> a f with a > 0. 0 if either is 0 everywhere.

    Examples
    --------
    >>> from verglas import image
    >>> image.ncc([1.0, 0.0], [1.0, 1.0]) ** 2 - 0.5 < 1e-12
    True
    """
    return _normalised_product(*_pair(f, g, mask))


def _normalised_product(a: npt.NDArray, b: npt.NDArray, weight: npt.NDArray) -> float:
    power_a, power_b = float(np.sum(weight * a * a)), float(np.sum(weight * b * b))
    if np.isnan(power_a) or np.isnan(power_b):
        return float("nan")
    if power_a == 0 or power_b == 0:
        return 0.0
    # Two square roots: the product of two powers could overflow, or underflow to 0, where each of them does not.
    value = float(np.sum(weight * a * b)) / (np.sqrt(power_a) * np.sqrt(power_b))
    # Rounding alone can pass 1, and an arc cosine of it would be NaN.
    return float(np.clip(value, -1.0, 1.0))
