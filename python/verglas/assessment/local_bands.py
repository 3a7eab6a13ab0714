"""Narrow Fourier bands of maps, their products under a window at every voxel, and how many voxels a window counts.

A band is made on the smallest grid that holds it, a product is averaged on the still smaller grid that holds the
window: only the last step, which looks at voxels, is made on the map's own grid, slab by slab.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from verglas import fourier
from verglas._native import resolve_threads
from verglas.masks import soft_sphere
from verglas.types.arrays import BoolArray, Complex64Array, Float32Array, FloatArray

# A window's transform is cut where it has fallen to this part of its value at 0: what is cut averages to nothing.
_WINDOW_TAIL = 2e-3
_SLAB_VOXELS = 1 << 19
# A band is as wide as the window can tell frequencies apart: narrower ones reach out of the window instead.
BAND_OF_WINDOW = 1 / 4.4
_LARGEST_WINDOW = 1 / 6  # of the box, for bands of long waves
# Of fewer independent voxels no correlation that maps have can be told from chance.
LEAST_INDEPENDENT = 8.0


@dataclass(frozen=True)
class Band:
    """A raised-cosine band of shells, and the window under which its products are averaged.

    Attributes
    ----------
    centre, half_width : float
        In Fourier pixels; the gain is cos^2 between centre - half_width and centre + half_width.
    window_px : float
        Radius of the window: 1 up to it, a raised cosine (of amplitudes) that ends at twice the radius.
    """

    centre: float
    half_width: float
    window_px: float

    def gain(self, radius: FloatArray) -> Float32Array:
        """Of shells at this radius."""
        away = np.abs(radius - self.centre) / self.half_width
        gain, inside = (
            np.zeros(np.shape(radius), np.float32),
            away < 1,
        )  # most shells are outside, and cosines take long
        gain[inside] = np.cos(0.5 * np.pi * away[inside]) ** 2
        return gain

    def fine_grid(self, box: int) -> int:
        """Side of a grid on which the band is made: its products need not be sampled, only their averages."""
        # A product reaches 2 k; sampled at 2 k + w what folds back lies beyond w, which the window removes.
        return min(
            box, fourier.fast_size(int(np.ceil(2 * (self.centre + self.half_width) + self.reach(box))), even=True)
        )

    def coarse_grid(self, box: int) -> int:
        """Side of a grid that holds the window's transform."""
        return min(self.fine_grid(box), fourier.fast_size(2 * self.reach(box) + 2, even=True))

    def reach(self, box: int) -> int:
        """Fourier pixels beyond which the window's transform is negligible."""
        return _reach(self.window_px, box)

    def window(self, box: int) -> Float32Array:
        """The weight of products, (box, box, box)."""
        return window_weights(box, self.window_px)

    def independent(self, box: int) -> float:
        r"""How many independent voxels the window holds: the correlation of noise has variance 1 / n.

        .. math:: n = \frac{(\sum_r w)^2 c(0)^2}{\sum_r A_w(r)\, c(r)^2}

        with c the autocorrelation of the band's noise and :math:`A_w` that of the window.
        """
        return _independent(self, box)


@functools.lru_cache(maxsize=1024)
def _reach(window_px: float, box: int) -> int:
    side = min(box, 2 * int(np.ceil(4 * window_px)) + 2)
    profile = np.abs(np.fft.rfft(window_weights(side, window_px).sum(axis=(1, 2))))
    beyond = np.flatnonzero(profile > _WINDOW_TAIL * profile[0])
    return min(box // 2 - 1, int(np.ceil((beyond[-1] + 1) * box / side)))


@functools.lru_cache(maxsize=16)  # of small grids: bands of one window ask for the same again
def _window_transform(window_px: float, box: int, side: int, threads: int | None) -> Float32Array:
    """Transform of a window on a coarse grid of this side, 1 at frequency 0."""
    window = fourier.forward(window_weights(box, window_px), 3, threads=threads)
    return np.asarray(crop_transform(window, box, side).real / float(window[0, 0, 0].real), np.float32)


@functools.lru_cache(maxsize=2)  # of a small box: the bands of one window follow one another
def _overlap(window_px: float, side: int) -> tuple[float, FloatArray]:
    """Weight of a window, and its autocorrelation."""
    window, shape = window_weights(side, window_px), (side, side, side)
    spectrum = fourier.forward(window, 3)
    overlap = fourier.inverse((np.abs(spectrum) ** 2).astype(np.complex64), shape)
    return float(window.sum(dtype=np.float64)), overlap.astype(np.float64)


@functools.lru_cache(maxsize=1024)
def _independent(band: Band, box: int) -> float:
    side = min(fourier.fast_size(max(int(np.ceil(6 * band.window_px)), 16), even=True), box)
    scale = side / box
    # A small box of the same voxels: shells are rarer there in the same measure, so the band is as wide.
    shape = (side, side, side)
    power = fourier.inverse(band.gain(fourier.radius(shape) / scale).astype(np.complex64) ** 2, shape)
    weight, overlap = _overlap(band.window_px, side)
    pairs = float(np.sum(overlap * power.astype(np.float64) ** 2))
    return weight**2 * float(power.max()) ** 2 / pairs


def window_weights(box: int, radius_px: float) -> Float32Array:
    """The weight of products, (box, box, box): the square of a soft sphere, which is what multiplies a map."""
    return soft_sphere(box, radius_px, radius_px) ** 2


def interpolation(coarse: int, box: int) -> Float32Array:
    """The matrix from a coarse axis to a fine one, (box, coarse): the trigonometric polynomial, centres on N // 2."""
    k = np.fft.fftfreq(coarse, 1 / coarse)
    weight = np.ones(coarse)
    if coarse % 2 == 0:
        weight[coarse // 2] = 1.0
    fine = (np.arange(box) - box // 2) / box
    own = (np.arange(coarse) - coarse // 2) / coarse
    angle = 2 * np.pi * (fine[:, None] - own)
    return np.asarray((np.cos(angle[..., None] * k) * weight).sum(axis=-1) / coarse, np.float32)


def band_map(spectrum: Complex64Array, band: Band, box: int, threads: int | None) -> Float32Array:
    """A band of a map on its own grid, on the map's grey scale, from the map's phase-centred half transform."""
    side = band.fine_grid(box)
    shape = (side, side, side)
    part = crop_transform(spectrum, box, side)
    part = part * band.gain(fourier.radius(shape))
    return np.asarray(fourier.inverse(part, shape, threads=threads) * (side / box) ** 3, np.float32)


def crop_transform(spectrum: Complex64Array, box: int, side: int) -> Complex64Array:
    """The transform on a smaller grid, for spectra that end before its Nyquist frequency."""
    if side == box:
        return spectrum
    low, high = (side + 1) // 2, side // 2
    out = np.empty((side, side, side // 2 + 1), np.complex64)
    for to_z, from_z in ((slice(0, low), slice(0, low)), (slice(low, side), slice(box - high, box))):
        for to_y, from_y in ((slice(0, low), slice(0, low)), (slice(low, side), slice(box - high, box))):
            out[to_z, to_y] = spectrum[from_z, from_y, : side // 2 + 1]
    return out


class Windowed:
    """Averages of products under a band's window, on the coarse grid and at the voxels of slabs."""

    def __init__(self, band: Band, box: int, threads: int | None) -> None:
        self.band, self.box, self.threads = band, box, threads
        self.fine, self.coarse = band.fine_grid(box), band.coarse_grid(box)
        self.transform = _window_transform(band.window_px, box, self.coarse, threads)

    @functools.cached_property
    def matrix(self) -> Float32Array:
        """From an axis of the coarse grid to one of the map's."""
        return interpolation(self.coarse, self.box)

    def average(self, product: Float32Array) -> Float32Array:
        """A product on the band's grid, averaged: at the points of the coarse grid."""
        spectrum = fourier.forward(product, 3, threads=self.threads)
        part = crop_transform(spectrum, self.fine, self.coarse) * self.transform
        shape = (self.coarse,) * 3
        return np.asarray(
            fourier.inverse(part, shape, threads=self.threads) * (self.coarse / self.fine) ** 3, np.float32
        )

    def without_leak(self, signal: Float32Array, beyond_px: float) -> Float32Array:
        r"""An average power of signal, on the coarse grid, less what the band's filter carries in from afar.

        A band that is as narrow as the window can tell frequencies apart has a kernel h that reaches farther than the
        window, and spreads power P by :math:`h^2`. The part q of that which comes from beyond a distance is taken from
        what the map holds there:

        .. math:: P' = \frac{P - h_{far}^2 * P}{1 - q}

        and P' lies between 0 and P, so that noise reaches a threshold no more often than without. Where the signal is
        the same all around nothing changes.
        """
        side, shape = self.fine, (self.fine,) * 3
        kernel = fourier.inverse(
            self.band.gain(fourier.radius(shape)).astype(np.complex64), shape, threads=self.threads
        )
        power = kernel.astype(np.float64) ** 2
        power /= power.sum()
        z, y, x = np.ogrid[tuple(slice(-(side // 2), side - side // 2) for _ in shape)]
        far = np.where((z**2 + y**2 + x**2) * (self.box / side) ** 2 > beyond_px**2, power, 0.0).astype(np.float32)
        carried = crop_transform(fourier.forward(far, 3, threads=self.threads), side, self.coarse).real
        part = fourier.forward(signal, 3, threads=self.threads) * ((1 - carried) / (1 - float(far.sum())))
        own = fourier.inverse(part.astype(np.complex64), signal.shape, threads=self.threads)
        return np.asarray(np.clip(own, np.minimum(signal, 0), signal), np.float32)

    def slab(self, averages: list[Float32Array], planes: slice) -> list[Float32Array]:
        """Averages at the voxels of some planes of the map, (planes, box, box) each."""
        voxels = []
        for one in averages:
            z = np.tensordot(self.matrix[planes], one, (1, 0))  # (planes, c, c)
            voxels.append(np.matmul(self.matrix, z @ self.matrix.T))
        return voxels


def over_slabs(box: int, work: Callable[[slice], None], threads: int | None) -> None:
    """Call for slabs of planes, several at once: NumPy lets go of the interpreter in loops and products."""
    step = max(1, min(-(-box // resolve_threads(threads)), _SLAB_VOXELS // box**2))
    slabs = [slice(start, min(box, start + step)) for start in range(0, box, step)]
    with ThreadPoolExecutor(resolve_threads(threads)) as pool:
        list(pool.map(work, slabs))


def nearest_points(field: BoolArray, side: int) -> BoolArray:
    """What a field on one grid of a box says at the points of another, each from the nearest."""
    if len(field) == side:
        return field
    near = np.rint((np.arange(side) - side // 2) * len(field) / side + len(field) // 2).astype(np.int64)
    near = np.clip(near, 0, len(field) - 1)
    return field[np.ix_(near, near, near)]


def linear_bands(box: int, half_width: float, window_px: float, finest: float, least_waves: float = 0.0) -> list[Band]:
    """Bands one half width apart, whose gains add up to 1, from the first that the window counts enough voxels of.

    Parameters
    ----------
    box : int
        Of the map.
    half_width : float
        Fourier pixels.
    window_px : float
        Radius of the window of all.
    finest : float
        Largest frequency, Fourier pixels.
    least_waves : float
        Wavelengths of a band's centre that its window's radius holds at least, up to a sixth of the box: of a wave that
        is longer than the window few independent voxels say anything.

    Returns
    -------
    list of Band
        Coarse to fine; empty where none counts enough.
    """
    last = max(1, round(finest / half_width))
    step = finest / last  # the last band's centre is the finest frequency
    centres = [n * step for n in range(1, last + 1)]
    bands = [Band(k, step, max(window_px, min(least_waves * box / k, _LARGEST_WINDOW * box))) for k in centres]
    return [band for band in bands if band.independent(box) >= LEAST_INDEPENDENT]


def filter_by_bands(
    volume: Float32Array, bands: Sequence[Band], gains: Iterable[Float32Array], *, threads: int | None = None
) -> Float32Array:
    r"""Bands of a map, each times its own field; what is coarser than the first stays as it is, what is finer goes.

    .. math:: f(x) = \sum_b g_b(x)\, v_b(x) + \Bigl(v - \sum_b v_b\Bigr)_{|k| < k_1}(x)

    Parameters
    ----------
    volume : (N, N, N) float32
    bands : sequence of Band
        One half width apart, coarse to fine.
    gains : iterable of (N, N, N) or (c, c, c) float32
        Of each band; on a coarser grid they are interpolated linearly, which keeps them within their bounds.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (N, N, N) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.local_bands import Band, filter_by_bands
    >>> v = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    >>> bands = [Band(float(k), 1.0, 2.0) for k in range(1, 9)]
    >>> bool(np.allclose(filter_by_bands(v, bands, [np.ones((4, 4, 4), np.float32)] * 8), v, atol=1e-6))
    True
    """
    box, shape = len(volume), volume.shape
    spectrum = fourier.forward(volume, 3, threads=threads)
    radius = fourier.radius(shape)
    # Everything coarser than the bands: what the first one's coarse half leaves of 1.
    rest = np.where(radius < bands[0].centre, 1.0 - bands[0].gain(radius), 0.0)
    filtered: Float32Array = fourier.inverse((spectrum * rest).astype(np.complex64), shape, threads=threads)
    for band, gain in zip(bands, gains, strict=True):
        if not gain.any():
            continue
        part = fourier.inverse((spectrum * band.gain(radius)).astype(np.complex64), shape, threads=threads)
        filtered += part * (gain if gain.shape == shape else interpolate_field(gain, box))
    return filtered


def interpolate_field(field: Float32Array, box: int) -> Float32Array:
    """A field on a coarse grid of the box at every voxel, (N, N, N): linear between its points, periodic."""
    side = len(field)
    place = (np.arange(box) - box // 2) * side / box + side // 2
    low = np.floor(place).astype(np.int64)
    matrix = np.zeros((box, side), np.float32)
    share = (place - low).astype(np.float32)
    np.add.at(matrix, (np.arange(box), low % side), 1 - share)
    np.add.at(matrix, (np.arange(box), (low + 1) % side), share)
    return np.asarray(np.matmul(matrix, np.tensordot(matrix, field, (1, 0)) @ matrix.T), np.float32)
