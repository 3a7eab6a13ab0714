"""Oracle of :func:`verglas.ops.radon`: parallel rays through slices, linear interpolation across each line."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def matrix(shape: tuple[int, int], width: int, angle_deg: float) -> npt.NDArray[np.float64]:
    r"""(width, z * x) matrix of one angle.

    The ray of detector pixel t is the line x cos - z sin = t, all three from pixel N // 2. It is sampled once on
    every row z where abs(cos) >= abs(sin), else once on every column x, by linear interpolation along the row or
    column, times the length of the ray between two samples (Joseph 1982, IEEE Trans. Med. Imaging 1, 192).
    """
    nz, nx = shape
    angle = np.deg2rad(angle_deg)
    c, s = np.cos(angle), np.sin(angle)
    out = np.zeros((width, nz, nx))
    for pixel in range(width):
        t = pixel - width // 2
        # Step along the axis that is nearer to the ray: every line is crossed once, and 1 / |c| is the length between
        # lines.
        if abs(c) >= abs(s):
            for z in range(nz):
                _add(out[pixel, z], nx // 2 + (t + (z - nz // 2) * s) / c, 1 / abs(c))
        else:
            for x in range(nx):
                _add(out[pixel, :, x], nz // 2 + ((x - nx // 2) * c - t) / s, 1 / abs(s))
    return out.reshape(width, -1)


def _add(line: npt.NDArray[np.float64], position: float, weight: float) -> None:
    below = int(np.floor(position))
    for index, part in ((below, 1 - (position - below)), (below + 1, position - below)):
        if 0 <= index < len(line):
            line[index] += weight * part


def radon(volume: npt.ArrayLike, angles_deg: npt.ArrayLike, width: int) -> npt.NDArray[np.float64]:
    """(angles, y, width) ray sums of (z, y, x)."""
    v = np.asarray(volume, np.float64)
    nz, ny, nx = v.shape
    flat = v.transpose(0, 2, 1).reshape(nz * nx, ny)
    return np.stack([(matrix((nz, nx), width, a) @ flat).T for a in np.atleast_1d(angles_deg)])


def radon_adjoint(images: npt.ArrayLike, angles_deg: npt.ArrayLike, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(z, y, x) transpose of :func:`radon`."""
    p = np.asarray(images, np.float64)
    nz, nx = shape
    total = sum(matrix(shape, p.shape[2], a).T @ one.T for a, one in zip(np.atleast_1d(angles_deg), p, strict=True))
    return np.asarray(total).reshape(nz, nx, p.shape[1]).transpose(0, 2, 1)
