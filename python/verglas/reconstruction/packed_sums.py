"""Sums on the grid without its corners: half the memory, the same bits.

A grid is a box, and what slices reach of it is a ball: points outside hold zeros, about half of all. Sums that wait,
for other blocks of particles or for the other half set, are kept as the points of the ball alone; maps are made of them
without the box ever standing in memory again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.errors import InputError
from verglas.types.arrays import Array, FloatArray


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
        n_points = ops.count_points(sums.grid)
        packed = cls(sums.grid, np.empty(n_points, values.dtype), np.empty(n_points, weights.dtype))
        packed.fill(sums)
        return packed

    def fill(self, sums: ops.GridSums) -> None:
        """Hold these sums from now on, in the memory of the present ones (:meth:`of`)."""
        self._pack(sums, add=False)

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
        self._pack(other, add=True)
        return self

    def _check_grid(self, other: ops.GridSums | PackedSums) -> None:
        if self.grid != other.grid:
            raise InputError(f"PackedSums: cannot add sums on different grids: {self.grid} and {other.grid}")

    def _pack(self, sums: ops.GridSums, add: bool) -> None:
        for packed, whole in zip((self.values, self.weights), _both(sums), strict=True):
            if ops.pack(whole, self.grid, packed, add=add):
                raise InputError(
                    f"PackedSums: values beyond shell {self.grid.max_radius}, the last that is inserted; were these "
                    "sums made by insert?"
                )

    def unpack(self) -> ops.GridSums:
        """The whole sums."""
        return ops.GridSums(self.grid, ops.unpack(self.values, self.grid), whole_weights(self))

    def values_of(self, rows: slice, columns: slice) -> Array:
        """Values of some rows y and columns x of all planes z; on one thread, for several may ask."""
        return ops.unpack(self.values, self.grid, rows, threads=1)[:, :, columns]

    def weights_of(self, rows: slice, columns: slice) -> Array:
        """Weights of some rows y and columns x of all planes z; on one thread, for several may ask."""
        return ops.unpack(self.weights, self.grid, rows, threads=1)[:, :, columns]


AnySums = ops.GridSums | PackedSums


def whole_weights(sums: AnySums) -> FloatArray:
    """Weights on the whole grid."""
    if isinstance(sums, PackedSums):
        return ops.unpack(sums.weights, sums.grid)
    assert sums.weights is not None
    return sums.weights


def _both(sums: ops.GridSums) -> tuple[Array, Array]:
    if sums.values is None or sums.weights is None:
        raise InputError("PackedSums: expected sums of values and of weights")
    return sums.values, sums.weights
