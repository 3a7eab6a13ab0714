"""What is compared with a threshold in a band at every voxel, and the walk from coarse to fine bands."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from verglas import fourier
from verglas.assessment.local_bands import Band, Windowed, band_map, crop_transform, nearest_points, over_slabs
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray

if TYPE_CHECKING:
    from verglas.assessment.local_resolution import LocalResolutionSettings

# Of a band that is partly resolved the coarse side is: where its gain is one half.
_SHARE_BELOW = 0.5
_ENDED = np.float32(-1e3)
_MOST_CORRELATION = 0.998  # whose signal over noise is told from others'
_LEAST_FALL = 0.1  # from band to band, that a smooth spectrum is believed to have
# Share of a band's power (gain cos^4) below each place in it, in half widths from its centre.
_PLACES = np.linspace(-1, 1, 65)
_SHARES = np.cumsum(np.cos(0.5 * np.pi * _PLACES) ** 4) / np.sum(np.cos(0.5 * np.pi * _PLACES) ** 4)
_ALMOST_NONE = 1e-3
_ALMOST_ONE = 0.999  # a threshold that nothing but the same map passes


class LocalValues(ABC):
    """A value per voxel and band, and what it has to exceed."""

    window_share = 1.0  # of the window's radius
    window_waves = 0.75  # wavelengths of a band that its window's radius holds at least
    edge_is_looked_for = True  # within the last resolved band
    leak_is_taken_off = True  # what the bands' isotropic filter carries in from beyond the window's radius

    def __init__(
        self,
        spectra: list[Complex64Array],
        box: int,
        inside: npt.NDArray[np.bool_],
        settings: LocalResolutionSettings,
        threads: int | None,
    ) -> None:
        self.spectra, self.box, self.inside = spectra, box, inside
        self.settings, self.threads = settings, threads

    @abstractmethod
    def averages(self, band: Band, windowed: Windowed) -> list[Float32Array]:
        """What :meth:`of` needs, on the window's grid."""

    @abstractmethod
    def of(self, averages: list[Float32Array]) -> Float32Array:
        """The value, on any grid."""

    @abstractmethod
    def threshold(self, band: Band, averages: list[Float32Array]) -> float:
        """What the value has to exceed in this band."""

    @abstractmethod
    def snr(self, values: Float32Array, level: float) -> Float32Array:
        """Signal over noise, up to a factor: which part of a band holds signal is judged by the band before."""

    def reading(self, margins: Float32Array, level: float) -> Float32Array:
        """Margins, value / level - 1, whose zero between two bands is where signal ends."""
        return margins

    def coarse_inside(self, side: int) -> npt.NDArray[np.bool_]:
        """Which points of a window's grid lie in the molecule."""
        picked = nearest_points(self.inside, side)
        return picked if picked.any() else np.ones_like(picked)


class CorrelationValues(LocalValues):
    """The windowed FSC, against a fixed threshold."""

    def averages(self, band: Band, windowed: Windowed) -> list[Float32Array]:
        """Of a b, a^2 and b^2, the part of the signal that shines in from afar taken off all three."""
        a, b = (band_map(spectrum, band, self.box, self.threads) for spectrum in self.spectra)
        cross, power_a, power_b = (windowed.average(product) for product in (a * b, a * a, b * b))
        if not self.leak_is_taken_off:
            return [cross, power_a, power_b]
        leak = windowed.without_leak(cross, band.window_px) - cross
        # The halves may differ in grey scale: what leaves their product leaves each power in its own measure.
        ratio = np.float32(np.sqrt(float(power_a.mean()) / max(float(power_b.mean()), 1e-30)))
        return [cross + leak, power_a + ratio * leak, power_b + leak / max(ratio, np.float32(1e-15))]

    def of(self, averages: list[Float32Array]) -> Float32Array:
        """Correlation."""
        cross, power_a, power_b = averages
        # Interpolation may leave averages of squares slightly below 0.
        scale = np.sqrt(np.maximum(power_a, 0) * np.maximum(power_b, 0))
        return np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0)

    def threshold(self, band: Band, averages: list[Float32Array]) -> float:
        """As given."""
        return self.settings.threshold

    def snr(self, values: Float32Array, level: float) -> Float32Array:
        """FSC / (1 - FSC)."""
        value = np.clip(values, 0, _MOST_CORRELATION)
        return value / (1 - value)


class SignificanceValues(CorrelationValues):
    """The windowed FSC, against what noise reaches by chance."""

    def threshold(self, band: Band, averages: list[Float32Array]) -> float:
        """Where the false discovery rate over the molecule is as wanted."""
        n = band.independent(self.box)
        values = self.of(averages)[self.coarse_inside(len(averages[0]))]
        return correlation_threshold(values.astype(np.float64), n, self.settings.false_discovery)

    def reading(self, margins: Float32Array, level: float) -> Float32Array:
        """From the threshold of the windowed FSC.

        Whether a band holds signal is asked of chance, and a small window asks much; how far the last one that does
        reaches is then read as the windowed FSC is, or more noise would read coarser.
        """
        return (margins + 1) * np.float32(level / min(level, self.settings.threshold)) - 1


class PowerValues(LocalValues):
    """A local power of the mean map, against the same of half the difference, which is noise."""

    def gain(self, band: Band, side: int) -> Float32Array:
        """Of the band, on the half transform of a cube."""
        return band.gain(fourier.radius((side, side, side)))

    @abstractmethod
    def power(self, spectrum: Complex64Array, side: int) -> Float32Array:
        """At every voxel, from a phase-centred half transform."""

    def averages(self, band: Band, windowed: Windowed) -> list[Float32Array]:
        """Of the power of the mean, less what shines in from afar, and of half the difference."""
        side = windowed.fine
        gain = 0.5 * self.gain(band, side)
        a, b = (crop_transform(one, self.box, side) for one in self.spectra)
        mean, noise = (windowed.average(self.power(gain * both, side)) for both in (a + b, a - b))
        if not self.leak_is_taken_off:
            return [mean, noise]
        return [noise + windowed.without_leak(mean - noise, band.window_px), noise]


class MonogenicValues(PowerValues):
    """Local amplitude of the mean map over the quantile of that of noise."""

    def power(self, spectrum: Complex64Array, side: int) -> Float32Array:
        """Squared monogenic amplitude."""
        return monogenic_power(spectrum, side, self.threads)

    def of(self, averages: list[Float32Array]) -> Float32Array:
        """Amplitude of the mean map."""
        return np.sqrt(np.maximum(averages[0], 0))

    def threshold(self, band: Band, averages: list[Float32Array]) -> float:
        """The quantile of the noise inside the molecule."""
        noise = averages[1][self.coarse_inside(len(averages[1]))]
        return float(np.sqrt(max(float(np.quantile(noise, self.settings.noise_quantile)), 0.0)))

    def snr(self, values: Float32Array, level: float) -> Float32Array:
        """Power above the noise's quantile."""
        return np.maximum((values / np.float32(max(level, 1e-30))) ** 2 - 1, 0)


class SteerableValues(PowerValues):
    """Power of steerable waves in the mean map, against what noise reaches by chance (ResMap's question).

    The power of a wave of the band's wavelength in any direction and phase is a quadratic form of steerable filters:
    here the spherical harmonics of orders 0 to 3 times the band, 16 uncorrelated responses of equal variance to noise.
    """

    def power(self, spectrum: Complex64Array, side: int) -> Float32Array:
        """Summed squares of the responses."""
        return steerable_power(spectrum, side, self.threads)

    def of(self, averages: list[Float32Array]) -> Float32Array:
        """Power of the mean map."""
        return np.maximum(averages[0], 0)

    def threshold(self, band: Band, averages: list[Float32Array]) -> float:
        """Where the false discovery rate over the molecule is as wanted, given the noise's mean and variance."""
        inside = self.coarse_inside(len(averages[0]))
        values, noise = (np.maximum(one[inside].astype(np.float64), 0) for one in averages)
        return power_threshold(values, float(noise.mean()), float(noise.var()), self.settings.false_discovery)

    def snr(self, values: Float32Array, level: float) -> Float32Array:
        """Power above the threshold."""
        return np.maximum(values / np.float32(max(level, 1e-30)) - 1, 0)


def steerable_power(spectrum: Complex64Array, side: int, threads: int | None) -> Float32Array:
    """Sum of the squared responses to 16 steerable filters, from a phase-centred half transform.

    Spherical harmonics of orders 0 to 3 in the direction of k, odd orders times -i so that responses are real,
    normalised so that each has the variance of the band itself in white noise.
    """
    shape = (side, side, side)
    radius = np.maximum(fourier.radius(shape), 1.0).astype(np.float32)
    z, y, x = (k.astype(np.float32) / radius for k in fourier.half_grid(shape))
    power = np.zeros(shape, np.float32)
    for order, harmonic in _harmonics(x, y, z):
        part = spectrum * harmonic
        response = fourier.inverse(-1j * part if order % 2 else part, shape, threads=threads)
        power += response**2
    return power


def _harmonics(x: Float32Array, y: Float32Array, z: Float32Array) -> Iterator[tuple[int, npt.NDArray]]:
    """Real spherical harmonics of orders 0 to 3 of unit vectors, each of mean square 1 over the sphere."""
    yield 0, np.ones((1, 1, 1), np.float32)
    yield from ((1, np.float32(np.sqrt(3)) * one) for one in (x, y, z))
    c = np.float32(np.sqrt(15))
    yield from ((2, c * one) for one in (x * y, y * z, x * z, (x * x - y * y) / 2))
    yield 2, np.float32(np.sqrt(5) / 2) * (3 * z * z - 1)
    yield from ((3, np.float32(np.sqrt(35 / 8)) * one) for one in (y * (3 * x * x - y * y), x * (x * x - 3 * y * y)))
    yield from ((3, np.float32(np.sqrt(105)) * one) for one in (x * y * z, z * (x * x - y * y) / 2))
    yield from ((3, np.float32(np.sqrt(21 / 8)) * one) for one in (y * (5 * z * z - 1), x * (5 * z * z - 1)))
    yield 3, np.float32(np.sqrt(7) / 2) * (5 * z**3 - 3 * z)


def monogenic_power(spectrum: Complex64Array, side: int, threads: int | None) -> Float32Array:
    """f^2 + |R f|^2 with the Riesz transform R f = FT^-1(-i k / |k| F), from a phase-centred half transform."""
    shape = (side, side, side)
    power = fourier.inverse(spectrum, shape, threads=threads) ** 2
    radius = np.maximum(fourier.radius(shape), 1.0).astype(np.float32)
    for k in fourier.half_grid(shape):
        riesz = spectrum * (-1j * k.astype(np.float32) / radius).astype(np.complex64)
        power += fourier.inverse(riesz, shape, threads=threads) ** 2
    return np.asarray(power, np.float32)


def power_threshold(values: FloatArray, mean: float, variance: float, rate: float) -> float:
    """Least power at which so small a part of those above it is expected to be noise.

    Parameters
    ----------
    values : (m,) float64
        Averages of squares.
    mean, variance : float
        Of the same of noise, which have a gamma distribution (scaled chi-squared) to a good approximation.
    rate : float
        False discovery rate (Benjamini and Hochberg).

    Returns
    -------
    float
        Above all values where none is that significant.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.local_scan import power_threshold
    >>> noise = np.random.default_rng(0).chisquare(16, 4000)
    >>> level = power_threshold(noise, 16.0, 32.0, 0.01)
    >>> bool(level > noise.max()), 30 < power_threshold(np.append(noise, [60.0] * 4000), 16.0, 32.0, 0.01) < 40
    (True, True)
    """
    if not (mean > 0 and variance > 0):
        return float(max(mean, 0.0))
    shape, scale = mean**2 / variance, variance / mean
    p_values = np.sort(special.gammaincc(shape, np.maximum(values, 0) / scale))
    passing = np.flatnonzero(p_values <= rate * np.arange(1, len(values) + 1) / len(values))
    if not passing.size:
        return float(max(values.max(), mean) * (1 + _ALMOST_NONE))
    largest = max(float(rate * (passing[-1] + 1) / len(values)), 1e-12)
    return float(scale * special.gammainccinv(shape, largest))


def correlation_threshold(values: FloatArray, n: float, rate: float) -> float:
    """Least correlation at which so small a part of those above it is expected to be noise.

    Parameters
    ----------
    values : (m,) float64
        Correlations, each of n independent pairs of values.
    n : float
        More than 3.
    rate : float
        False discovery rate (Benjamini and Hochberg).

    Returns
    -------
    float
        0.999 where none is that significant.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.local_scan import correlation_threshold
    >>> noise = np.random.default_rng(0).normal(size=4000) / 10
    >>> correlation_threshold(noise, 100, 0.01)
    0.999
    >>> 0.2 < correlation_threshold(np.append(noise, [0.6] * 4000), 100, 0.01) < 0.3
    True
    """
    r = np.clip(values, -_ALMOST_ONE, _ALMOST_ONE)
    # Student's t by scipy.special: scipy.stats, which holds it too, doubles the start of every command.
    p_values = np.sort(special.stdtr(n - 2, -r * np.sqrt((n - 2) / (1 - r**2))))
    passing = np.flatnonzero(p_values <= rate * np.arange(1, len(r) + 1) / len(r))
    if not passing.size:
        return _ALMOST_ONE
    # Correlations beyond any doubt have a p-value of 0: the threshold is then that of the rate itself.
    largest = max(float(rate * (passing[-1] + 1) / len(r)), 1e-12)
    t = -float(special.stdtrit(n - 2, largest))
    return float(t / np.sqrt(n - 2 + t**2))


def scan_bands(
    values: LocalValues, bands: list[Band], box: int, progress: Callable[[int, int], None], threads: int | None
) -> tuple[Float32Array, list[float]]:
    """Frequency, in Fourier pixels, up to which each voxel is resolved, and the threshold of each band.

    Where a value first falls below its threshold in two bands in a row, interpolated between the centres of bands,
    less half a half width, and not beyond where the last resolved band's share of the signal that the bands before let
    expect says that it ends; the first band's centre where not even that is resolved.
    """
    thresholds: list[float] = []
    walk = _Walk(values, bands, thresholds, box)
    for number, band in enumerate(bands):
        window = dataclasses.replace(band, window_px=values.window_share * band.window_px)
        windowed = Windowed(window, box, threads)
        averages = values.averages(band, windowed)
        thresholds.append(values.threshold(band, averages))
        over_slabs(box, functools.partial(walk.look, number, windowed, averages, thresholds[-1]), threads)
        progress(number + 1, len(bands))
    return walk.frequency, thresholds


class _Walk:
    """How far each voxel is resolved so far.

    The margin of the last band says in which state a voxel is: not below 0 while it is resolved; below 0 when it fell
    in that very band, which the next one may take back, as few voxels of a band may fail by chance; _ENDED afterwards.
    """

    def __init__(self, values: LocalValues, bands: list[Band], levels: list[float], box: int) -> None:
        self.values, self.bands, self.levels = values, bands, levels
        self.frequency = np.full((box, box, box), bands[-1].centre, np.float32)
        self.margin = np.zeros_like(self.frequency)
        # Signal over noise in the last band, in the one before, and how much that had fallen.
        self.last, self.earlier, self.fall = (np.zeros_like(self.frequency) for _ in range(3))

    def look(self, number: int, windowed: Windowed, averages: list[Float32Array], level: float, planes: slice) -> None:
        """Take a band at some planes of voxels."""
        values = self.values.of(windowed.slab(averages, planes))
        now = values / np.float32(level) - 1
        np.maximum(now, 0.5 * _ENDED, out=now)
        before, out = self.margin[planes], self.frequency[planes]
        band, first = self.bands[number], self.bands[0].centre
        if number == 0:
            out[now < 0] = first
            before[:] = now
        else:
            falls = (before >= 0) & (now < 0)
            high = self.values.reading(before[falls], self.levels[number - 1])
            low = np.minimum(self.values.reading(now[falls], level), 0)
            step = high / np.maximum(high - low, np.float32(1e-12))
            place = np.minimum(step - _SHARE_BELOW, self._edge(number, planes, falls))
            out[falls] = np.maximum(self.bands[number - 1].centre + place * band.half_width, first)
            out[(before < 0) & (before > _ENDED) & (now >= 0)] = self.bands[-1].centre
            ended = (before < 0) & (now < 0)
            now[ended | (before == _ENDED)] = _ENDED
            before[:] = now
        if self.values.edge_is_looked_for:
            self._remember(number, planes, self.values.snr(values, level))

    def _edge(self, number: int, planes: slice, falls: npt.NDArray[np.bool_]) -> Float32Array | float:
        """Where within the last band signal ends, in half widths from its centre.

        Of much signal a small share exceeds the threshold, and a band passes that hardly overlaps what is resolved. Its
        share of what the two bands before let expect says how far the signal reaches into it.
        """
        if number < 3 or not self.values.edge_is_looked_for:
            return np.inf
        last, earlier, fall = (one[planes][falls] for one in (self.last, self.earlier, self.fall))
        share = last / np.maximum(earlier * fall, np.float32(1e-6))
        return np.interp(share, _SHARES, _PLACES).astype(np.float32)

    def _remember(self, number: int, planes: slice, snr: Float32Array) -> None:
        last, earlier, fall = self.last[planes], self.earlier[planes], self.fall[planes]
        fall[:] = np.clip(last / np.maximum(earlier, np.float32(1e-6)), _LEAST_FALL, 1) if number > 1 else 1
        earlier[:] = last
        last[:] = snr
