"""Bad pixels of a detector, and what stands in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import IntArray

# A defect takes its value from this many of its nearest good pixels, or from all there are.
_NEIGHBOURS = 12
_WIDEST_PX = 64  # half side of the window they are sought in
# Odd constants of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, 453-472): a counter-based generator of one step.
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def as_defects(defects: npt.ArrayLike | Any, shape: tuple[int, int], where: str = "defects") -> IntArray:
    """Rows (y, x) or a mask as sorted rows, each once.

    Parameters
    ----------
    defects : (n, 2) int or (y, x) bool
        Bad pixels; an empty sequence for none.
    shape : (int, int)
        Rows and columns of the frame.
    where : str
        For messages.

    Returns
    -------
    (n, 2) int64

    Raises
    ------
    InputError
        Neither, or a pixel outside the frame.

    Examples
    --------
    >>> from verglas.types.defects import as_defects
    >>> as_defects([[2, 1], [0, 3], [2, 1]], (3, 4)).tolist()
    [[0, 3], [2, 1]]
    """
    given = np.asarray(defects)
    if given.dtype == bool:
        if given.shape != shape:
            raise InputError(f"{where}: a mask of defects of shape {given.shape} for frames of shape {shape}")
        return np.argwhere(given)
    if given.size == 0:
        return np.zeros((0, 2), np.int64)
    if given.ndim != 2 or given.shape[1] != 2 or (given != np.rint(given)).any():
        raise InputError(f"{where}: expected defects as whole rows (y, x), or a mask of bool, got shape {given.shape}")
    rows = given.astype(np.int64)
    outside = np.flatnonzero(((rows < 0) | (rows >= shape)).any(axis=1))
    if outside.size:
        y, x = rows[outside[0]]
        raise InputError(
            f"{where}: defect at row {y}, column {x} lies outside frames of {shape[0]} rows and {shape[1]} columns"
        )
    return np.stack(np.unravel_index(np.unique(np.ravel_multi_index((rows[:, 0], rows[:, 1]), shape)), shape), axis=1)


class DefectRepair:
    """Replaces every defect of a frame by the value of one of its nearest good pixels, drawn anew for each frame.

    A value drawn from the neighbourhood has its noise as well as its mean, which a mean over neighbours has not. The
    draw depends on seed, frame and pixel alone: not on which others are defects, nor on the order of the frames.

    Parameters
    ----------
    defects : (n, 2) int64
        Rows (y, x), as :func:`as_defects` gives them.
    shape : (int, int)
        Rows and columns of the frame.
    seed : int
        Of the movie.

    Raises
    ------
    InputError
        A defect with no good pixel within 64.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.defects import DefectRepair
    >>> frame = np.ones((5, 5), np.float32)
    >>> frame[2, 2] = 900
    >>> DefectRepair(np.array([[2, 2]]), (5, 5)).apply(frame, 0)
    >>> float(frame.max())
    1.0
    """

    def __init__(self, defects: IntArray, shape: tuple[int, int], seed: int = 0) -> None:
        self._at = np.ravel_multi_index((defects[:, 0], defects[:, 1]), shape)
        self._from, self._count = _good_neighbours(defects, shape)
        self._seed = np.uint64(seed)

    def apply(self, frame: npt.NDArray[np.float32], index: int) -> None:
        """Repair one contiguous frame in place.

        Parameters
        ----------
        frame : (y, x) float32
        index : int
            Number of the frame.
        """
        flat = frame.reshape(-1)
        draw = _hash(_hash(self._seed + np.uint64(index)) + self._at.astype(np.uint64))
        which = (draw % self._count.astype(np.uint64)).astype(np.int64)
        flat[self._at] = flat[self._from[np.arange(len(which)), which]]


def _hash(x: Any) -> Any:
    """SplitMix64 of counters x."""
    with np.errstate(over="ignore"):
        x = (x + np.uint64(1)) * _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * _MIX1
        x = (x ^ (x >> np.uint64(27))) * _MIX2
        return x ^ (x >> np.uint64(31))


def _good_neighbours(defects: IntArray, shape: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """(n, 12) flat places of good pixels about every defect, nearest first, and how many of them count."""
    n = len(defects)
    bad = np.ones((shape[0] + 2, shape[1] + 2), bool)  # a border of bad pixels: clipped places fall on it
    bad[1:-1, 1:-1] = False
    bad[defects[:, 0] + 1, defects[:, 1] + 1] = True
    neighbours, count = np.zeros((n, _NEIGHBOURS), np.int64), np.zeros(n, np.int64)
    open_, radius, widest = np.arange(n), 2, min(_WIDEST_PX, 2 * max(shape))
    while open_.size and radius <= widest:
        count[open_] = 0
        for dy, dx in _offsets(radius):
            todo = open_[count[open_] < _NEIGHBOURS]
            y, x = defects[todo, 0] + dy, defects[todo, 1] + dx
            good = ~bad[np.clip(y + 1, 0, shape[0] + 1), np.clip(x + 1, 0, shape[1] + 1)]
            rows = todo[good]
            neighbours[rows, count[rows]] = y[good] * shape[1] + x[good]
            count[rows] += 1
        open_ = open_[count[open_] == 0]
        radius *= 2
    if open_.size:
        y, x = defects[open_[0]]
        raise InputError(
            f"{open_.size} defects have no good pixel within {_WIDEST_PX}, the first at row {y}, column "
            f"{x}; expected single pixels, lines and small blocks"
        )
    return neighbours, count


def _offsets(radius: int) -> IntArray:
    """(dy, dx) of a square window without its centre, nearest first."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1)
    order = np.argsort(y * y + x * x, kind="stable")[1:]
    return np.column_stack([y, x])[order]
