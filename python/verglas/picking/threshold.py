"""Two classes among the heights of peaks: what chooses between the averages that several starts have led to.

The threshold of the final picks is that of :mod:`verglas.picking.mixture`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.image import robust_sigma
from verglas.types.arrays import FloatArray

# Distance of the two classes' means over their pooled deviation. Halves of one normal distribution cut at its mean
# are 2.65 apart, of one exponential tail about 3; particles and background more than 3.5.
LEAST_SEPARATION = 2.8
# Mean height of the upper class above the median of the score map, in the map's standard deviations. Peaks of noise
# reach 2 to 2.9 with a template learned from that noise; particles at SNR 0.05 and real ones 5.2 to 5.6.
LEAST_HEIGHT = 3.6
# Where particles are few: shares of the peaks to start from, least number of particles, least ratio of the deviations.
_FEW, _LEAST_CLASS, _NARROWEST = (0.01, 0.025, 0.06), 3, 0.4
# The highest few of many background peaks are a class, too, and the template has been learned from them: they reach a
# separation of 3.4 on noise. Classes of fewer members than this have to stand out further; a dozen particles at SNR
# 0.05 are 4.2 or more apart.
_SMALL_CLASS, _SMALL_SEPARATION, _SMALL_HEIGHT = 25, 3.8, 4.4
# Bins of the values that a mixture is fitted to.
_BINS = 400
# Share of the peaks above which the cut is not beyond the middle.
_CROWDED = 0.08


@dataclass(frozen=True)
class Valley:
    """A threshold and how far it can be trusted.

    Attributes
    ----------
    threshold : float
        Scores below it are background.
    separation : float
        Distance of the means of the two classes over their pooled standard deviation.
    gap : float
        Distance of the means of the two classes.
    clear : bool
        Whether there are two classes; if not, the threshold is the highest score that background is expected to reach.
    """

    threshold: float
    separation: float
    gap: float
    clear: bool


@dataclass(frozen=True)
class Mixture:
    """Two normal distributions, the lower first."""

    likelihood: float
    weights: FloatArray
    means: FloatArray
    sigmas: FloatArray

    @property
    def gap(self) -> float:
        """Distance of the means."""
        return float(self.means[1] - self.means[0])

    @property
    def separation(self) -> float:
        """That over the pooled deviation."""
        return self.gap / float(np.sqrt((self.weights * self.sigmas**2).sum()))

    def clear(self, score_map: FloatArray, count: int) -> bool:
        """Whether the upper class is apart from the lower and stands out of the map's fluctuations."""
        stands_out = float(self.means[1] - np.median(score_map)) / max(float(score_map.std()), 1e-12)
        if self.weights[1] * count < _SMALL_CLASS:
            return self.separation >= _SMALL_SEPARATION and stands_out >= _SMALL_HEIGHT
        return self.separation >= LEAST_SEPARATION and stands_out >= LEAST_HEIGHT


def _mixtures(values: FloatArray) -> list[Mixture]:
    """Mixtures from several starts, the likeliest first.

    Otsu's cut halves the background where particles are few; then the highest few peaks are the better start. A class
    that shrinks to one or two peaks is an accident, however likely.
    """
    starts = [otsu(values), *np.quantile(values, [1 - share for share in _FEW])]
    floor = 1e-3 * max(float(np.ptp(values)), 1e-12)
    mixtures = [fit_mixture(values, split, floor) for split in starts]
    kept = [one for one in mixtures if one.weights[1] * len(values) >= _LEAST_CLASS] or mixtures[:1]
    return sorted(kept, key=lambda one: -one.likelihood)


def fit_mixture(values: FloatArray, split: float, floor: float, rounds: int = 200) -> Mixture:
    """Expectation maximisation from a split; of many values in narrow bins, each with the mean of its values."""
    values, numbers = bin_values(values, _BINS)
    upper = values >= split
    upper[-1] = True  # a bin's mean lies below the highest of its values
    total_number, sides = numbers.sum(), np.stack([numbers * ~upper, numbers * upper], axis=1)
    weights = sides.sum(axis=0) / total_number
    means, sigmas = _moments(values, sides)
    sigmas = np.maximum(sigmas, floor)
    for _ in range(rounds):
        # no class of a few equal peaks: its density would be without limit
        sigmas = np.maximum(sigmas, _NARROWEST * sigmas.max())
        chance = weights * np.exp(-0.5 * ((values[:, None] - means) / sigmas) ** 2) / sigmas
        total = np.maximum(chance.sum(axis=1, keepdims=True), 1e-300)
        chance *= numbers[:, None] / total
        updated, sigmas = _moments(values, chance)
        sigmas = np.maximum(sigmas, floor)
        weights = np.maximum(chance.sum(axis=0), 1e-12) / total_number
        moved = float(np.abs(updated - means).max())
        means = updated
        if moved < 0.01 * floor:
            break
    order = np.argsort(means)
    likelihood = float((numbers * np.log(total[:, 0])).sum())
    return Mixture(likelihood, weights[order], means[order], sigmas[order])


def _moments(values: FloatArray, shares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means and deviations (2,) of values (n,) with shares (n, 2)."""
    mass = np.maximum(shares.sum(axis=0), 1e-12)
    means = (shares * values[:, None]).sum(axis=0) / mass
    return means, np.sqrt((shares * (values[:, None] - means) ** 2).sum(axis=0) / mass)


def bin_values(values: FloatArray, bins: int) -> tuple[FloatArray, FloatArray]:
    """Mean value and number of values in each bin that holds any; bins are evenly spaced over the range.

    A fit by expectation maximisation then takes as long for ten thousand values as for a hundred.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.threshold import bin_values
    >>> means, numbers = bin_values(np.array([0.0, 1.0, 1.5, 8.0]), 4)
    >>> means.round(2).tolist(), numbers.tolist()
    ([0.83, 8.0], [3.0, 1.0])
    """
    low, width = float(values.min()), max(float(np.ptp(values)), 1e-12) / bins
    row = np.minimum(((values - low) / width).astype(np.int64), bins - 1)
    numbers = np.bincount(row, minlength=bins).astype(np.float64)
    sums = np.bincount(row, values, minlength=bins)
    return sums[numbers > 0] / numbers[numbers > 0], numbers[numbers > 0]


def otsu(values: npt.ArrayLike) -> float:
    """The cut that makes the variance between two classes largest (Otsu 1979), on the values themselves.

    Examples
    --------
    >>> from verglas.picking.threshold import otsu
    >>> otsu([1, 2, 1, 8, 9])
    5.0
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = np.arange(1, len(ordered))
    below = np.cumsum(ordered)[:-1]
    between = n * (len(ordered) - n) * (below / n - (ordered.sum() - below) / (len(ordered) - n)) ** 2
    best = int(np.argmax(between))
    return float((ordered[best] + ordered[best + 1]) / 2)


def automatic_threshold(scores: npt.ArrayLike, score_map: npt.ArrayLike) -> Valley:
    """Threshold between background peaks and particles.

    Two normal distributions are fitted to the scores; the cut is where both are equally likely, or half-way between
    their means if that is lower and particles are not few. Where they are not apart, there are no two classes: then the
    cut is the median of all peaks and 4.5 of their robust standard deviations, which a few particles among many
    background peaks pass and background does not.

    Parameters
    ----------
    scores : (n,) float
        Heights of all peaks, without a threshold.
    score_map : (y, x) float
        What they are peaks of: the upper class has to stand out of its fluctuations.

    Returns
    -------
    Valley

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.threshold import automatic_threshold
    >>> rng = np.random.default_rng(0)
    >>> peaks = np.r_[rng.normal(0.1, 0.03, 200), rng.normal(0.5, 0.05, 40)]
    >>> cut = automatic_threshold(peaks, rng.normal(0, 0.05, (99, 99)))
    >>> cut.clear, bool(0.18 < cut.threshold < 0.38)
    (True, True)
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        return Valley(float("inf"), 0.0, 0.0, False)
    fallback = float(np.median(values)) + 4.5 * robust_sigma(values)
    if len(values) < 8 or np.ptp(values) == 0:
        return Valley(fallback, 0.0, 0.0, False)
    mixtures, pixels = _mixtures(values), np.asarray(score_map, np.float64)[::2, ::2]
    # Background peaks alone are skewed: two normals explain that better than a dozen particles among 500 of them. So
    # the likeliest of the mixtures that hold a class of particles.
    best = next((one for one in mixtures if one.clear(pixels, len(values))), None)
    if best is None:
        return Valley(fallback, mixtures[0].separation, mixtures[0].gap, False)
    weights, means, sigmas = best.weights, best.means, best.sigmas
    between = np.linspace(means[0], means[1], 501)
    logs = np.log(weights) - np.log(sigmas) - 0.5 * ((between[:, None] - means) / sigmas) ** 2
    higher = np.flatnonzero(logs[:, 1] > logs[:, 0])
    at = between[higher[0]] if higher.size else means[1]
    # Not beyond the middle: particles that overlap or lie on dirt give their class a tail that is not normal. Among
    # many background peaks, some reach the middle.
    if weights[1] >= _CROWDED:
        at = min(at, means.mean())
    return Valley(float(at), best.separation, best.gap, True)
