"""Sums of frames as recorded, and what varies in them from pixel to pixel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from verglas.errors import InputError
from verglas.types import Movie
from verglas.types.arrays import FloatArray

_CLIP_SD = 6.0  # deviations beyond are defects and ice crystals
_ROWS_TOGETHER = 64  # of a frame that are widened at a time: they stay in cache until they are added


def frame_totals(movies: Iterable[Movie], *, most_frames: int | None = None) -> tuple[FloatArray, int]:
    """Sum of the frames of movies as recorded, without gain and repair.

    Parameters
    ----------
    movies : iterable of Movie
        Of one shape.
    most_frames : int, optional
        Frames read of each movie, spread over it; all by default.

    Returns
    -------
    total : (y, x) float64
    frames : int
        How many were added.

    Raises
    ------
    InputError
        No movie, another shape, or a value that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.detector import frame_totals
    >>> from verglas.types import Movie
    >>> total, frames = frame_totals([Movie.from_array(np.ones((3, 2, 2)), gain=np.full((2, 2), 5.0))])
    >>> total.tolist(), frames
    ([[3.0, 3.0], [3.0, 3.0]], 3)
    """
    total, frames = None, 0
    for movie in movies:
        total = np.zeros(movie.shape) if total is None else total
        if movie.shape != total.shape:
            here, before = (f"{shape[1]} x {shape[0]}" for shape in (movie.shape, total.shape))
            raise InputError(
                f"movie {movie.name}: frames of {here} pixels, those before have {before}; give "
                "movies of one camera setting"
            )
        part: Any = None  # of bytes: sums of up to 257 fit two bytes, an eighth of what they take in the end
        n = len(movie) if most_frames is None else min(most_frames, len(movie))
        for index in np.unique(np.linspace(0, len(movie) - 1, n).round().astype(int)):
            # The source's frames: the movie's own have a gain applied, which is what is looked for.
            frame = movie.source.read(int(index))
            if frame.dtype == np.uint8 and n <= 257:
                part = np.zeros(frame.shape, np.uint16) if part is None else part
                _add_bytes(part, frame)
            else:
                total += frame
            frames += 1
        if part is not None:
            total += part
        elif not np.isfinite(total).all():
            bad = np.argwhere(~np.isfinite(total))
            raise InputError(
                f"movie {movie.name}: {len(bad)} pixels of its frames are not finite, the first at row {bad[0][0]}, "
                f"column {bad[0][1]}; expected finite values; name such pixels as defects, or leave the movie out"
            )
    if total is None:
        raise InputError("no movies; expected at least one")
    return total, frames


def _add_bytes(total: npt.NDArray[np.uint16], frame: npt.NDArray[np.uint8]) -> None:
    """Add in place: NumPy's own sum of the two types casts through small buffers and takes half as long again."""
    for at in range(0, len(frame), _ROWS_TOGETHER):
        total[at : at + _ROWS_TOGETHER] += frame[at : at + _ROWS_TOGETHER].astype(np.uint16)


def deviations(image: FloatArray, window: int = 15) -> FloatArray:
    """Relative deviation of every pixel from the mean about it, extremes clipped: image / local mean - 1."""
    near = uniform_filter(np.asarray(image, np.float64), window, mode="reflect")
    relative = np.where(near > 0, image / np.where(near > 0, near, 1.0) - 1, 0.0)
    spread = _CLIP_SD * robust_sd(relative)
    return np.clip(relative, -spread, spread) if spread > 0 else relative


def robust_sd(values: FloatArray) -> float:
    """Standard deviation of most of the values: 1.4826 times the median deviation from the median."""
    # A million values give the spread to 0.1 %; the median of 10^8 pixels would take seconds.
    sample = values.reshape(-1)[:: max(1, values.size // 1_000_000)]
    return float(1.4826 * np.median(np.abs(sample - np.median(sample))))
