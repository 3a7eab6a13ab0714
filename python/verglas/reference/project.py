"""Reference of ops.project and ops.insert: the non-uniform Fourier sums themselves, no grid, no window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def slice_points(box: int, matrix: npt.ArrayLike, max_radius: int, curvature: float = 0.0) -> tuple[npt.NDArray, ...]:
    """Rows, columns and 3D frequencies (cycles per pixel, z y x) of a slice's pixels with round(|k|) <= max_radius.

    The Nyquist column and row of an even box are left out, as in ops.project.
    """
    ky = np.fft.fftfreq(box, 1 / box).round()
    kx = np.arange(box // 2 + 1)
    rows, columns = np.nonzero(np.hypot(ky[:, None], kx[None, :]) < max_radius + 0.5)
    # Nyquist is left out on even sides: its mate is itself, which no rotation respects.
    keep = (columns <= (box - 1) // 2) & (np.abs(ky[rows]) <= (box - 1) // 2)
    rows, columns = rows[keep], columns[keep]
    height = curvature * (kx[columns] ** 2 + ky[rows] ** 2)
    k = np.stack([kx[columns], ky[rows], height], axis=1) @ np.asarray(matrix, np.float64)
    return rows, columns, k[:, ::-1] / box


def _phases(box: int, frequencies: npt.NDArray) -> list[npt.NDArray]:
    """exp(-2 pi i f x) per axis, x from the centre: a separable transform at scattered frequencies."""
    x = np.arange(box) - box // 2
    return [np.exp(-2j * np.pi * frequencies[:, axis, None] * x[None, :]) for axis in range(3)]


def project(
    volume: npt.ArrayLike,
    matrices: npt.ArrayLike,
    max_radius: int,
    shifts_px: npt.ArrayLike | None = None,
    curvature: npt.ArrayLike = 0.0,
) -> npt.NDArray[np.complex128]:
    """Exact central slices of a map, complex128; the arguments of :func:`verglas.ops.project` without the grid."""
    volume = np.asarray(volume, np.float64)
    matrices = np.asarray(matrices, np.float64)
    box = len(volume)
    shifts = np.zeros((len(matrices), 2)) if shifts_px is None else np.asarray(shifts_px, np.float64)
    out = np.zeros((len(matrices), box, box // 2 + 1), np.complex128)
    curved = np.broadcast_to(curvature, len(matrices))
    ky = np.fft.fftfreq(box)
    for i, matrix in enumerate(matrices):
        rows, columns, frequencies = slice_points(box, matrix, max_radius, curved[i])
        ez, ey, ex = _phases(box, frequencies)
        planes = np.einsum("kx,zyx->kzy", ex, volume, optimize=True)
        values = np.einsum("kzy,kz,ky->k", planes, ez, ey, optimize=True)
        ramp = columns / box * shifts[i, 0] + ky[rows] * shifts[i, 1]
        out[i, rows, columns] = values * np.exp(-2j * np.pi * ramp)
    return out


def insert(
    images: npt.ArrayLike,
    matrices: npt.ArrayLike,
    max_radius: int,
    shifts_px: npt.ArrayLike | None = None,
    curvature: npt.ArrayLike = 0.0,
) -> npt.NDArray[np.float64]:
    """Adjoint of :func:`project` over the full plane, as a map: sum of Re(X exp(+2 pi i (k.d + q.x)))."""
    images = np.asarray(images)
    matrices = np.asarray(matrices, np.float64)
    box = images.shape[1]
    shifts = np.zeros((len(matrices), 2)) if shifts_px is None else np.asarray(shifts_px, np.float64)
    out = np.zeros((box,) * 3)
    curved = np.broadcast_to(curvature, len(matrices))
    ky = np.fft.fftfreq(box)
    for i, matrix in enumerate(matrices):
        rows, columns, frequencies = slice_points(box, matrix, max_radius, curved[i])
        ramp = columns / box * shifts[i, 0] + ky[rows] * shifts[i, 1]
        # kx > 0 stands for its Friedel mate too; on kx = 0 both mates are in the half plane.
        weight = np.where(columns > 0, 2.0, 1.0)
        values = images[i, rows, columns] * np.exp(2j * np.pi * ramp) * weight
        ez, ey, ex = (np.conj(e) for e in _phases(box, frequencies))
        out += np.einsum("k,kz,ky,kx->zyx", values, ez, ey, ex, optimize=True).real
    return out
