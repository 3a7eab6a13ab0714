"""Grey values brought to another distribution: by the histogram of an image, or to a uniform one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import Float32Array, FloatArray, any_arrays


@any_arrays
def match_histogram(image: npt.ArrayLike, target: npt.ArrayLike) -> Float32Array:
    r"""Grey values changed monotonically so that their distribution is the target's: :math:`F_t^{-1}(F(g))`.

    Equal values stay equal: they take the target's value at the middle of their ranks. Images of different microscopes
    or amplifications become comparable; contrast between them is lost, so do not do it to particles of one set.

    Parameters
    ----------
    image : (...) float
    target : (...) float
        Any number of values whose distribution is wanted.

    Returns
    -------
    (...) float32
        The image's shape.

    Raises
    ------
    InputError
        Values that are not finite, or none.

    Examples
    --------
    >>> from verglas import image
    >>> image.match_histogram([[3.0, 1.0], [2.0, 0.0]], [10.0, 20.0, 30.0, 40.0]).tolist()
    [[40.0, 20.0], [30.0, 10.0]]
    """
    values = _finite(image, "match_histogram: image")
    wanted = np.sort(_finite(target, "match_histogram: target"), axis=None)
    share = _shares(values)
    places = (np.arange(wanted.size) + 0.5) / wanted.size
    return np.interp(share, places, wanted).reshape(values.shape).astype(np.float32)


@any_arrays
def equalise(image: npt.ArrayLike, low: float = 0.0, high: float = 1.0) -> Float32Array:
    """Grey values spread evenly between two values: each becomes the share of the pixels below it.

    Parameters
    ----------
    image : (...) float
    low, high : float
        Ends of the range.

    Returns
    -------
    (...) float32

    Raises
    ------
    InputError
        Values that are not finite, none, or ``high`` not above ``low``.

    Examples
    --------
    >>> from verglas import image
    >>> image.equalise([[3.0, 1.0], [2.0, 100.0]]).tolist()
    [[0.625, 0.125], [0.375, 0.875]]
    """
    if not high > low:
        raise InputError(f"equalise: expected high above low, got {low:g} and {high:g}")
    values = _finite(image, "equalise: image")
    return (low + (high - low) * _shares(values)).reshape(values.shape).astype(np.float32)


def _finite(values: npt.ArrayLike, what: str) -> FloatArray:
    array = np.asarray(values, np.float64)
    if not array.size or not np.isfinite(array).all():
        raise InputError(f"{what}: expected finite values, one or more")
    return array


def _shares(values: FloatArray) -> FloatArray:
    """Share of the values that lie below each, counting itself and its equals half."""
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - 0.5 * count
    return (middle / values.size)[np.ravel(which)]
