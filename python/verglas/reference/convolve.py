"""Reference of ops.convolve: sums of shifted images, written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def _shifted(images: npt.NDArray[np.float64], u: int, v: int, reach: int, stride: int) -> npt.NDArray[np.float64]:
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = images.shape[1:3]
    return padded[:, u : u + height : stride, v : v + width : stride]


def convolve(
    images: npt.ArrayLike, weight: npt.ArrayLike, bias: npt.ArrayLike, stride: int = 1
) -> npt.NDArray[np.float64]:
    """(n, ceil(y / s), ceil(x / s), o) float64; the arguments of :func:`verglas.ops.convolve`."""
    x, w = np.asarray(images, np.float64), np.asarray(weight, np.float64)
    side = len(w)
    out = np.asarray(bias, np.float64)
    for u in range(side):
        for v in range(side):
            out = out + _shifted(x, u, v, side // 2, stride) @ w[u, v]
    return out


def convolve_gradient(
    images: npt.ArrayLike, gradient: npt.ArrayLike, side: int, stride: int = 1
) -> npt.NDArray[np.float64]:
    """(k, k, c, o) float64; the arguments of :func:`verglas.ops.convolve_gradient`."""
    x, g = np.asarray(images, np.float64), np.asarray(gradient, np.float64)
    rows = [
        [np.einsum("nijc,nijo->co", _shifted(x, u, v, side // 2, stride), g) for v in range(side)] for u in range(side)
    ]
    return np.array(rows)
