"""Heights of the peaks that a micrograph's background makes by itself.

A score map without particles is close to a normal random field, and the heights of its peaks follow from its power
spectrum alone: they are counted on simulated fields of the spectrum of the map. Centre and deviation of the background
are measured on the micrograph, away from what has been picked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import fourier, ops
from verglas.types.arrays import Float32Array, FloatArray

# Simulated peaks wanted, fields at most.
_PEAKS, _FIELDS = 1200, 8
# Distances from a pick, in radii, beyond which a pixel is background: the first that leaves this share of the pixels.
_APART, _SHARE = (1.2, 1.0, 0.8, 0.6), 0.05
_ONE_SIGMA = 15.866
# Share of the map that has to be left for the spectrum of background alone, and distance from a particle in radii.
LEAST_AREA, _HALO = 0.3, 1.2


@dataclass(frozen=True)
class PeakHeights:
    """Density of the heights of the peaks of a normal random field of mean 0 and deviation 1.

    Attributes
    ----------
    grid, density : (n,) float64
        Heights, evenly spaced, and density there.
    mean, deviation : float
    """

    grid: FloatArray
    density: FloatArray
    mean: float
    deviation: float

    def at(self, heights: npt.ArrayLike, centre: npt.ArrayLike, sigma: npt.ArrayLike) -> FloatArray:
        """Density for a field of another mean and deviation; or of several, that broadcast against the heights."""
        standard = (np.asarray(heights, np.float64) - np.asarray(centre)) / np.asarray(sigma)
        return np.asarray(np.interp(standard, self.grid, self.density) / np.asarray(sigma))

    def chance_above(self, heights: npt.ArrayLike, centre: float, sigma: float) -> FloatArray:
        """Share of the peaks of a field of another mean and deviation that lie above heights."""
        above = np.cumsum(self.density[::-1])[::-1] * (self.grid[1] - self.grid[0])
        standard = (np.asarray(heights, np.float64) - centre) / sigma
        return np.asarray(np.interp(standard, self.grid, above, left=1.0, right=0.0))

    def height_at(self, share: float) -> float:
        """Height that this share of the peaks exceeds."""
        below = np.cumsum(self.density) * (self.grid[1] - self.grid[0])
        return float(self.grid[min(int(np.searchsorted(below, 1 - share)), len(self.grid) - 1)])


def peak_heights(
    image: Float32Array,
    distance_px: float,
    respond: Callable[[npt.NDArray[np.complex64]], Float32Array] | None = None,
    padded: tuple[int, int] | None = None,
    *,
    threads: int | None = None,
) -> PeakHeights:
    """Simulate what peaks, no two closer than a distance, background of an image's spectrum has.

    Parameters
    ----------
    image : (y, x) float32
        A score map; or, with ``respond``, what scores are made from.
    distance_px : float
    respond : callable, optional
        Score map of a spectrum; by default its inverse transform.
    padded : (int, int), optional
        Shape of the image whose spectrum ``respond`` takes.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    PeakHeights
        Smoothed by a Gaussian kernel of Silverman's width. The fields are drawn with a fixed seed. Of a map that is not
        linear in the image mean and deviation are the median and its distance from the quantile of one deviation below.
    """
    height, width = image.shape
    shape = padded or (fourier.fast_size(height), fourier.fast_size(width))
    amplitude = _amplitude(image, shape, threads)
    rng, heights = np.random.default_rng(0), np.zeros(0)
    for _ in range(_FIELDS):
        white = fourier.forward(rng.standard_normal(shape, np.float32), 2, threads=threads)
        spectrum = np.asarray(white * amplitude, np.complex64)
        if respond is None:
            field = fourier.inverse(spectrum, shape, threads=threads)[:height, :width]
            centre, deviation = float(field.mean()), float(field.std())
        else:
            field = respond(spectrum)
            centre, deviation = median_and_sigma(field[::2, ::2])
        standard = ((field - centre) / max(deviation, 1e-12)).astype(np.float32)
        heights = np.r_[heights, ops.peaks(standard, distance_px, threads=threads)[1]]
        if len(heights) >= _PEAKS:
            break
    return _smooth_density(heights)


def noise_fields(image: Float32Array, count: int, *, threads: int | None = None) -> Iterator[Float32Array]:
    """Fields of an image's power spectrum and shape with random phases, of a fixed seed."""
    height, width = image.shape
    shape = (fourier.fast_size(height), fourier.fast_size(width))
    amplitude = _amplitude(image, shape, threads)
    rng = np.random.default_rng(0)
    for _ in range(count):
        white = fourier.forward(rng.standard_normal(shape, np.float32), 2, threads=threads)
        yield fourier.inverse(np.asarray(white * amplitude, np.complex64), shape, threads=threads)[:height, :width]


def _amplitude(image: Float32Array, shape: tuple[int, int], threads: int | None) -> Float32Array:
    """Root of the rotational average of an image's power spectrum, on the half grid of a shape."""
    taper = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])[None]
    tapered = np.zeros(shape, np.float32)
    tapered[: image.shape[0], : image.shape[1]] = (image - image.mean()) * taper
    power = np.abs(fourier.forward(tapered, 2, threads=threads)) ** 2
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    rings = min(shape) // 2
    ring = np.minimum((k * 2 * rings).astype(np.int64), rings)
    counts = np.maximum(np.bincount(ring.ravel(), minlength=rings + 1), 1)
    means = np.bincount(ring.ravel(), power.ravel(), minlength=rings + 1) / counts
    return np.asarray(np.sqrt(means)[ring], np.float32)


def median_and_sigma(values: npt.NDArray) -> tuple[float, float]:
    """Median, and its distance from the quantile of one standard deviation below it: particles are above."""
    low, middle = np.percentile(values, (_ONE_SIGMA, 50)) if values.size else (0.0, 0.0)
    return float(middle), max(float(middle - low), 1e-6)


def _smooth_density(heights: FloatArray) -> PeakHeights:
    deviation = max(float(heights.std()), 1e-3)
    width = 1.06 * deviation * len(heights) ** -0.2
    grid = np.linspace(heights.min() - 5 * width, heights.max() + 8 * width, 1000)
    step = grid[1] - grid[0]
    counts = np.histogram(heights, bins=np.r_[grid - step / 2, grid[-1] + step / 2])[0]
    density = ndimage.gaussian_filter1d(counts.astype(np.float64), width / step, mode="constant")
    density = np.maximum(density / (density.sum() * step), 1e-12)
    return PeakHeights(grid, density, float(heights.mean()), deviation)


def background_level(
    score: Float32Array, xy_px: npt.ArrayLike, radius_px: float, allowed: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Centre and deviation of a score map away from picks.

    Parameters
    ----------
    score : (y, x) float32
    xy_px : (n, 2) float
        Picks.
    radius_px : float
        Of the particle.
    allowed : (y, x) bool
        Pixels that take part.

    Returns
    -------
    float, float
        Median, and its distance from the quantile of one standard deviation below it: particles are above.
    """
    # Every second pixel tells as much: peaks are many pixels wide.
    score, allowed = score[::2, ::2], allowed[::2, ::2]
    x, y = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2) / 2).astype(np.int64).T
    picked = np.zeros(score.shape, bool)
    picked[y.clip(0, score.shape[0] - 1), x.clip(0, score.shape[1] - 1)] = True
    values = score[allowed]
    if picked.any():
        distance = ndimage.distance_transform_edt(~picked)
        for apart in _APART:
            away = score[(2 * distance > apart * radius_px) & allowed]
            if len(away) >= _SHARE * score.size:
                values = away
                break
    return median_and_sigma(values)


def background_heights(
    score: Float32Array,
    xy_px: npt.ArrayLike,
    heights: npt.ArrayLike,
    radius_px: float,
    allowed: npt.NDArray[np.bool_],
    distance_px: float,
    *,
    threads: int | None = None,
) -> PeakHeights:
    """Heights of background peaks, the spectrum measured away from peaks that are certainly none.

    Few strong particles rule the spectrum of a whole map: a field of that spectrum has fewer and lower peaks than the
    background between them. Peaks that background exceeds once in two micrographs are cut out first, unless too little
    would be left: then most of the map is particles and what is between them cannot be told from them.

    Parameters
    ----------
    score : (y, x) float32
    xy_px : (n, 2) float
        All peaks of the map.
    heights : (n,) float
    radius_px : float
        Of the particle.
    allowed : (y, x) bool
        Where peaks may stand.
    distance_px : float
        Least distance of two peaks.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    PeakHeights
    """
    everywhere = peak_heights(score, distance_px, threads=threads)
    values, xy = np.asarray(heights, np.float64), np.asarray(xy_px, np.float64).reshape(-1, 2)
    if not len(values):
        return everywhere
    centre, sigma = background_level(score, np.zeros((0, 2)), radius_px, allowed)
    away = away_from_peaks(allowed, xy[values > centre + sigma * everywhere.height_at(0.5 / len(values))], radius_px)
    if away is None:
        return everywhere
    return peak_heights(np.where(away, score, np.float32(centre)), distance_px, threads=threads)


def away_from_peaks(
    allowed: npt.NDArray[np.bool_], xy_px: npt.ArrayLike, radius_px: float
) -> npt.NDArray[np.bool_] | None:
    """Where peaks may stand, away from particles; None if nothing is left out, or too little would be left."""
    xy = np.asarray(xy_px, np.float64).reshape(-1, 2)
    away = allowed.copy()
    if len(xy):
        x, y = np.rint(xy).astype(np.int64).T
        marks = np.ones(allowed.shape, bool)
        marks[y.clip(0, allowed.shape[0] - 1), x.clip(0, allowed.shape[1] - 1)] = False
        away &= ndimage.distance_transform_edt(marks) > _HALO * radius_px
    return None if away.all() or away.mean() < LEAST_AREA else away
