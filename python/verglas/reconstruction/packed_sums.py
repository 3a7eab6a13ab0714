"""Sums on the grid without its corners: half the memory, the same bits.

A grid is a box, and what slices reach of it is a ball: points outside hold zeros, about half of all. Sums that wait,
for other blocks of particles or for the other half set, are kept as the points of the ball alone; maps are made of them
without the box ever standing in memory again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.errors import InputError
from verglas.types.arrays import Array, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class PackedSums:
    """Values and weights of the points that slices reach, row y after row y of all planes.

    Attributes
    ----------
    grid : Grid
        Of the whole sums.
    values : (points,) complex128
    weights : (points,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> from verglas.reconstruction.packed_sums import PackedSums
    >>> sums = ops.GridSums.zeros(ops.Grid(32))
    >>> ops.insert(sums, np.ones((1, 32, 17), np.complex64), np.eye(3)[None])
    >>> packed = PackedSums.of(sums)
    >>> bool((packed.unpack().values == sums.values).all()), packed.values.size < 0.6 * sums.values.size
    (True, True)
    """

    grid: ops.Grid
    values: npt.NDArray[np.complex128]
    weights: FloatArray

    @classmethod
    def of(cls, sums: ops.GridSums) -> PackedSums:
        """Sums packed; they are not changed.

        Raises
        ------
        InputError
            Something lies outside the ball: it would be lost.
        """
        values, weights = _both(sums)
        n_points = count_points(sums.grid)
        packed = cls(sums.grid, np.empty(n_points, values.dtype), np.empty(n_points, weights.dtype))
        packed.fill(sums)
        return packed

    def fill(self, sums: ops.GridSums) -> None:
        """Hold these sums from now on, in the memory of the present ones (:meth:`of`)."""
        for packed, whole in zip((self.values, self.weights), _both(sums), strict=True):
            for part, row in self._rows(packed, whole):
                part[...] = row

    def __add__(self, other: PackedSums) -> PackedSums:
        """Sums of both."""
        self._check_grid(other)
        return PackedSums(self.grid, self.values + other.values, self.weights + other.weights)

    def __iadd__(self, other: ops.GridSums | PackedSums) -> PackedSums:
        """Add other sums, packed or whole, to these arrays: the same additions as those of whole sums."""
        self._check_grid(other)
        if isinstance(other, PackedSums):
            for mine, theirs in ((self.values, other.values), (self.weights, other.weights)):
                mine += theirs
            return self
        for packed, whole in zip((self.values, self.weights), _both(other), strict=True):
            for part, row in self._rows(packed, whole):
                part += row
        return self

    def _check_grid(self, other: ops.GridSums | PackedSums) -> None:
        if self.grid != other.grid:
            raise InputError(f"PackedSums: cannot add sums on different grids: {self.grid} and {other.grid}")

    def _rows(self, packed: Array, whole: Array) -> Iterator[tuple[Array, Array]]:
        """Of each row y its part of a packed array and its points in the ball of a whole one; the rest is zero."""
        inside = 0
        for y, (begin, end) in enumerate(itertools.pairwise(_begins(self.grid))):
            row = whole[:, y][_ball(self.grid, y)]
            inside += _count_numbers(row)
            yield packed[begin:end], row
        if inside != sum(_count_numbers(plane) for plane in whole):
            raise InputError(
                f"PackedSums: values beyond shell {self.grid.max_radius}, the last that is inserted; were these sums "
                "made by insert?"
            )

    def unpack(self) -> ops.GridSums:
        """The whole sums."""
        every = slice(None)
        return ops.GridSums(self.grid, self.values_of(every, every), self.weights_of(every, every))

    def values_of(self, rows: slice, columns: slice) -> Array:
        """Values of some rows y and columns x of all planes z."""
        return self._block(self.values, rows, columns)

    def weights_of(self, rows: slice, columns: slice) -> Array:
        """Weights of some rows y and columns x of all planes z."""
        return self._block(self.weights, rows, columns)

    def _block(self, packed: Array, rows: slice, columns: slice) -> Array:
        numbers = range(self.grid.shape[1])[rows]
        begins = _begins(self.grid)
        out = np.zeros((self.grid.shape[0], len(numbers), self.grid.shape[2]), packed.dtype)
        for place, y in enumerate(numbers):
            out[:, place][_ball(self.grid, y)] = packed[begins[y] : begins[y + 1]]
        return out[:, :, columns]


AnySums = ops.GridSums | PackedSums


def whole_weights(sums: AnySums) -> FloatArray:
    """Weights on the whole grid."""
    if isinstance(sums, PackedSums):
        return sums.weights_of(slice(None), slice(None))
    assert sums.weights is not None
    return sums.weights


def count_points(grid: ops.Grid) -> int:
    """Points of a grid that are kept."""
    return int(_begins(grid)[-1])


def _count_numbers(values: Array) -> int:
    """Real numbers that are not zero; by a comparison, which is quicker than counting them as they are."""
    return int(np.count_nonzero(values.view(np.float64) != 0))


def _both(sums: ops.GridSums) -> tuple[Array, Array]:
    if sums.values is None or sums.weights is None:
        raise InputError("PackedSums: expected sums of values and of weights")
    return sums.values, sums.weights


def _ball(grid: ops.Grid, y: int) -> npt.NDArray[np.bool_]:
    """Which points (z, x) of a row y slices to the last shell reach with their windows."""
    # The window reaches half its width along each axis; a step more, so that no rounding of a pose passes it.
    reach = grid.max_radius * grid.padded / grid.box + np.sqrt(3) * (grid.width / 2 + 1)
    z = np.arange(-grid.extent, grid.extent + 1, dtype=np.int32)
    x = np.arange(grid.shape[2], dtype=np.int32) - grid.halo
    return (z**2)[:, None] + x**2 <= reach**2 - (y - grid.extent) ** 2


@lru_cache(maxsize=4)
def _begins(grid: ops.Grid) -> IntArray:
    """Where the points of each row begin in a packed array; the last is how many there are."""
    counts = [np.count_nonzero(_ball(grid, y)) for y in range(grid.shape[1])]
    return np.concatenate([[0], np.cumsum(counts)])
