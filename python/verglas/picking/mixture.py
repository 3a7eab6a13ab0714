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

from verglas.picking.background import LEAST_AREA, PeakHeights, background_level
from verglas.picking.threshold import bin_values
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
# False discovery rate (Benjamini and Hochberg 1995) of a cut where no class of particles is seen, as the simulated
# background has it. A filter learned from its highest peaks fits them better, noise too: half may be noise.
_DOUBTFUL_RATE = 1 / 3
# Bins of the heights: a hundredth of their range changes no fit, and makes it as quick for 3,000 peaks as for 100.
_BINS = 160


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
        Whether there is a class of particles; if not, a third to half of the picks may be background.
    gain : float
        Log likelihood of background and particles over that of background alone.
    particles : float
        Expected number of particles among all candidates, below the threshold, too.
    precision : float
        Expected share of particles among the picks: one minus the false discovery rate.
    certain : float
        Height that background alone exceeds once in two micrographs.
    """

    threshold: float
    separation: float
    clear: bool
    gain: float = 0.0
    particles: float = 0.0
    precision: float = 0.0
    certain: float = float("inf")


@dataclass(frozen=True)
class _Fit:
    """Particles' class, in the units of the heights, and each peak's probability to belong to it.

    ``gain`` is a log likelihood over that of background alone.
    """

    gain: float
    weight: float
    mean: float
    deviation: float
    probability: FloatArray
    centre: float
    sigma: float


@dataclass(frozen=True)
class _Counts:
    """Heights in narrow bins: mean height and number in each, and what is known of the background."""

    heights: FloatArray
    numbers: FloatArray
    null: PeakHeights
    centre: float
    sigma: float

    @property
    def strays(self) -> float:
        """Density of the strays, the same at every height."""
        return _STRAYS / max(float(np.ptp(self.heights)), 1e-12)


def _counts(heights: FloatArray, null: PeakHeights, centre: float, sigma: float) -> _Counts:
    return _Counts(*bin_values(heights, _BINS), null, centre, sigma)


@dataclass
class _Classes:
    """Parameters of several mixtures, one row each: (m, 1) weight, mean, deviation of particles; background's field."""

    weight: FloatArray
    mean: FloatArray
    deviation: FloatArray
    centre: FloatArray
    sigma: FloatArray

    def densities(self, heights: FloatArray, null: PeakHeights) -> tuple[FloatArray, FloatArray]:
        """Of particles and of background, (m, n), weights included."""
        away = (heights - self.mean) / self.deviation
        particles = self.weight * np.exp(-0.5 * away * away) / (self.deviation * np.sqrt(2 * np.pi))
        return particles, (1 - self.weight) * null.at(heights, self.centre, self.sigma)

    def row(self, number: int) -> _Classes:
        """One of them."""
        one = slice(number, number + 1)
        return _Classes(self.weight[one], self.mean[one], self.deviation[one], self.centre[one], self.sigma[one])


def _follow_background(share: FloatArray, data: _Counts) -> tuple[FloatArray, FloatArray]:
    """Centre and deviation (m, 1) of the background field from the peaks that are background, near those measured.

    The highest of many correlations, or background that is no normal field, has peaks that lie higher or closer than
    the simulated ones; their shape changes little (the empirical null of Efron).
    """
    null, sigma = data.null, data.sigma
    mass = share.sum(axis=1, keepdims=True)
    safe = np.maximum(mass, 1e-12)
    mean = (share * data.heights).sum(axis=1, keepdims=True) / safe
    variance = (share * (data.heights - mean) ** 2).sum(axis=1, keepdims=True) / safe
    here = np.clip(np.sqrt(variance) / null.deviation, sigma / _SCALE, sigma * _SCALE)
    shift = np.clip(mean - here * null.mean - data.centre, -_SHIFT * sigma, _SHIFT * sigma)
    few = mass < _FEWEST_BACKGROUND
    return np.where(few, data.centre, data.centre + shift), np.where(few, sigma, here)


def _starting_classes(heights: FloatArray, data: _Counts) -> tuple[_Classes, FloatArray]:
    """A row for background alone and one for each share of the peaks to start from; shares (m, 1)."""
    shares = np.array([0.0, *_STARTS])[:, None]
    limits = np.quantile(heights, 1 - shares)
    limits[0] = np.inf
    upper = data.heights >= limits
    upper[1:, -1] = True  # a bin's mean lies below the highest of its peaks
    numbers = upper * data.numbers
    mass = np.maximum(numbers.sum(axis=1, keepdims=True), 1e-12)
    mean = (numbers * data.heights).sum(axis=1, keepdims=True) / mass
    spread = np.sqrt((numbers * (data.heights - mean) ** 2).sum(axis=1, keepdims=True) / mass)
    centre, sigma = _follow_background((~upper) * data.numbers, data)
    deviation = np.clip(spread, _NARROWEST * sigma, _WIDEST * sigma)
    weight = numbers.sum(axis=1, keepdims=True) / data.numbers.sum()
    return _Classes(weight, mean, deviation, centre, sigma), shares


def _maximise(heights: FloatArray, data: _Counts) -> tuple[_Classes, FloatArray]:
    """Expectation maximisation from every start at once; background alone is the first. Classes, log likelihoods."""
    now, _ = _starting_classes(heights, data)
    likelihood = np.full(len(now.weight), -np.inf)
    for _ in range(_MOST_STEPS):
        particles, background = now.densities(data.heights, data.null)
        total = (1 - _STRAYS) * (background + particles) + data.strays
        previous, likelihood = likelihood, (data.numbers * np.log(total)).sum(axis=1)
        if (likelihood - previous < 1e-3).all():
            break
        factor = (1 - _STRAYS) * data.numbers / total
        share = factor * particles
        centre, sigma = _follow_background(factor * background, data)
        mass = share.sum(axis=1, keepdims=True)
        some, safe = mass > 1e-9, np.maximum(mass, 1e-9)
        mean = np.where(some, (share * data.heights).sum(axis=1, keepdims=True) / safe, now.mean)
        spread = np.sqrt((share * (data.heights - mean) ** 2).sum(axis=1, keepdims=True) / safe)
        deviation = np.where(some, np.clip(spread, _NARROWEST * sigma, _WIDEST * sigma), now.deviation)
        weight = np.where(some, mass / data.numbers.sum(), now.weight)
        now = _Classes(weight, mean, deviation, centre, sigma)
    return now, likelihood


def _fit_particles(heights: FloatArray, null: PeakHeights, centre: float, sigma: float) -> _Fit:
    """The likeliest class of particles above the background's peaks."""
    data = _counts(heights, null, centre, sigma)
    classes, likelihood = _maximise(heights, data)
    apart = classes.mean > classes.centre + classes.sigma * (null.mean + _APART * null.deviation)
    possible = (apart & (classes.weight * len(heights) >= _LEAST_PARTICLES))[:, 0]
    possible[0] = False
    number = int(np.argmax(np.where(possible, likelihood, -np.inf))) if possible.any() else 0
    best = classes.row(number)
    particles, background = (one[0] for one in best.densities(heights, null))
    mean = float(best.mean[0, 0])
    # Higher is never less likely: above the mean all are, below it no peak is more likely than a higher one.
    order = np.argsort(-heights, kind="stable")
    probability = np.empty(len(heights))
    chance = particles / (particles + background + 1e-300)
    chance = np.where(heights[order] > mean, 1.0, chance[order]) if number else chance[order]
    probability[order] = np.minimum.accumulate(chance)
    gain = float(likelihood[number] - likelihood[0])
    return _Fit(
        gain,
        float(best.weight[0, 0]),
        mean,
        float(best.deviation[0, 0]),
        probability,
        float(best.centre[0, 0]),
        float(best.sigma[0, 0]),
    )


def best_count(probability: FloatArray) -> int:
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
        Without a class of particles, or with fewer than 8 peaks, the cut of a false discovery rate of one third; on
        less than a third of the micrograph, where background was not measured, what it exceeds in every second one.

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
    certain = float(centre + sigma * null.height_at(0.5 / len(values)))
    fit, clear = _fit_peaks(xy, values, score, null, radius_px, allowed)
    if not clear:
        if allowed.mean() < LEAST_AREA:
            return ScoreCut(certain, 0.0, False, float(fit.gain), certain=certain)
        return replace(_doubtful_cut(values, null, centre, sigma, fit.gain), certain=certain)
    return replace(_cut_of_fit(fit, np.sort(values)[::-1], null), certain=certain)


def _fit_peaks(
    xy: FloatArray,
    values: FloatArray,
    score: Float32Array,
    null: PeakHeights,
    radius_px: float,
    allowed: npt.NDArray[np.bool_],
) -> tuple[_Fit, bool]:
    """The likeliest class of particles, and whether there is one; background is measured without what is picked."""
    fit = _fit_particles(values, null, *background_level(score, np.zeros((0, 2)), radius_px, allowed))
    if len(values) < 8 or fit.gain < LEAST_GAIN:
        return fit, False
    order = np.argsort(-values, kind="stable")
    for _ in range(_ROUNDS):  # the background without what has been picked, then the picks anew
        picked = xy[order[: best_count(fit.probability)]]
        again = _fit_particles(values, null, *background_level(score, picked, radius_px, allowed))
        if again.gain < LEAST_GAIN:
            break
        fit = again
    return fit, True


def particle_chances(
    xy_px: npt.ArrayLike,
    heights: npt.ArrayLike,
    score: Float32Array,
    null: PeakHeights,
    radius_px: float,
    allowed: npt.NDArray[np.bool_],
) -> tuple[FloatArray, float]:
    """Chance of every peak to be a particle, and the gain in log likelihood that speaks for particles at all.

    Parameters
    ----------
    xy_px, heights, score, null, radius_px, allowed
        As for :func:`particle_cut`.

    Returns
    -------
    (n,) float64, float
        Chances that rise with the height. Where the gain is below ``LEAST_GAIN`` they say how the peaks would divide,
        not that there are particles.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import ndimage
    >>> from verglas import ops
    >>> from verglas.picking.background import peak_heights
    >>> from verglas.picking.mixture import particle_chances
    >>> field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(300, 300)), 3)
    >>> field = (field / field.std()).astype(np.float32)
    >>> xy, heights = ops.peaks(field, 12)
    >>> chance, gain = particle_chances(xy, heights, field, peak_heights(field, 12), 8, np.ones(field.shape, bool))
    >>> len(chance) == len(heights), gain < 17
    (True, True)
    """
    values, xy = np.asarray(heights, np.float64), np.asarray(xy_px, np.float64).reshape(-1, 2)
    if not len(values):
        return np.zeros(0), 0.0
    fit, _ = _fit_peaks(xy, values, score, null, radius_px, allowed)
    return fit.probability, max(fit.gain, 0.0)


def _doubtful_cut(values: FloatArray, null: PeakHeights, centre: float, sigma: float, gain: float) -> ScoreCut:
    """The lowest cut above which background alone has no more than a third of the peaks that there are."""
    ordered = np.sort(values)[::-1]
    expected = len(values) * null.chance_above(ordered, centre, sigma)
    count = np.arange(1, len(values) + 1)
    enough = np.flatnonzero(expected <= _DOUBTFUL_RATE * count)
    if not enough.size:
        return ScoreCut(float(centre + sigma * null.height_at(_DOUBTFUL_RATE / len(values))), 0.0, False, float(gain))
    last = int(enough[-1])
    precision = 1 - float(expected[last]) / (last + 1)
    return ScoreCut(float(ordered[last]), 0.0, False, float(gain), precision * (last + 1), precision)


def _cut_of_fit(fit: _Fit, ordered: FloatArray, null: PeakHeights) -> ScoreCut:
    """The cut of the largest expected F; heights from the highest down."""
    probability = np.sort(fit.probability)[::-1]
    count = best_count(fit.probability)
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
