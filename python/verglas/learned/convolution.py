"""Convolutions of images with many channels, and their gradients."""

from __future__ import annotations

import numpy as np

from verglas.ops import convolve, convolve_gradient
from verglas.types.arrays import Float32Array

__all__ = ["convolve", "convolve_adjoint", "enlarge", "enlarge_adjoint"]


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
    of_weight = convolve_gradient(images, gradient, len(weight), stride).astype(np.float32)
    of_bias = gradient.sum(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    back = _back_to_images(images.shape, weight, gradient, stride) if of_images else None
    return back, of_weight, of_bias


def _back_to_images(shape: tuple[int, ...], weight: Float32Array, gradient: Float32Array, stride: int) -> Float32Array:
    """The same kernels turned by half a turn, channels and kernels exchanged, on what stands at every pixel."""
    if stride > 1:
        wide = np.zeros((*shape[:3], gradient.shape[-1]), np.float32)
        wide[:, ::stride, ::stride] = gradient
        gradient = wide
    turned = np.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
    return convolve(gradient, turned, np.zeros(weight.shape[2], np.float32))


def enlarge(images: Float32Array) -> Float32Array:
    """Twice as many rows and columns, each pixel repeated."""
    return images.repeat(2, axis=1).repeat(2, axis=2)


def enlarge_adjoint(gradient: Float32Array) -> Float32Array:
    """Sums of squares of two by two pixels."""
    rows = gradient[:, 0::2] + gradient[:, 1::2]
    return rows[:, :, 0::2] + rows[:, :, 1::2]
