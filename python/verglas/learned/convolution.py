"""Convolutions of images with many channels, and their gradients, as products of matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from verglas.types.arrays import Float32Array

# Values of one block of windows: four megabytes, so that the memory does not grow with the image.
_BLOCK = 1 << 20


def _pad(images: Float32Array, reach: int) -> Float32Array:
    return np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0))) if reach else np.ascontiguousarray(images)


def _windows(images: Float32Array, side: int, stride: int) -> Iterator[tuple[int, slice, Float32Array]]:
    """Image, rows of the result, and the windows about their pixels (rows * columns, side * side * channels)."""
    padded = _pad(images, side // 2)
    count, height, width, channels = images.shape
    rows, columns = -(-height // stride), -(-width // stride)
    inside = side * side * channels
    step = max(1, _BLOCK // (columns * inside))
    _, d_row, d_column, d_channel = padded.strides
    for number in range(count):
        for first in range(0, rows, step):
            last = min(first + step, rows)
            # Along a row the channels of neighbouring pixels follow one another in memory.
            view = np.lib.stride_tricks.as_strided(
                padded[number, first * stride :],
                (last - first, columns, side, side * channels),
                (stride * d_row, stride * d_column, d_row, d_channel),
                writeable=False,
            )
            yield number, slice(first, last), view.reshape(-1, inside)


def convolve(images: Float32Array, weight: Float32Array, bias: Float32Array, stride: int = 1) -> Float32Array:
    r"""Correlate images with kernels over all channels (what networks call a convolution).

    .. math:: Y_{nijo} = b_o + \sum_{uvc} X_{n,\, si + u - h,\, sj + v - h,\, c} \, W_{uvco},\quad h = (k - 1) / 2

    Outside the image is zero.

    Parameters
    ----------
    images : (n, y, x, c) float32
    weight : (k, k, c, o) float32
        Kernels; k is odd.
    bias : (o,) float32
    stride : int
        Step s of the result's pixels.

    Returns
    -------
    (n, ceil(y / s), ceil(x / s), o) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.learned import convolve
    >>> image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    >>> kernel = np.zeros((3, 3, 1, 1), np.float32)
    >>> kernel[1, 2] = 1  # the neighbour at the right
    >>> convolve(image, kernel, np.zeros(1, np.float32), stride=2)[0, :, :, 0].tolist()
    [[1.0, 3.0], [9.0, 11.0]]
    """
    side, _, channels, kernels = weight.shape
    count, height, width = images.shape[:3]
    out = np.empty((count, -(-height // stride), -(-width // stride), kernels), np.float32)
    matrix = np.ascontiguousarray(weight.reshape(side * side * channels, kernels))
    for number, rows, windows in _windows(images, side, stride):
        out[number, rows] = (windows @ matrix + bias).reshape(out[number, rows].shape)
    return out


def convolve_adjoint(
    images: Float32Array, weight: Float32Array, gradient: Float32Array, stride: int = 1, *, of_images: bool = True
) -> tuple[Float32Array | None, Float32Array, Float32Array]:
    """Gradients of a function of :func:`convolve`'s result with respect to images, weight and bias.

    Parameters
    ----------
    images, weight, stride
        As given to :func:`convolve`.
    gradient : (n, y', x', o) float32
        Of the function with respect to the result.
    of_images : bool
        False saves the first of the three.

    Returns
    -------
    images : (n, y, x, c) float32 or None
    weight : (k, k, c, o) float32
    bias : (o,) float32
    """
    side, _, channels, kernels = weight.shape
    of_weight = np.zeros((side * side * channels, kernels), np.float32)
    for number, rows, windows in _windows(images, side, stride):
        of_weight += windows.T @ gradient[number, rows].reshape(-1, kernels)
    of_bias = gradient.sum(axis=(0, 1, 2))
    back = _back_to_images(images.shape, weight, gradient, stride) if of_images else None
    return back, of_weight.reshape(weight.shape), of_bias


def _back_to_images(shape: tuple[int, ...], weight: Float32Array, gradient: Float32Array, stride: int) -> Float32Array:
    side, _, channels, kernels = weight.shape
    if stride == 1:  # the same kernels turned by half a turn, channels and kernels exchanged
        turned = np.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
        return convolve(gradient, turned, np.zeros(channels, np.float32))
    count, height, width, _ = shape
    rows, columns, reach = gradient.shape[1], gradient.shape[2], side // 2
    padded = np.zeros((count, height + 2 * reach + stride, width + 2 * reach + stride, channels), np.float32)
    flat = gradient.reshape(-1, kernels)
    for u in range(side):
        for v in range(side):
            part = (flat @ weight[u, v].T).reshape(count, rows, columns, channels)
            padded[:, u : u + stride * rows : stride, v : v + stride * columns : stride] += part
    return padded[:, reach : reach + height, reach : reach + width]


def enlarge(images: Float32Array) -> Float32Array:
    """Twice as many rows and columns, each pixel repeated."""
    return images.repeat(2, axis=1).repeat(2, axis=2)


def enlarge_adjoint(gradient: Float32Array) -> Float32Array:
    """Sums of squares of two by two pixels."""
    rows = gradient[:, 0::2] + gradient[:, 1::2]
    return rows[:, :, 0::2] + rows[:, :, 1::2]
