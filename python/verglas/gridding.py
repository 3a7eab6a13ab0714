"""Between maps and the oversampled Fourier grid of ``project`` and ``insert``.

The padded transforms are made axis by axis: rows that are only padding are never transformed, and coordinates outside
the grid are dropped as soon as their axis is done, so neither the padded map nor its whole transform ever exists.
Arrays on a GPU are transformed there.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas._array_module import array_module
from verglas.errors import InputError
from verglas.ops.grid import Grid

__all__ = ["from_grid", "to_grid"]
__dir__ = partial(sorted, __all__)


def _centre_phase(coordinates: npt.NDArray[np.int64], box: int, padded: int) -> npt.NDArray[np.complex64]:
    """exp(+2 pi i k c / P): moves the origin from voxel 0 to voxel c = box // 2."""
    # The remainder is taken in integers: k c reaches 10^5, and its fraction of a turn would lose digits as a float.
    turns = (coordinates * (box // 2) % padded) / padded
    return np.exp(2j * np.pi * turns).astype(np.complex64)


def to_grid(data: npt.ArrayLike, grid: Grid, *, threads: int | None = None) -> npt.NDArray[np.complex64]:
    r"""Transform of a map on the grid, divided by the window's transform: what ``ops.project`` interpolates.

    Parameters
    ----------
    data : (N, N, N) float32
        The map, (z, y, x), origin at voxel N // 2.
    grid : Grid
        Its ``box`` is N.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    grid.shape complex64

    Raises
    ------
    InputError
        The map is not a cube of the grid's box.

    Notes
    -----
    Time: N^2 + N P + P^2 transforms of length P (P the padded side), less where ``max_radius`` is small. Memory: the
    result, plus N P P / 2 complex64 on the way.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import gridding, ops
    >>> point = np.zeros((8, 8, 8), np.float32); point[4, 4, 4] = 1
    >>> g = ops.Grid(8)
    >>> spectrum = gridding.to_grid(point, g)
    >>> bool(np.ptp(spectrum[:, :, g.halo].real) < 1e-6)
    True
    """
    xp = array_module(data)
    volume: npt.NDArray = xp.asarray(data, dtype=np.float32)
    if volume.shape != (grid.box,) * 3:
        raise InputError(f"to_grid: expected a map of shape {(grid.box,) * 3}, got {volume.shape}")
    fft, more = fourier.transforms(volume, threads)
    extent, padded = grid.extent, grid.padded
    correction = xp.asarray((1.0 / grid.window_transform()).astype(np.float32))
    # x: kx = 0 .. P/2 by a real transform; the grid may reach past Nyquist by its margin, where the transform repeats.
    k = np.arange(-grid.halo, extent + 1)
    # n=padded puts the zeros behind the box, so the origin is voxel 0 here; the phases move it to voxel box // 2,
    # without the copies of a centred padding.
    step = fft.rfft(volume * correction, n=padded, axis=2, **more)
    step = _take_half(step, k, padded) * xp.asarray(_centre_phase(k, grid.box, padded))
    # y and z: complex transforms of what is left.
    k = np.arange(-extent, extent + 1)
    phase, places = xp.asarray(_centre_phase(k, grid.box, padded)), xp.asarray(k % padded)
    step *= correction[:, None]
    step = fft.fft(step, n=padded, axis=1, **more)[:, places] * phase[:, None]
    step *= correction[:, None, None]
    # The last columns of a row are there for the kernels' vector loads only: they stay 0.
    out = xp.zeros(grid.shape, np.complex64)
    columns = grid.halo + 1 + extent
    for begin in range(0, step.shape[1], 16):  # blocks of rows bound the scratch of the last axis
        rows = slice(begin, begin + 16)
        block = fft.fft(step[:, rows], n=padded, axis=0, **more)
        out[:, rows, :columns] = block[places] * phase[:, None, None]
    return out


def _take_half(half: npt.NDArray, k: npt.NDArray[np.int64], padded: int) -> npt.NDArray:
    """Columns ``k`` of a full periodic transform of which ``half`` is the rfft along the last axis.

    Only the x axis was transformed, so the value at -k is the plain conjugate.
    """
    k = k % padded
    mirrored = k > padded // 2
    xp = array_module(half)
    columns = half[..., xp.asarray(np.where(mirrored, padded - k, k))]
    for column in np.flatnonzero(mirrored):
        xp.conjugate(columns[..., column], out=columns[..., column])
    return columns


def from_grid(
    values: npt.NDArray,
    grid: Grid,
    *,
    factor: npt.NDArray | None = None,
    box: int | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    r"""Adjoint of :func:`to_grid`: folded grid values to a map.

    Computes :math:`\Re \sum_k f_k v_k e^{2\pi i k x/P} / \hat\phi(x)` over the full grid (Friedel mates included), for
    the voxels x of the box.

    Parameters
    ----------
    values : grid.shape complex
        Sums after ``ops.fold``.
    grid : Grid
        Where they lie.
    factor : grid.shape float, optional
        f, multiplied with the values; 1 without.
    box : int, optional
        Side of the result; the grid's by default, at most its padded side.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (box, box, box) float32

    Raises
    ------
    InputError
        The values are not on the grid, or the box does not fit it.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import gridding, ops
    >>> g = ops.Grid(8)
    >>> v = np.zeros(g.shape, np.complex128); v[g.extent, g.extent, g.halo] = 1  # only k = 0
    >>> m = gridding.from_grid(v, g)
    >>> bool(m[4, 4, 4] == m.min())
    True
    """
    if values.shape != grid.shape or (factor is not None and factor.shape != grid.shape):
        got = values.shape if factor is None else f"{values.shape} and a factor of shape {factor.shape}"
        raise InputError(f"from_grid: expected values of shape {grid.shape}, got {got}")
    xp = array_module(values)
    fft, more = fourier.transforms(values, threads)
    extent, padded = grid.extent, grid.padded
    box = grid.box if box is None else box
    if not 0 < box <= padded:
        raise InputError(f"from_grid: expected a box of 1 to {padded}, got {box}")
    correction = xp.asarray((1.0 / grid.window_transform(box)).astype(np.float32))
    k = np.arange(-extent, extent + 1)
    kx = np.arange(0, extent + 1)
    phase = xp.asarray(np.conj(_centre_phase(k, box, padded)))
    half = xp.empty((box, len(k), len(kx)), np.complex64)
    for begin in range(0, len(k), 16):
        rows = slice(begin, begin + 16)
        here = np.s_[:, rows, grid.halo : grid.halo + len(kx)]
        block = values[here] if factor is None else values[here] * factor[here]
        block = block.astype(np.complex64) * phase[:, None, None]
        # norm="forward" leaves out the 1 / P of an inverse: this is the adjoint of to_grid, a plain sum.
        half[:, rows] = fft.ifft(_wrap(block, k, padded, axis=0), axis=0, norm="forward", **more)[:box]
    half = _wrap(half * phase[:, None], k, padded, axis=1)
    half = fft.ifft(half, axis=1, norm="forward", **more)[:, :box]
    half = half * xp.asarray(np.conj(_centre_phase(kx, box, padded)))
    folded = xp.zeros((box, box, padded // 2 + 1), np.complex64)
    inside = kx <= padded // 2
    folded[..., : inside.sum()] = half[..., : inside.sum()]
    for column in np.flatnonzero(~inside):  # beyond Nyquist by the margin: where the transform repeats
        _add_beyond(folded, half[..., int(column)], int(kx[column]) % padded, padded)
    if extent >= padded // 2 and padded % 2 == 0:
        # Nyquist stands once in a real transform but was counted as k and -k: both halves are the same sample.
        folded[..., padded // 2] *= 2.0
    real = fft.irfft(folded, n=padded, axis=2, norm="forward", **more)[..., :box]
    return real * correction[:, None, None] * correction[:, None] * correction


def _add_beyond(folded: npt.NDArray, values: npt.NDArray, k: int, padded: int) -> None:
    """Add a column to the one of the real transform that it, or its Friedel mate, is a period away from."""
    if k == 0:
        folded[..., 0] += 2 * values  # and its mate; the real transform takes the real part
    elif k <= padded // 2:
        folded[..., k] += values
    else:
        folded[..., padded - k] += values.conj()


def _wrap(block: npt.NDArray, k: npt.NDArray[np.int64], padded: int, axis: int) -> npt.NDArray:
    """Put coordinates ``k`` at their places of a periodic axis, adding where the margin passes Nyquist."""
    shape = list(block.shape)
    shape[axis] = padded
    xp = array_module(block)
    out = xp.zeros(shape, block.dtype)
    source, target = block.swapaxes(0, axis), out.swapaxes(0, axis)
    for begin in range(0, len(k), padded):  # a period at a time: no place twice
        period = slice(begin, begin + padded)
        target[xp.asarray(k[period] % padded)] += source[period]
    return out
