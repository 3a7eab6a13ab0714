"""Reference of ops.rotate: the non-uniform Fourier sum of the map at every rotated frequency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rotate(volume: npt.ArrayLike, matrix: npt.ArrayLike, max_radius: int) -> npt.NDArray[np.complex128]:
    """Exact transform of the rotated map, complex128; the arguments of :func:`verglas.ops.rotate` without the grid."""
    volume = np.asarray(volume, np.float64)
    box = len(volume)
    k = np.fft.fftfreq(box, 1 / box).round()
    grid = np.stack(np.meshgrid(k, k, np.arange(box // 2 + 1), indexing="ij"), axis=-1)  # kz, ky, kx
    keep = (np.linalg.norm(grid, axis=-1) < max_radius + 0.5) & (np.abs(grid) <= (box - 1) // 2).all(axis=-1)
    frequencies = (grid[keep][:, ::-1] @ np.asarray(matrix, np.float64)) / box  # x y z of A^T k
    x = np.arange(box) - box // 2
    ex, ey, ez = (np.exp(-2j * np.pi * frequencies[:, axis, None] * x) for axis in range(3))
    out = np.zeros(keep.shape, np.complex128)
    for part in np.array_split(np.arange(len(frequencies)), max(1, len(frequencies) // 512)):
        planes = np.einsum("kx,zyx->kzy", ex[part], volume, optimize=True)
        values = np.einsum("kzy,kz,ky->k", planes, ez[part], ey[part], optimize=True)
        out[tuple(index[part] for index in np.nonzero(keep))] = values
    return out
