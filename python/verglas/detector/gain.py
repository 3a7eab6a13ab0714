"""A gain reference estimated from movies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from verglas.detector.defects import find_defects
from verglas.errors import InputError
from verglas.types.arrays import IntArray, any_arrays
from verglas.types.display import one_line
from verglas.types.gain import Gain


@one_line
@dataclass(frozen=True)
class GainEstimate:
    """A gain estimated from frames.

    Attributes
    ----------
    gain : Gain
        Factors that multiply frames, mean 1 over good pixels; 0 at defects.
    defects : (n, 2) int64
        Rows (y, x).
    relative_error : float
        Standard error of a factor by the counts it was made from.
    pattern : float
        Relative standard deviation of the factors of good pixels.
    """

    gain: Gain
    defects: IntArray
    relative_error: float
    pattern: float


@any_arrays
def estimate_gain(total: npt.ArrayLike, *, illumination_px: float | None = None) -> GainEstimate:
    """Estimate a gain from the sum of many frames, in which the specimens average out.

    A pixel's factor is the mean count of all over its own. Bad pixels (:func:`find_defects`) have factor 0.

    Parameters
    ----------
    total : (y, x) array_like
        Sum of frames as recorded, of many movies.
    illumination_px : float, optional
        Structure of the sum wider than this (standard deviation of a Gaussian) is taken for the beam's and stays; by
        default the whole sum is levelled.

    Returns
    -------
    GainEstimate

    Raises
    ------
    InputError
        Hardly any counts: fewer than 25 per pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.detector import estimate_gain
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.uniform(0.9, 1.1, (64, 64))
    >>> estimate = estimate_gain(rng.poisson(10000 / factors))
    >>> bool(np.abs(estimate.gain.data * factors.mean() / factors - 1).max() < 0.06), round(estimate.relative_error, 3)
    (True, 0.01)
    """
    counts = np.asarray(total, np.float64)
    middle = float(np.median(counts))
    if counts.ndim != 2 or middle < 25:
        raise InputError(
            f"a gain from {middle:.3g} counts per pixel would be noise; expected at least 25, better "
            "1000: give more movies"
        )
    defects = find_defects(counts)
    good = np.ones(counts.shape, bool)
    good[tuple(defects.T)] = False
    good &= counts > 0.05 * middle
    lit = np.full(counts.shape, counts[good].mean())
    if illumination_px is not None:
        weight = gaussian_filter(good.astype(np.float64), illumination_px)
        lit = gaussian_filter(np.where(good, counts, 0.0), illumination_px) / np.maximum(weight, 1e-6)
    # 0 marks a pixel without a gain, as dead pixels are marked in gain files; the movie's repair fills it.
    factors = np.where(good, lit / np.where(good, counts, 1.0), 0.0)
    factors /= factors[good].mean()
    return GainEstimate(
        Gain(factors.astype(np.float32), name="estimated gain"),
        np.argwhere(~good),
        float(1 / np.sqrt(middle)),
        float(factors[good].std()),
    )
