"""Correlation of frames with the sum of the others as a function of their shifts, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def shift_score(
    patches: npt.NDArray[np.complex128],
    shifts_px: FloatArray,
    weights: FloatArray,
    frequencies_y: FloatArray,
    frequencies_x: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value (n,), gradient (n, frames, 2) and curvature (n, frames, 3) of ops.shift_score, term by term."""
    k = np.stack(np.broadcast_arrays(frequencies_x[None, :], frequencies_y[:, None]))  # (2, rows, columns)
    turned = patches * np.exp(2j * np.pi * np.einsum("pfa,arc->pfrc", shifts_px, k))
    others = turned.sum(1, keepdims=True) - turned
    product = weights * others.conj() * turned
    value = product.real.sum((1, 2, 3))
    gradient = -4 * np.pi * np.einsum("pfrc,arc->pfa", product.imag, k)
    second = 8 * np.pi**2 * np.einsum("pfrc,arc,brc->pfab", product.real, k, k)
    return value, gradient, np.stack([second[..., 0, 0], second[..., 0, 1], second[..., 1, 1]], -1)
