r"""A linear filter learned from the micrograph itself: Fisher's discriminant of band-passed copies.

The micrograph is split into bands by differences of Gaussians. With f(p) the responses of all bands at a position p,
m_1 their mean at the seeds (what looks like a particle), m_0 and C mean and covariance over the micrograph,

.. math:: w = C^{-1} (m_1 - m_0), \qquad \mathrm{score}(p) = w \cdot f(p) / \mathrm{deviation}

(Fisher 1936, Ann. Eugen. 7, 179-188) is the combination that separates seeds from the rest best: the rotational
average of the particles, divided by the power spectrum of everything else, in as many parameters as there are bands.
Bands that the contrast transfer or the noise have spoilt get no weight. Where seeds are noise, their mean is C w of the
filter that chose them, so the rounds hand that filter back: noise cannot teach it anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.picking.image import SmallImage
from verglas.picking.template import MASK_OVER_PARTICLE
from verglas.types.arrays import Float32Array, FloatArray

# Deviations of the Gaussians over the particle's radius; neighbours make a band.
WIDTHS = (0.12, 0.2, 0.3, 0.42, 0.6, 0.85, 1.2, 1.7)
# Added to the diagonal of the correlation matrix: bands overlap.
RIDGE = 0.03
_INDEPENDENT_VALUES = (MASK_OVER_PARTICLE / 2 / WIDTHS[0]) ** 2


@dataclass(frozen=True)
class Bands:
    """A micrograph split into bands.

    Attributes
    ----------
    maps : (bands, y, x) float32
    spectrum : (padded y, padded x // 2 + 1) complex64
        Of the image, mirrored beyond its border.
    padded : (int, int)
        Shape of the transform in real space.
    window : (slice, slice)
        The image in it.
    transfers : (bands, padded y, padded x // 2 + 1) float32
        Transfer functions of the bands.
    """

    maps: Float32Array
    spectrum: npt.NDArray[np.complex64]
    padded: tuple[int, int]
    window: tuple[slice, slice]
    transfers: Float32Array

    def turns(self, order: int) -> list[Float32Array]:
        """1 for order 0, else cosine and sine of so many times the direction of k."""
        if order == 0:
            return [np.ones((1, 1), np.float32)]
        ky, kx = _frequencies(self.padded)
        phases = ((kx + 1j * ky) / np.maximum(np.hypot(ky, kx), 1e-9)).astype(np.complex64) ** order
        return [phases.real, phases.imag]


def _frequencies(shape: tuple[int, int]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]


def split_bands(small: SmallImage, *, threads: int | None = None) -> Bands:
    """Differences of Gaussians of neighbouring :data:`WIDTHS`, the image mirrored at its border."""
    height, width = small.shape_here
    margin = int(np.ceil(3 * small.radius_px))
    shape = (fourier.fast_size(height + margin), fourier.fast_size(width + margin))
    # One side is enough: a transform is periodic, so both borders meet the mirrored part.
    before = [(m - n) // 2 for m, n in zip(shape, (height, width), strict=True)]
    pads = [(b, m - n - b) for b, m, n in zip(before, shape, (height, width), strict=True)]
    spectrum = fourier.forward(np.pad(small.data, pads, mode="symmetric"), 2, threads=threads)
    window = (slice(before[0], before[0] + height), slice(before[1], before[1] + width))
    ky, kx = _frequencies(shape)
    exponent = -((ky**2 + kx**2) * (2 * np.pi * small.radius_px) ** 2 / 2).astype(np.float32)
    gaussians = np.stack([np.exp(exponent * np.float32(sigma**2)) for sigma in WIDTHS])
    transfers = gaussians[:-1] - gaussians[1:]
    maps = np.empty((len(transfers), height, width), np.float32)
    for out, transfer in zip(maps, transfers, strict=True):
        out[:] = fourier.inverse(spectrum * transfer, shape, threads=threads)[window]
    return Bands(maps, spectrum, shape, window, transfers)


@dataclass(frozen=True)
class BandStatistics:
    """Mean (bands,), deviation (bands,) and correlation matrix (bands, bands) of the bands over the micrograph."""

    mean: FloatArray
    deviation: FloatArray
    correlation: FloatArray


def band_statistics(bands: Float32Array, allowed: npt.NDArray[np.bool_]) -> BandStatistics:
    """Statistics of the bands (bands, y, x) where ``allowed`` (y, x), from every third pixel."""
    rest = bands[:, allowed][:, ::3].astype(np.float64)
    deviation = np.maximum(rest.std(axis=1), 1e-12)
    return BandStatistics(rest.mean(axis=1), deviation, np.cov(rest) / np.outer(deviation, deviation))


def fisher_weights(bands: Float32Array, xy_px: npt.ArrayLike, rest: BandStatistics) -> FloatArray:
    """Weights of the bands that separate seeds from the rest.

    Parameters
    ----------
    bands : (bands, y, x) float32
    xy_px : (n, 2) float
        Seeds.
    rest : BandStatistics
        Mean and covariance of what they are to be told from.

    Returns
    -------
    (bands,) float64
    """
    x, y = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2)).astype(np.int64).T
    y, x = y.clip(0, bands.shape[1] - 1), x.clip(0, bands.shape[2] - 1)
    difference = (bands[:, y, x].mean(axis=1, dtype=np.float64) - rest.mean) / rest.deviation
    return np.asarray(np.linalg.solve(rest.correlation + RIDGE * np.eye(len(bands)), difference) / rest.deviation)


def apply_filter(bands: Float32Array, weights: FloatArray, allowed: npt.NDArray[np.bool_]) -> Float32Array:
    """Weighted sum of the bands, unit deviation where ``allowed``."""
    score = np.tensordot(weights.astype(np.float32), bands, 1)
    return np.asarray(score / max(float(score[allowed].std()), 1e-12), np.float32)


def as_correlation(deviations: npt.ArrayLike) -> FloatArray:
    r"""Response in deviations as a correlation between -1 and 1.

    .. math:: r = t / \sqrt{t^2 + n}

    with n = 23 the number of independent values under a mask of 1.15 diameters, (1.15 r)^2 / 4 sigma^2, of an image
    smoothed by the narrowest Gaussian, sigma = 0.12 r.
    """
    t = np.asarray(deviations, np.float64)
    # t / sqrt(t^2 + n) of an infinite threshold is 1
    return np.asarray(np.sin(np.arctan(t / np.sqrt(_INDEPENDENT_VALUES))))
