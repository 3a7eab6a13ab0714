"""Peaks of the map that a trained network makes of a micrograph, and how sure each is.

The network sees the small image that all pickers look at (:func:`.image.prepare`), where every particle is 22 pixels
across, whatever its size; it was trained on simulated ones only (``tools/train_picker.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy import ndimage
from scipy.special import expit

from verglas import ops
from verglas.image import fourier_resample
from verglas.picking.image import PIXELS_ACROSS, SmallImage
from verglas.picking.mixture import ScoreCut
from verglas.types.arrays import Float32Array, FloatArray

if TYPE_CHECKING:  # loaded by what asks for a network
    from verglas.learned import Network

# Least distance of two peaks in diameters; width over which the chances of a centre are summed; least chance.
_DISTANCE, _WIDTH, _LEAST = 0.7, 0.1, 1e-9
# Share of the size by which an image's particles may be off the size of training without being resampled.
_SAME_SIZE = 0.04
# Least chance of a pick. Particles are clear where so many of the picks are some, and so many at least.
_LEAST_CHANCE, _CLEAR, _FEWEST, _CERTAIN = 0.2, 0.6, 3.0, 0.9
# Peaks above this height are cut out before the spectrum of background is measured, with a halo of so many radii: the
# first that leaves such a share of the image. Side of the field of background and rings of its spectrum.
_PROBABLE, _HALOS, _LEFT, _FIELD, _RINGS = -1.2, (1.2, 1.0, 0.8), 0.2, 256, 96
# Fields; peaks that are added to both counts of a rate.
_FIELDS, _PRIOR = 3, 0.5
# How far beyond the range of training, in widths of it, a statistic may lie; pixels of a particle.
_MARGIN, _FEWEST_ACROSS = 0.1, 15


def _fine_share(image: Float32Array, radius_px: float) -> float:
    """Share of the variance that is finer than a fifth of the particle."""
    return float((image - ndimage.gaussian_filter(image, radius_px / 5)).var() / max(float(image.var()), 1e-12))


def _coarse_share(image: Float32Array, radius_px: float) -> float:
    """Share of the variance that is as coarse as the particle."""
    return float(ndimage.gaussian_filter(image, radius_px / 2).var() / max(float(image.var()), 1e-12))


def _skewness(image: Float32Array, _radius_px: float) -> float:
    """Third moment over the deviation's third power."""
    away = image - image.mean(dtype=np.float64)
    return float((away**3).mean() / max(float((away**2).mean()), 1e-12) ** 1.5)


# What says that a micrograph is unlike all that the network has seen; their ranges are part of the weights' card.
INPUT_STATISTICS: dict[str, Callable[[Float32Array, float], float]] = {
    "fine_share": _fine_share,
    "coarse_share": _coarse_share,
    "skewness": _skewness,
}


def network_score(network: Network, image: Float32Array, radius_px: float) -> Float32Array:
    """The network's map on the grid of the small image: the logarithm of the mean chance of a centre about a pixel.

    An image whose particles are not as many pixels across as those of training is resampled for the network.

    Parameters
    ----------
    network : Network
    image : (y, x) float32
        :attr:`.image.SmallImage.data`.
    radius_px : float
        Of the particle.
    """
    scale = PIXELS_ACROSS / (2 * radius_px)
    wanted = tuple(round(side * scale) for side in image.shape)
    if max(abs(side - new) for side, new in zip(image.shape, wanted, strict=True)) > _SAME_SIZE * max(image.shape):
        seen = fourier_resample(image, wanted).astype(np.float32)
    else:
        seen = image
    logits = network.apply(seen[None])[0]
    # Where it is not sure at which pixel a particle lies, its chance is spread: summed before peaks are looked for.
    chance = ndimage.gaussian_filter(expit(logits), _WIDTH * PIXELS_ACROSS / 2)
    coarse = np.log(np.maximum(chance, np.float32(_LEAST)))
    # The origins, pixels N // 2, coincide when an image is resampled; pixel i of the map is pixel 2 i of the image.
    places = [
        ((np.arange(side) - side // 2) * (new / side) + new // 2) / 2
        for side, new in zip(image.shape, seen.shape, strict=True)
    ]
    return _bilinear(coarse, *places)


def _bilinear(values: Float32Array, rows: FloatArray, columns: FloatArray) -> Float32Array:
    """Values at all pairs of fractional rows and columns; beyond an edge the edge's."""
    out = values
    for axis, at in ((0, rows), (1, columns)):
        at = np.clip(at, 0, out.shape[axis] - 1)
        low = np.minimum(at.astype(np.int64), max(out.shape[axis] - 2, 0))
        share = (at - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None]
        high = np.minimum(low + 1, out.shape[axis] - 1)
        out = (1 - share) * out.take(low, axis) + share * out.take(high, axis)
    return out


@dataclass(frozen=True)
class BackgroundPeaks:
    """Heights of peaks of background, rising, and how many times the simulated area the image has."""

    heights: FloatArray
    scale: float


def background_peaks(
    network: Network,
    image: Float32Array,
    radius_px: float,
    certain_px: FloatArray,
    allowed: npt.NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> BackgroundPeaks:
    """Heights of the peaks that the network sees in background of an image's spectrum.

    Its map of noise has peaks, too, and how high they are depends on the noise: they are counted on simulated fields.

    Parameters
    ----------
    network : Network
    image : (y, x) float32
    radius_px : float
        Of the particle.
    certain_px : (n, 2) float64
        What are probably particles: the spectrum is measured away from them, where enough of the image is left.
    allowed : (y, x) bool, optional
        Where peaks may stand: carbon and contaminants elsewhere have spectra of their own.
    seed : int
        Of the field.
    """
    good = np.ones(image.shape, bool) if allowed is None else allowed
    if good.mean() < _LEFT:
        good = np.ones(image.shape, bool)
    marks = np.ones(image.shape, bool)
    x, y = np.rint(certain_px).astype(np.int64).reshape(-1, 2).T
    marks[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)] = False
    away = good
    for halo in _HALOS if not marks.all() else ():
        away = good & (ndimage.distance_transform_edt(marks) > halo * radius_px)
        if away.mean() >= _LEFT:
            break
    share = float(away.mean())
    if share < _LEFT:  # most of the image is particles: their spectrum is in that of the whole
        away, share = good, float(good.mean())
    middle = np.float32(image[away].mean())
    alone = np.where(away, image - middle, np.float32(0))
    size = (_FIELD, _FIELD)
    # Of a shape that is not the image's: rings of the same frequency have the same power per pixel.
    amplitude = ring_amplitude(alone, size) / np.sqrt(share)
    rng, heights = np.random.default_rng(seed), []
    for _ in range(_FIELDS):
        spectrum = scipy.fft.rfft2(rng.standard_normal(size, np.float32)) * amplitude
        field = scipy.fft.irfft2(spectrum, size).astype(np.float32)
        heights.append(ops.peaks(network_score(network, field, radius_px), _DISTANCE * 2 * radius_px, threads=1)[1])
    return BackgroundPeaks(np.sort(np.concatenate(heights)), image.size / (_FIELDS * _FIELD**2))


def ring_amplitude(image: Float32Array, size: tuple[int, int]) -> Float32Array:
    """What white noise of deviation 1 is multiplied by, on the half grid of ``size``, to have an image's spectrum.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.network import ring_amplitude
    >>> white = np.random.default_rng(0).standard_normal((100, 120), np.float32)
    >>> bool(abs(ring_amplitude(2 * white, (64, 64)).mean() - 2) < 0.1)
    True
    """
    power = np.abs(scipy.fft.rfft2(image)) ** 2 / image.size
    ring = _ring_numbers(image.shape)
    number = np.maximum(np.bincount(ring.ravel(), minlength=_RINGS + 1), 1)
    means = np.bincount(ring.ravel(), power.ravel(), minlength=_RINGS + 1) / number
    return np.asarray(np.sqrt(means)[_ring_numbers(size)], np.float32)


def _ring_numbers(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    k = np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None])
    return np.minimum(k * 2 * _RINGS, _RINGS).astype(np.int64)


def probable(xy_px: FloatArray, heights: FloatArray) -> FloatArray:
    """Peaks that are more likely particles than not, by their heights alone."""
    return xy_px[heights > _PROBABLE]


def features(heights: FloatArray, background: BackgroundPeaks, ordered: FloatArray) -> FloatArray:
    """What the network alone says of heights, (n, 3).

    The height; that in deviations of background peaks from their mean; and the logarithm of how many peaks of the
    image are at least as high over how many of background are expected to be (the false discovery rate of Benjamini and
    Hochberg 1995): where there are no particles, the highest peaks of noise are as many as expected.

    Parameters
    ----------
    heights : (n,) float
    background : BackgroundPeaks
    ordered : (m,) float
        Heights of all peaks of the image.
    """
    null, ordered = background.heights, np.sort(ordered)
    here = len(ordered) - np.searchsorted(ordered, heights)
    expected = (len(null) - np.searchsorted(null, heights)) * background.scale
    standard = (heights - null.mean()) / max(float(null.std()), 1e-3)
    return np.stack([heights, standard, np.log((here + _PRIOR) / (expected + _PRIOR))], axis=-1)


def probable_cut(chance: FloatArray, heights: FloatArray, precision: float | None = None) -> ScoreCut:
    """Threshold on the chances of all peaks: of the largest expected F, or of a stated precision.

    Parameters
    ----------
    chance : (n,) float
        Of each peak to be a particle, falling.
    heights : (n,) float
        What the chances were made from; says how far particles and background lie apart.
    precision : float, optional
        As many picks as have at least this expected share of particles.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.network import probable_cut
    >>> chance = np.array([0.99, 0.98, 0.97, 0.9, 0.5, 0.1, 0.01])
    >>> probable_cut(chance, np.log(chance)).threshold, probable_cut(chance, np.log(chance), 0.95).threshold
    (0.5, 0.9)
    """
    if not len(chance):
        return ScoreCut(float("inf"), 0.0, False)
    number, sums = np.arange(1, len(chance) + 1), np.cumsum(chance)
    if precision is None:
        kept = int(np.argmax(2 * sums / (number + sums[-1]))) + 1
        kept = min(kept, int(np.count_nonzero(chance >= _LEAST_CHANCE)))
    else:
        kept = int(np.count_nonzero(sums / number >= precision))
    expected = float(sums[kept - 1] / kept) if kept else 0.0
    clear = expected >= _CLEAR and kept * expected >= _FEWEST
    if not clear and precision is None:  # the largest expected F of next to nothing is no reason to pick noise
        kept = min(kept, int(np.count_nonzero(chance >= 0.5)))
    return ScoreCut(
        # a threshold that no chance reaches where nothing is picked
        float(chance[kept - 1]) if kept else float(np.nextafter(max(chance[0], _LEAST_CHANCE), 2)),
        _separation(chance, heights),
        clear,
        particles=float(sums[-1]),
        precision=expected,
        certain=_CERTAIN,
    )


def _separation(chance: FloatArray, heights: FloatArray) -> float:
    """Distance of the mean heights of particles and background over the root mean square of their deviations."""
    means: list[float] = []
    variances: list[float] = []
    for weights in (chance, 1 - chance):
        weights = weights / max(float(weights.sum()), 1e-12)
        means.append(float(weights @ heights))
        variances.append(float(weights @ (heights - means[-1]) ** 2))
    return float((means[0] - means[1]) / np.sqrt(max(float(np.mean(variances)), 1e-12)))


def out_of_depth(card: Mapping[str, Any], small: SmallImage, diameter_A: float) -> tuple[str, ...]:
    """What of a micrograph the network has not seen in training; empty where it knows its like.

    Parameters
    ----------
    card : mapping
        Of the weights.
    small : SmallImage
    diameter_A : float
        Of the particle.
    """
    said = []
    low, high = card["data"]["diameter_A"]
    if not low <= diameter_A <= high:
        said.append(f"the network was trained on particles of {low:g} to {high:g} A, not {diameter_A:g}")
    if 2 * small.radius_px < _FEWEST_ACROSS:
        said.append(
            f"a particle is {2 * small.radius_px:.0f} pixels across, the network was trained on {PIXELS_ACROSS}"
        )
    for name, statistic in INPUT_STATISTICS.items():
        low, high = card["calibration"]["ranges"][name]
        value, margin = statistic(small.data, small.radius_px), _MARGIN * (high - low)
        if not low - margin <= value <= high + margin:
            words = name.replace("_", " ")
            said.append(
                f"the network was trained on micrographs with a {words} of {low:.2g} to {high:.2g}, not {value:.2g}"
            )
    return tuple(said)


@dataclass(frozen=True)
class NetworkLimits:
    """Where peaks may stand and how many are picks.

    Attributes
    ----------
    distance_px : float
        Least distance of two peaks on the small image.
    exclude : bool
        Leave the bad areas out.
    precision : float, optional
        See :func:`probable_cut`.
    """

    distance_px: float
    exclude: bool = True
    precision: float | None = None
