"""Bad pixels, found in the sum of frames: what no Poisson count explains."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

from verglas.detector.totals import robust_sd
from verglas.errors import InputError
from verglas.types.arrays import IntArray


def find_defects(total: npt.ArrayLike, factors: npt.ArrayLike | None = None, *, threshold: float = 7.0) -> IntArray:
    r"""Pixels whose counts over all frames cannot come from what their neighbours receive.

    With E what the median of the 5 x 5 levelled pixels about one makes it expect, the deviation is that of Anscombe,
    normal of standard deviation 1 for Poisson counts:

    .. math:: z = 2\sqrt{T + 3/8} - 2\sqrt{E + 3/8}

    It is divided by its robust standard deviation over the frame where that is more than 1 (a gain that has changed,
    sums of pixels).

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
    level = np.ones(counts.shape) if factors is None else np.asarray(factors, np.float64)
    if counts.ndim != 2 or level.shape != counts.shape:
        raise InputError(f"find_defects: expected sums and factors (y, x), got {counts.shape} and {level.shape}")
    if (counts < 0).any():
        raise InputError("find_defects: the sum of frames is negative somewhere; expected counts")
    expected = np.maximum(median_filter(counts * level, 5, mode="reflect"), 0) / level
    # Anscombe's transform: counts of any mean have a standard deviation of 1 afterwards.
    z = 2 * (np.sqrt(counts + 0.375) - np.sqrt(expected + 0.375))
    return np.argwhere(np.abs(z) > threshold * max(1.0, robust_sd(z)))
