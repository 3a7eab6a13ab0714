"""Bad pixels, found in the sum of frames: what no Poisson count explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.detector.totals import robust_sd
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray, any_arrays

_BLOCK = 16  # pixels of a block whose median says what most pixels in it expect
_ASKED = 50_000  # pixels that the spread of the deviations is taken from: good to 0.6 %
_NEAR = np.argwhere(np.ones((5, 5))) - 2


@any_arrays
def find_defects(total: npt.ArrayLike, factors: npt.ArrayLike | None = None, *, threshold: float = 7.0) -> IntArray:
    r"""Pixels whose counts over all frames cannot come from what their neighbours receive.

    With E what the median of the 5 x 5 levelled pixels about one makes it expect, the deviation is that of Anscombe,
    normal of standard deviation 1 for Poisson counts:

    .. math:: z = 2\sqrt{T + 3/8} - 2\sqrt{E + 3/8}

    It is divided by its robust standard deviation over the frame where that is more than 1 (a gain that has changed,
    sums of pixels). Only pixels that deviate by half the threshold from the median of their block of 16 x 16, too, are
    asked: a median about every pixel would cost more than reading the movie.

    Parameters
    ----------
    total : (y, x) array_like
        Sum of frames as recorded.
    factors : (y, x) array_like, optional
        What levels them; 1 by default.
    threshold : float
        Of \|z\|; 7 lets less than one good pixel of 10^10 pass for a bad one.

    Returns
    -------
    (n, 2) int64
        Rows (y, x), sorted.

    Raises
    ------
    InputError
        Negative sums, or another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.detector import find_defects
    >>> total = np.random.default_rng(0).poisson(40.0, (64, 64))
    >>> total[10, 20], total[30, 40] = 400, 0
    >>> find_defects(total).tolist()
    [[10, 20], [30, 40]]
    """
    counts = np.asarray(total, np.float64)
    level = None if factors is None else np.asarray(factors, np.float64)
    if counts.ndim != 2 or (level is not None and level.shape != counts.shape):
        shape = "no factors" if level is None else level.shape
        raise InputError(f"find_defects: expected sums and factors (y, x), got {counts.shape} and {shape}")
    if counts.size and counts.min() < 0:
        raise InputError("find_defects: the sum of frames is negative somewhere; expected counts")
    sample = np.linspace(0, counts.size - 1, min(counts.size, _ASKED)).astype(np.int64)
    spread = max(1.0, robust_sd(_deviations(counts, level, sample)))
    # A block's median is near that about each of its pixels: half the threshold lets none of the bad ones pass.
    suspect = _unlike_their_block(counts, level, threshold * spread / 2)
    bad = suspect[np.abs(_deviations(counts, level, suspect)) > threshold * spread]
    return np.stack(np.divmod(bad, counts.shape[1]), 1)


def _anscombe(counts: Any) -> Any:
    """Counts of any mean have a standard deviation of 1 afterwards."""
    made = np.maximum(counts, 0)
    made += np.float32(0.375)
    np.sqrt(made, out=made)
    made *= np.float32(2)
    return made


def _deviations(counts: FloatArray, level: FloatArray | None, at: IntArray) -> FloatArray:
    """The deviation z of the pixels with these flat numbers; frames are mirrored at their edges."""
    made = np.empty(len(at))
    for first in range(0, len(at), _ASKED):
        part = at[first : first + _ASKED]
        y, x = (
            mirror_places(place[:, None] + near, side)
            for place, near, side in zip(np.divmod(part, counts.shape[1]), _NEAR.T, counts.shape, strict=True)
        )
        levelled = counts[y, x] if level is None else counts[y, x] * level[y, x]
        expected = np.partition(levelled, 12, axis=1)[:, 12]
        if level is not None:
            expected /= level.flat[part]
        made[first : first + _ASKED] = _anscombe(counts.flat[part]) - _anscombe(expected)
    return made


def mirror_places(place: IntArray, side: int) -> IntArray:
    """Pixels that stand for places beyond an axis of ``side`` pixels, by up to its length: c b a | a b c."""
    place = np.where(place < 0, -1 - place, place)
    return np.clip(np.where(place >= side, 2 * side - 1 - place, place), 0, side - 1)


def _unlike_their_block(counts: FloatArray, level: FloatArray | None, least: float) -> IntArray:
    """Flat numbers of the pixels that deviate by more than ``least`` from the median of the block they lie in.

    Blocks are gone through row by row of blocks, which stays in cache; the last ones reach back over those before.
    """
    down, across = (min(_BLOCK, n) for n in counts.shape)
    rows, columns = ([*range(0, n - s, s), n - s] for n, s in zip(counts.shape, (down, across), strict=True))
    widths = np.diff([*columns, counts.shape[1]])
    middle = down * across // 2
    suspects = []
    for y, after in zip(rows, [*rows[1:], counts.shape[0]], strict=True):
        strip = counts[y : y + down]
        levelled = strip if level is None else strip * level[y : y + down]
        blocks = np.stack([levelled[:, x : x + across].ravel() for x in columns])
        expected = np.repeat(np.partition(blocks, middle, axis=1)[:, middle], widths)[None]
        own = slice(y, after)  # rows that no later block reaches back over
        if level is not None:
            expected = expected / level[own]
        apart = np.abs(_anscombe(counts[own].astype(np.float32)) - _anscombe(expected.astype(np.float32)))
        suspects.append(np.flatnonzero(apart > least) + y * counts.shape[1])
    return np.concatenate(suspects)
