"""Sums of images: linear combinations, and means of sets that need not fit into memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types import Particles
from verglas.types.arrays import Float32Array, FloatArray, any_arrays

_BATCH_PIXELS = 1 << 22


@any_arrays
def linear_combination(images: npt.ArrayLike, factors: npt.ArrayLike) -> Float32Array:
    r"""The sum :math:`\sum_i k_i I_i`, added in float64.

    Parameters
    ----------
    images : (n, ...) float
        Images or volumes of one shape.
    factors : (n,) float
        k.

    Returns
    -------
    (...) float32

    Raises
    ------
    InputError
        Not one finite factor for each image.

    Examples
    --------
    >>> from verglas import image
    >>> image.linear_combination([[[1.0, 2.0]], [[3.0, 5.0]]], [2.0, -1.0]).tolist()
    [[-1.0, -1.0]]
    """
    stack, k = np.asarray(images), np.asarray(factors, np.float64)
    if stack.ndim < 2 or k.shape != stack.shape[:1] or not np.isfinite(k).all():
        raise InputError(
            f"linear_combination: expected one finite factor for each image, got {stack.shape} and {k.shape}"
        )
    total = np.zeros(stack.shape[1:])
    for factor, one in zip(k, stack, strict=True):
        total += factor * one
    return total.astype(np.float32)


@any_arrays
def mean_image(images: npt.ArrayLike | Particles) -> FloatArray:
    r"""Mean of images, read in batches where they are particles; its noise is :math:`\sigma / \sqrt n`.

    Parameters
    ----------
    images : (n, y, x) float, or Particles

    Returns
    -------
    (y, x) float64

    Raises
    ------
    InputError
        No images.

    Examples
    --------
    >>> from verglas import image
    >>> image.mean_image([[[1.0, 2.0]], [[3.0, 5.0]]]).tolist()
    [[2.0, 3.5]]
    """
    if isinstance(images, Particles):
        count, side = len(images), images.box
        shape: tuple[int, ...] = (side, side)
    else:
        images = np.asarray(images)
        count, shape = len(images), images.shape[1:]
    if not count:
        raise InputError("mean_image: no images")
    step = max(1, _BATCH_PIXELS // max(1, int(np.prod(shape))))
    total = np.zeros(shape)
    for begin in range(0, count, step):
        rows = slice(begin, min(begin + step, count))
        part = images.images(rows) if isinstance(images, Particles) else images[rows]
        total += part.sum(axis=0, dtype=np.float64)
    return total / count
