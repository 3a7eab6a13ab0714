"""Reference of ops.pack: the points of the ball, one row of an ``ops.Grid`` after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


def balls(grid: Any) -> Iterator[npt.NDArray[np.bool_]]:
    """Of every row y, which points (z, x) slices to the last shell reach with their windows."""
    reach = grid.max_radius * grid.padded / grid.box + np.sqrt(3) * (grid.width / 2 + 1)
    z, x = np.arange(-grid.extent, grid.extent + 1), np.arange(grid.shape[2]) - grid.halo
    for y in range(-grid.extent, grid.extent + 1):
        yield (z**2)[:, None] + x**2 <= reach**2 - y**2


def pack(whole: npt.NDArray, grid: Any) -> npt.NDArray:
    """The points of the ball."""
    return np.concatenate([whole[:, y][ball] for y, ball in enumerate(balls(grid))])


def unpack(packed: npt.NDArray, grid: Any) -> npt.NDArray:
    """The whole grid, 0 outside the ball."""
    whole, begin = np.zeros(grid.shape, packed.dtype), 0
    for y, ball in enumerate(balls(grid)):
        whole[:, y][ball] = packed[begin : begin + ball.sum()]
        begin += ball.sum()
    return whole
