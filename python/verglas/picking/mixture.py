r"""Where to cut a list of peaks: particles among the peaks that the background makes by itself.

The heights of all peaks are a mixture: those of background, whose density is known (:mod:`.background`), a normal
distribution of particles, and a few strays. Weight, mean and deviation of the particles are fitted by expectation
maximisation; then each peak has a probability p_i to be a particle, and a cut at the k highest an expected

.. math:: F(k) = \frac{2 \sum_{i \le k} p_i}{k + \sum_i p_i}

The cut is where that is largest. No gap between the two is needed: where they overlap, as many particles are lost as
background is taken. Efron (2008), Stat. Sci. 23, 1-22, has the local false discovery rate, 1 - p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas.picking.background import PeakHeights, background_level
from verglas.types.arrays import Float32Array, FloatArray

# Gain in log likelihood by a class of particles below which there may be none. On 40 fields of noise it came to 16.1 at
# most, on 40 others (bench_pick_sets.py, "largest_gain") to 9.4; a micrograph of few weak particles has 17.5.
LEAST_GAIN = 17.0
# Shares of the peaks to start from; weight of the strays; limits of the particles' deviation and of the distance of the
# means, in deviations of the background field.
_STARTS, _STRAYS = (0.01, 0.03, 0.1, 0.25, 0.5, 0.8), 0.005
_NARROWEST, _WIDEST, _APART = 0.25, 1.4, 0.5
_LEAST_PARTICLES = 2.0
# Rounds of measuring the background anew; steps of expectation maximisation at most.
_ROUNDS, _MOST_STEPS = 2, 200
# How far the peaks of background may lie from those simulated, in deviations of the field, and how much wider or
# closer; number of background peaks below which they say nothing about that.
_SHIFT, _SCALE, _FEWEST_BACKGROUND = 1.5, 1.4, 20.0


@dataclass(frozen=True)
class ScoreCut:
    """A threshold and how far it can be trusted.

    Attributes
    ----------
    threshold : float
        Least figure of merit of a pick.
    separation : float
        Distance of the mean heights of particles and background peaks over the root mean square of their deviations.
    clear : bool
        Whether there is a class of particles; if not, the threshold is what background exceeds once in two micrographs.
    gain : float
        Log likelihood of background and particles over that of background alone.
    particles : float
        Expected number of particles among all candidates, below the threshold, too.
    precision : float
        Expected share of particles among the picks: one minus the false discovery rate.
    """

    threshold: float
    separation: float
    clear: bool
    gain: float = 0.0
    particles: float = 0.0
    precision: float = 0.0


@dataclass(frozen=True)
class _Fit:
    """Particles' class, in the units of the heights, and each peak's probability to belong to it.

    ``gain`` is a log likelihood; of a finished fit that over background alone.
    """

    gain: float
    weight: float
    mean: float
    deviation: float
    probability: FloatArray
    centre: float
    sigma: float


def _normal(values: FloatArray, mean: float, deviation: float) -> FloatArray:
    return np.asarray(np.exp(-0.5 * ((values - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi)))


def _follow_background(
    heights: FloatArray, share: FloatArray, null: PeakHeights, centre: float, sigma: float
) -> tuple[float, float]:
    """Centre and deviation of the background field from the peaks that are background, near those measured.

    The highest of many correlations, or background that is no normal field, has peaks that lie higher or closer than
    the simulated ones; their shape changes little (the empirical null of Efron).
    """
    mass = float(share.sum())
    if mass < _FEWEST_BACKGROUND:
        return centre, sigma
    mean = float((share * heights).sum() / mass)
    spread = float(np.sqrt((share * (heights - mean) ** 2).sum() / mass))
    sigma_here = float(np.clip(spread / null.deviation, sigma / _SCALE, sigma * _SCALE))
    shift = np.clip(mean - sigma_here * null.mean - centre, -_SHIFT * sigma, _SHIFT * sigma)
    return centre + float(shift), sigma_here


def _maximise(heights: FloatArray, null: PeakHeights, centre: float, sigma: float, start: float) -> _Fit:
    """Expectation maximisation from a share of the peaks: particles and background; share 0 is background alone."""
    upper = heights >= np.quantile(heights, 1 - start) if start else np.zeros(len(heights), bool)
    weight = float(upper.mean())
    mean = float(heights[upper].mean()) if start else 0.0
    here, scale = _follow_background(heights, (~upper).astype(np.float64), null, centre, sigma)
    deviation = float(np.clip(heights[upper].std(), _NARROWEST * scale, _WIDEST * scale)) if start else scale
    strays = _STRAYS / max(float(np.ptp(heights)), 1e-12)
    chance, likelihood = np.zeros(len(heights)), -np.inf
    for _ in range(_MOST_STEPS):
        particles = weight * _normal(heights, mean, deviation)
        background = (1 - weight) * null.at(heights, here, scale)
        total = (1 - _STRAYS) * (background + particles) + strays
        share = (1 - _STRAYS) * particles / total
        previous, likelihood = likelihood, float(np.log(total).sum())
        chance = particles / (particles + background + 1e-300)
        if likelihood - previous < 1e-3:
            break
        here, scale = _follow_background(heights, (1 - _STRAYS) * background / total, null, centre, sigma)
        mass = float(share.sum())
        if mass > 1e-9:
            mean = float((share * heights).sum() / mass)
            variance = float((share * (heights - mean) ** 2).sum() / mass)
            deviation = float(np.clip(np.sqrt(variance), _NARROWEST * scale, _WIDEST * scale))
            weight = mass / len(heights)
    return _Fit(likelihood, weight, mean, deviation, chance, here, scale)


def _fit_particles(heights: FloatArray, null: PeakHeights, centre: float, sigma: float) -> _Fit:
    """The likeliest class of particles above the background's peaks."""
    alone = _maximise(heights, null, centre, sigma, 0.0)
    fits = [_maximise(heights, null, centre, sigma, start) for start in _STARTS]
    fits = [
        one
        for one in fits
        if one.mean > one.centre + one.sigma * (null.mean + _APART * null.deviation)
        and one.weight * len(heights) >= _LEAST_PARTICLES
    ]
    if not fits:
        return replace(alone, gain=0.0)
    best = max(fits, key=lambda one: one.gain)
    # Higher is never less likely: above the mean all are, below it no peak is more likely than a higher one.
    order = np.argsort(-heights, kind="stable")
    probability = np.empty(len(heights))
    chance = np.where(heights[order] > best.mean, 1.0, best.probability[order])
    probability[order] = np.minimum.accumulate(chance)
    return replace(best, gain=best.gain - alone.gain, probability=probability)


def _best_count(probability: FloatArray) -> int:
    """Number of the highest that makes the expected F largest."""
    ordered = np.sort(probability)[::-1]
    expected = np.cumsum(ordered) / (np.arange(1, len(ordered) + 1) + ordered.sum())
    return int(np.argmax(expected)) + 1


def particle_cut(
    xy_px: npt.ArrayLike,
    heights: npt.ArrayLike,
    score: Float32Array,
    null: PeakHeights,
    radius_px: float,
    allowed: npt.NDArray[np.bool_],
) -> ScoreCut:
    """Threshold between background peaks and particles.

    Parameters
    ----------
    xy_px : (n, 2) float
        All peaks, without a threshold.
    heights : (n,) float
        Their heights.
    score : (y, x) float32
        What they are peaks of.
    null : PeakHeights
        Of background of the map's spectrum.
    radius_px : float
        Of the particle.
    allowed : (y, x) bool
        Where peaks may stand.

    Returns
    -------
    ScoreCut
        Without a class of particles, or with fewer than 8 peaks, a cut that background exceeds once in two micrographs
        of this size.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import ndimage
    >>> from verglas import ops
    >>> from verglas.picking.background import background_heights, peak_heights
    >>> from verglas.picking.mixture import particle_cut
    >>> field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(300, 300)), 3)
    >>> field = (field / field.std()).astype(np.float32)
    >>> null, everywhere = peak_heights(field, 12), np.ones(field.shape, bool)
    >>> particle_cut(*ops.peaks(field, 12), field, null, 8, everywhere).clear
    False
    >>> spots = np.zeros(field.shape)
    >>> spots[20::40, 20::40] = 5 * 2 * np.pi * 3**2
    >>> field += ndimage.gaussian_filter(spots, 3).astype(np.float32)
    >>> null = background_heights(field, *ops.peaks(field, 12), 8, everywhere, 12)
    >>> cut = particle_cut(*ops.peaks(field, 12), field, null, 8, everywhere)
    >>> cut.clear, bool(0.9 < cut.particles / 49 < 1.2), bool(3 < cut.threshold < 4.5)
    (True, True, True)
    """
    values, xy = np.asarray(heights, np.float64), np.asarray(xy_px, np.float64).reshape(-1, 2)
    if not len(values):
        return ScoreCut(float("inf"), 0.0, False)
    centre, sigma = background_level(score, np.zeros((0, 2)), radius_px, allowed)
    first = _fit_particles(values, null, centre, sigma)
    if len(values) < 8 or first.gain < LEAST_GAIN:
        height = centre + sigma * null.exceeded(0.5 / len(values))
        return ScoreCut(float(height), 0.0, False, float(first.gain))
    order = np.argsort(-values, kind="stable")
    fit = first
    for _ in range(_ROUNDS):  # the background without what has been picked, then the picks anew
        picked = xy[order[: _best_count(fit.probability)]]
        again = _fit_particles(values, null, *background_level(score, picked, radius_px, allowed))
        if again.gain < LEAST_GAIN:
            break
        fit = again
    return _cut_of_fit(fit, values[order], null)


def _cut_of_fit(fit: _Fit, ordered: FloatArray, null: PeakHeights) -> ScoreCut:
    """The cut of the largest expected F; heights from the highest down."""
    probability = np.sort(fit.probability)[::-1]
    count = _best_count(fit.probability)
    spread = np.sqrt((fit.deviation**2 + (fit.sigma * null.deviation) ** 2) / 2)
    separation = (fit.mean - fit.centre - fit.sigma * null.mean) / spread
    return ScoreCut(
        float(ordered[count - 1]),
        float(separation),
        True,
        float(fit.gain),
        float(probability.sum()),
        float(probability[:count].mean()),
    )
