"""Between maps and the oversampled Fourier grid of ``project`` and ``insert``.

The padded transforms are made axis by axis: rows that are only padding are never transformed, and coordinates outside
the grid are dropped as soon as their axis is done, so neither the padded map nor its whole transform ever exists.
Arrays on a GPU are transformed there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas._array_module import array_module
from verglas.errors import InputError
from verglas.ops.grid import Grid

__all__ = ["from_grid", "to_grid"]
__dir__ = partial(sorted, __all__)

# What a thread transforms at once: few enough that the blocks of many threads stay a small part of the array.
_ROWS = 4
_PLANES = 2


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
    # y and z: complex transforms of what is left.
    kx, k = np.arange(-grid.halo, extent + 1), np.arange(-extent, extent + 1)
    phase_x = xp.asarray(_centre_phase(kx, grid.box, padded))
    phase, places = xp.asarray(_centre_phase(k, grid.box, padded)), xp.asarray(k % padded)
    step = xp.empty((grid.box, len(k), len(kx)), np.complex64)
    # The last columns of a row are there for the kernels' vector loads only: they stay 0.
    out = xp.zeros(grid.shape, np.complex64)

    # n=padded puts the zeros behind the box, so the origin is voxel 0 here; the phases move it to voxel box // 2,
    # without the copies of a centred padding.
    def transform_plane(planes: slice) -> None:
        block = fft.rfft(volume[planes] * correction, n=padded, axis=2, **more)
        block = _take_half(block, kx, padded) * phase_x
        block *= correction[:, None]
        block = fft.fft(block, n=padded, axis=1, **more)[:, places] * phase[:, None]
        block *= correction[planes, None, None]
        step[planes] = block

    def transform_z(rows: slice) -> None:
        block = fft.fft(step[:, rows], n=padded, axis=0, **more)
        out[:, rows, : len(kx)] = block[places] * phase[:, None, None]

    # On the host every thread takes blocks of its own: the sums between the transforms take longer than these.
    workers = more.pop("workers", 1)
    in_blocks(transform_plane, grid.box, _PLANES if xp is np else grid.box, workers)
    in_blocks(transform_z, len(k), _ROWS if xp is np else 16, workers)
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


Block = Callable[[slice, slice], npt.NDArray]


def from_grid(
    values: npt.NDArray | Block,
    grid: Grid,
    *,
    factor: npt.NDArray | Block | None = None,
    box: int | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    r"""Adjoint of :func:`to_grid`: folded grid values to a map.

    Computes :math:`\Re \sum_k f_k v_k e^{2\pi i k x/P} / \hat\phi(x)` over the full grid (Friedel mates included), for
    the voxels x of the box.

    Parameters
    ----------
    values : grid.shape complex, or callable
        Sums after ``ops.fold``. A function is asked for those of some rows y and columns x of all planes, on the host.
    grid : Grid
        Where they lie.
    factor : grid.shape float, or callable, optional
        f, multiplied with the values; 1 without. A function as for the values.
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
    shapes = [getattr(array, "shape", grid.shape) for array in (values, factor)]
    if shapes != [grid.shape] * 2:
        got = shapes[0] if factor is None else f"{shapes[0]} and a factor of shape {shapes[1]}"
        raise InputError(f"from_grid: expected values of shape {grid.shape}, got {got}")
    xp = np if callable(values) else array_module(values)
    fft, more = fourier.transforms(np.empty(0) if callable(values) else values, threads)
    extent, padded = grid.extent, grid.padded
    box = grid.box if box is None else box
    if not 0 < box <= padded:
        raise InputError(f"from_grid: expected a box of 1 to {padded}, got {box}")
    correction = xp.asarray((1.0 / grid.window_transform(box)).astype(np.float32))
    k = np.arange(-extent, extent + 1)
    kx = np.arange(0, extent + 1)
    columns = slice(grid.halo, grid.halo + len(kx))
    phase = xp.asarray(np.conj(_centre_phase(k, box, padded)))
    phase_x = xp.asarray(np.conj(_centre_phase(kx, box, padded)))
    half = xp.empty((box, len(k), len(kx)), np.complex64)
    out = xp.empty((box, box, box), np.float32)

    # norm="forward" leaves out the 1 / P of an inverse: this is the adjoint of to_grid, a plain sum.
    def transform_z(rows: slice) -> None:
        here = np.s_[:, rows, columns]
        block = values(rows, columns) if callable(values) else values[here]
        if factor is not None:
            block = block * (factor(rows, columns) if callable(factor) else factor[here])
        block = block.astype(np.complex64) * phase[:, None, None]
        half[:, rows] = fft.ifft(_wrap(block, k, padded, axis=0), axis=0, norm="forward", **more)[:box]

    def transform_plane(planes: slice) -> None:
        block = _wrap(half[planes] * phase[:, None], k, padded, axis=1)
        block = fft.ifft(block, axis=1, norm="forward", **more)[:, :box] * phase_x
        block = _as_real_transform(block, kx, padded, extent)
        real = fft.irfft(block, n=padded, axis=2, norm="forward", **more)[..., :box]
        out[planes] = real * correction[planes, None, None] * correction[:, None] * correction

    # On the host every thread takes blocks of its own: the sums between the transforms take longer than these.
    workers = more.pop("workers", 1)
    in_blocks(transform_z, len(k), _ROWS if xp is np else 16, workers)
    in_blocks(transform_plane, box, _PLANES if xp is np else box, workers)
    return out


def in_blocks(work: Callable[[slice], None], length: int, step: int, threads: int) -> None:
    """Do work that fills places of its own for each block of an axis, on so many threads.

    At most a quarter of the blocks are worked on at a time: with a thread for each the scratch would be that of the
    whole axis, several times the array.
    """
    blocks = [slice(begin, begin + step) for begin in range(0, length, step)]
    if threads == 1:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(min(threads, max(1, len(blocks) // 4))) as pool:
        list(pool.map(work, blocks))


def _as_real_transform(half: npt.NDArray, kx: npt.NDArray[np.int64], padded: int, extent: int) -> npt.NDArray:
    """Columns kx = 0 .. extent as those of a real transform of the padded side."""
    xp = array_module(half)
    folded = xp.zeros((*half.shape[:2], padded // 2 + 1), np.complex64)
    inside = kx <= padded // 2
    folded[..., : inside.sum()] = half[..., : inside.sum()]
    for column in np.flatnonzero(~inside):  # beyond Nyquist by the margin: where the transform repeats
        _add_beyond(folded, half[..., int(column)], int(kx[column]) % padded, padded)
    if extent >= padded // 2 and padded % 2 == 0:
        # Nyquist stands once in a real transform but was counted as k and -k: both halves are the same sample.
        folded[..., padded // 2] *= 2.0
    return folded


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
