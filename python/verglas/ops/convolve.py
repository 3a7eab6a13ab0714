"""Images of many channels correlated with small kernels, and the gradient of such sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.types.arrays import Float32Array

_LARGEST_SIDE = 15
_LARGEST_STEP = 1 << 30  # beyond any image


def _require_four_axes(**arrays: npt.NDArray) -> None:
    """What is made for the result is shaped by these; the kernel asks the rest."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.ndim != 4:
            raise InputError(f"{name}: expected a float32 array of four axes, got {_describe(array)}")


def _describe(value: object) -> str:
    return f"shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _checked_stride(stride: int) -> int:
    if not 1 <= stride <= _LARGEST_STEP or stride != int(stride):
        raise InputError(f"stride: expected a whole number from 1 to {_LARGEST_STEP}, got {stride}")
    return int(stride)


def convolve(
    images: Float32Array, weight: Float32Array, bias: Float32Array, stride: int = 1, *, threads: int | None = None
) -> Float32Array:
    r"""Correlate images with kernels over all channels (what networks call a convolution).

    .. math:: Y_{nijo} = b_o + \sum_{uvc} X_{n,\, si + u - h,\, sj + v - h,\, c} \, W_{uvco},\quad h = (k - 1) / 2

    Outside the image is zero.

    Parameters
    ----------
    images : (n, y, x, c) float32
    weight : (k, k, c, o) float32
        Kernels; k is odd, 15 at most.
    bias : (o,) float32
    stride : int
        Step s of the result's pixels.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (n, ceil(y / s), ceil(x / s), o) float32

    Raises
    ------
    ValueError
        An array has another shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    >>> kernel = np.zeros((3, 3, 1, 1), np.float32)
    >>> kernel[1, 2] = 1  # the neighbour at the right
    >>> ops.convolve(image, kernel, np.zeros(1, np.float32), stride=2)[0, :, :, 0].tolist()
    [[1.0, 3.0], [9.0, 11.0]]
    """
    _require_four_axes(images=images, weight=weight)
    count, height, width = images.shape[:3]
    step = _checked_stride(stride)
    out = np.empty((count, -(-height // step), -(-width // step), weight.shape[-1]), np.float32)
    core.convolve(
        np.ascontiguousarray(images),
        np.ascontiguousarray(weight),
        np.ascontiguousarray(bias),
        step,
        out,
        resolve_threads(threads),
    )
    return out


def convolve_gradient(
    images: Float32Array, gradient: Float32Array, side: int, stride: int = 1, *, threads: int | None = None
) -> npt.NDArray[np.float64]:
    r"""Gradient of a function of :func:`convolve`'s result with respect to the kernels.

    .. math:: D_{uvco} = \sum_{nij} X_{n,\, si + u - h,\, sj + v - h,\, c} \, G_{nijo}

    Parameters
    ----------
    images : (n, y, x, c) float32
        As given to :func:`convolve`.
    gradient : (n, ceil(y / s), ceil(x / s), o) float32
        Of the function with respect to the result.
    side : int
        Of the kernels, k.
    stride, threads
        As given to :func:`convolve`.

    Returns
    -------
    (k, k, c, o) float64

    Raises
    ------
    ValueError
        An array has another shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    >>> ops.convolve_gradient(image, np.ones((1, 4, 4, 1), np.float32), 1).tolist()
    [[[[120.0]]]]
    """
    _require_four_axes(images=images, gradient=gradient)
    if side not in range(1, _LARGEST_SIDE + 1, 2):
        raise InputError(f"side: expected an odd number up to {_LARGEST_SIDE}, got {side}")
    out = np.empty((int(side), int(side), images.shape[3], gradient.shape[3]))
    core.convolve_gradient(
        np.ascontiguousarray(images),
        np.ascontiguousarray(gradient),
        _checked_stride(stride),
        out,
        resolve_threads(threads),
    )
    return out
