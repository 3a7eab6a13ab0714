"""The part of a grid that slices reach, packed, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops.grid import Grid


def count_points(grid: Grid) -> int:
    """Points of the ball of a grid that slices to its last shell reach with their windows.

    Examples
    --------
    >>> from verglas import ops
    >>> grid = ops.Grid(128)
    >>> 0.5 < ops.count_points(grid) / (grid.shape[0] * grid.shape[1] * grid.shape[2]) < 0.6
    True
    """
    begin, end = _runs(grid, 1)
    return int((end - begin).sum(dtype=np.int64))


def pack(whole: npt.NDArray, grid: Grid, packed: npt.NDArray, *, add: bool = False, threads: int | None = None) -> bool:
    r"""Copy the ball of a grid, of points :math:`|k| \le r P / N + \sqrt{3} (w / 2 + 1)`, to an array without corners.

    r is the last shell, P / N the oversampling, w the width of the window: a window reaches w / 2 along each axis, and
    a step more, so that no rounding of a pose passes it. Rows of the ball lie y by y, all planes z of a y together.

    Parameters
    ----------
    whole : grid.shape float64 or complex128
    grid : Grid
    packed : (count_points(grid),) of the same dtype
        Written.
    add : bool
        Add to ``packed`` instead.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    bool
        Whether something outside the ball is not zero; it is not in ``packed``.

    Raises
    ------
    ValueError
        An array has another shape or dtype.

    Notes
    -----
    On the host only: sums are packed where they wait. Read once; half of the memory that the whole takes.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> grid = ops.Grid(8)
    >>> packed = np.empty(ops.count_points(grid))
    >>> ops.pack(np.ones(grid.shape), grid, packed), bool((packed == 1).all())
    (True, True)
    """
    width = _width(whole.dtype, packed.dtype)
    begin, end = _runs(grid, width)
    return bool(core.pack(_as_numbers(whole), begin, end, packed.view(np.float64), add, resolve_threads(threads)))


def unpack(packed: npt.NDArray, grid: Grid, rows: slice = slice(None), *, threads: int | None = None) -> npt.NDArray:
    """Rows y of a grid from the ball alone (:func:`pack`); points outside are 0.

    Parameters
    ----------
    packed : (count_points(grid),) float64 or complex128
    grid : Grid
    rows : slice
        Of neighbouring rows; all by default.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (grid.shape[0], rows, grid.shape[2]) of the same dtype

    Raises
    ------
    ValueError
        An array has another shape or dtype, or rows do not follow each other.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> grid = ops.Grid(8)
    >>> ops.unpack(np.ones(ops.count_points(grid)), grid, slice(3, 5)).shape == (grid.shape[0], 2, grid.shape[2])
    True
    """
    first, last, step = rows.indices(grid.shape[1])
    if step != 1:
        raise ValueError(f"rows: expected neighbouring ones, got a step of {step}")
    width = _width(packed.dtype, packed.dtype)
    begin, end = _runs(grid, width)
    out = np.empty((grid.shape[0], max(0, last - first), grid.shape[2]), packed.dtype)
    core.unpack(packed.view(np.float64), begin, end, first, _as_numbers(out), resolve_threads(threads))
    return out


def _width(whole: npt.DTypeLike, packed: npt.DTypeLike) -> int:
    """Real numbers to a point."""
    if whole != packed or whole not in (np.float64, np.complex128):
        raise ValueError(f"pack: expected arrays of float64 or complex128, both alike, got {whole} and {packed}")
    return 2 if whole == np.complex128 else 1


def _as_numbers(box: npt.NDArray) -> npt.NDArray[np.float64]:
    """Complex columns as twice as many real ones; the same memory."""
    return box.view(np.float64) if box.flags.c_contiguous else box


@lru_cache(maxsize=8)
def _runs(grid: Grid, width: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Of every row (y, z) the real numbers x that are kept: begin and end."""
    reach = grid.max_radius * grid.padded / grid.box + np.sqrt(3) * (grid.width / 2 + 1)
    at = np.arange(-grid.extent, grid.extent + 1)
    # the largest whole |x|^2, as the comparison of whole numbers with reach^2 - y^2 has it
    left = np.floor(reach**2 - at**2)[:, None] - at**2
    most = np.sqrt(np.maximum(left, 0)).astype(np.int64)
    begin = np.clip(grid.halo - most, 0, grid.shape[2])
    end = np.clip(grid.halo + most + 1, 0, grid.shape[2])
    inside = left >= 0
    return (
        np.ascontiguousarray(np.where(inside, begin, 0) * width, np.int32),
        np.ascontiguousarray(np.where(inside, end, 0) * width, np.int32),
    )
