"""Frames summed over squares of pixels: all that the search for the motion keeps of a movie."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import Float32Array, FloatArray

FINEST_A = 1.7  # binned pixels are at least this wide: beyond 3.4 A single frames say nothing about their shift
MOST_BYTES = 700_000_000  # of all binned frames together
_COMPARED = 20_011  # pixels that say whether a frame is another once more
_COPY_CORRELATION, _COPY_SHARE = 0.9, 0.95  # least correlation of such frames, and share of values that are the same
_BELOW_HOT = 0.999  # quantile: a hot pixel alone would make frames of hardly any counts alike
DARK = 0.3  # a frame whose mean or variance is below this part of the median frame's was not exposed like the others


@dataclass(frozen=True)
class BinnedFrames:
    """What one pass over a movie leaves.

    Attributes
    ----------
    data : (n, y, x) float32
        Mean of squares of ``factor`` x ``factor`` pixels; rows and columns that fill no square are left out.
    factor : int
    shape : (int, int)
        (y, x) of the frames themselves.
    mean, variance : (n,) float64
        Of each binned frame.
    """

    data: Float32Array
    factor: int
    shape: tuple[int, int]
    mean: FloatArray
    variance: FloatArray

    def flaws(self) -> list[str]:
        """Why a frame cannot be used, "" where it can: (n,)."""
        median, spread = np.median(self.mean), np.median(self.variance)
        reasons, copied = [], self._copied()
        for mean, variance, earlier in zip(self.mean, self.variance, copied, strict=True):
            if not variance > 0:
                reasons.append("is constant")
            elif median > 0.05 * np.sqrt(spread) and mean < DARK * median:
                reasons.append(f"has a mean of {mean:.3g}, the others {median:.3g}")
            elif variance < DARK * spread:
                reasons.append(f"has a variance of {variance:.3g}, the others {spread:.3g}")
            elif earlier is not None:
                reasons.append(f"repeats frame {earlier + 1}")
            else:
                reasons.append("")
        return reasons

    def _copied(self) -> list[int | None]:
        """An earlier frame that each shows again, noise and all, as no two exposures do: (n,).

        Bad pixels are drawn for each frame anew, so not every value is the same; counts that are mostly 0 mostly are.
        """
        flat = self.data.reshape(len(self.data), -1)
        sample = flat[:, :: max(1, flat.shape[1] // _COMPARED)]
        centred = np.minimum(sample, np.quantile(sample, _BELOW_HOT)).astype(np.float64)
        centred -= centred.mean(1, keepdims=True)
        lengths = np.sqrt((centred**2).sum(1))
        alike = centred @ centred.T > _COPY_CORRELATION * np.outer(lengths, lengths)
        first: list[int | None] = []
        for i in range(len(sample)):
            earlier = [j for j in np.flatnonzero(alike[i, :i]) if (sample[i] == sample[j]).mean() > _COPY_SHARE]
            first.append(int(earlier[0]) if earlier else None)
        return first


def bin_factor(shape: tuple[int, int], n_frames: int, pixel_size_A: float) -> int:
    """Least factor that gives pixels of FINEST_A and frames that fit into MOST_BYTES; 1 where a side would be short."""
    factor = 1 if not np.isfinite(pixel_size_A) else max(1, int(np.ceil(FINEST_A / pixel_size_A - 1e-6)))
    while 4 * n_frames * (shape[0] // factor) * (shape[1] // factor) > MOST_BYTES:
        factor += 1
    return max(1, min(factor, min(shape) // 128))


def bin_frame(
    frame: npt.NDArray[np.float32],
    factor: int,
    out: Float32Array | None = None,
    rows_summed: Float32Array | None = None,
) -> Float32Array:
    """Mean over squares of pixels.

    A sum over squares leaves white noise white and independent, so unlike a filter it costs no frequency its noise
    model; the signal loses sinc^2 at the border, where there is next to none.

    Parameters
    ----------
    frame : (y, x) float32
    factor : int
    out : (y // factor, x // factor) float32, optional
        Where the means go.
    rows_summed : (y // factor, x // factor * factor) float32, optional
        Memory to compute in: fresh memory of this size costs as much as the sums.

    Returns
    -------
    (y // factor, x // factor) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.motion.binned import bin_frame
    >>> bin_frame(np.arange(20, dtype=np.float32).reshape(4, 5), 2).tolist()
    [[3.0, 5.0], [13.0, 15.0]]
    """
    if factor == 1:
        if out is None:
            return np.asarray(frame, np.float32)
        out[...] = frame
        return out
    rows, columns = (side // factor * factor for side in frame.shape)
    frame = frame[:rows, :columns]
    down = np.add(frame[0::factor], frame[1::factor], out=rows_summed)
    for i in range(2, factor):
        down += frame[i::factor]
    means = np.add(down[:, 0::factor], down[:, 1::factor], out=out)
    for i in range(2, factor):
        means += down[:, i::factor]
    means *= 1.0 / factor**2
    return means


def bin_movie(
    frames: Iterable[npt.NDArray[np.float32]],
    n_frames: int,
    shape: tuple[int, int],
    factor: int,
    progress: Callable[[int], None] | None = None,
) -> BinnedFrames:
    """One pass over the frames.

    Raises
    ------
    InputError
        A frame of another size.
    """
    data = np.empty((n_frames, shape[0] // factor, shape[1] // factor), np.float32)
    rows_summed = np.empty((data.shape[1], data.shape[2] * factor), np.float32)
    for i, frame in enumerate(frames):
        if frame.shape != shape:
            raise InputError(
                f"frame {i} (from 0) has {frame.shape[1]} x {frame.shape[0]} pixels, the movie "
                f"{shape[1]} x {shape[0]}; leave the movie out"
            )
        bin_frame(frame, factor, data[i], rows_summed)
        if progress:
            progress(i)
    flat = data.reshape(n_frames, -1)
    mean = flat.mean(1, dtype=np.float64)
    # some 10^5 pixels say the variance to half a percent
    variance = np.array([np.var(row[:: max(1, len(row) // 100_003)], dtype=np.float64) for row in flat])
    return BinnedFrames(data, factor, shape, mean, variance)
