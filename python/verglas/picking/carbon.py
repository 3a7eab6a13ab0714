"""Carbon and ice told apart by their texture, whichever of them is the larger part of a micrograph.

Carbon scatters more than vitreous ice of the same thickness, so the fine texture on it (Thon rings) is stronger. Where
the logarithm of the local deviation falls into two populations that lie far apart, the one of the weaker texture is
ice: no majority is asked for. Particles raise the texture too, but by chance numbers under each disc, so what they make
is one broad population.

A micrograph of carbon alone has one population. Its rings are stronger than those of the others of its set:
:func:`ring_contrast`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import fourier
from verglas.image import robust_sigma
from verglas.picking.local import disc_mean, fine_power, log_deviation
from verglas.picking.threshold import Mixture, fit_mixture
from verglas.types.arrays import Float32Array, FloatArray

# Distance of the two populations over their pooled deviation. Micrographs without carbon stay below; most with carbon
# of twice the scattering power of ice, and nearly all with more, lie above (bench_carbon.py, "separation").
LEAST_SEPARATION = 3.9
# Smallest share of the micrograph that is a population of its own. Less carbon is left to the rule of the majority.
_LEAST_SHARE = 0.02
# Widths of the high-pass and of the disc of the local deviation, in particle radii.
_FINE, _DISC = 1 / 6, 2.0
# Shares of the micrograph on carbon to start from.
_STARTS = (0.05, 0.2, 0.5, 0.8, 0.95)
_FLOOR = 1e-3
# Deviation in squares of so many pixels, over that of the whole, below which nothing was recorded: missing pixels are
# filled with one value, in which resampling leaves some 6 %. Ice beside the strongest carbon has above 35 %.
_BLANK, _BLANK_WIDTH = 0.15, 5
# Side of the squares that the power spectrum is averaged over, how many per axis, resolution in angstrom from which it
# counts, degree of the polynomial that is no rings.
_SQUARE, _PER_AXIS, _COARSEST_A, _DEGREE = 512, 4, 40.0, 4
# Grey values beyond this many standard deviations are X-rays or hot pixels.
_CLIP_SIGMA = 8.0


@dataclass(frozen=True)
class IceAndCarbon:
    """Two populations of local texture.

    Attributes
    ----------
    texture : (y, x) float64
        Logarithm of the local deviation of what is finer than the particle; NaN where nothing was recorded.
    limit : float
        Texture above which carbon is likelier than ice; infinite if there are no two populations.
    separation : float
        Distance of the two populations' means over their pooled deviation.
    """

    texture: FloatArray
    limit: float
    separation: float

    @property
    def carbon(self) -> npt.NDArray[np.bool_]:
        """Where carbon is likelier."""
        return np.asarray(self.texture > self.limit)

    @property
    def blank(self) -> npt.NDArray[np.bool_]:
        """Where nothing was recorded."""
        return np.isnan(self.texture)

    @property
    def clear(self) -> bool:
        """Whether there are two populations."""
        return bool(np.isfinite(self.limit))


def tell_ice_from_carbon(grey: npt.ArrayLike, radius_px: float) -> IceAndCarbon:
    """Split a micrograph by the strength of its fine texture.

    Parameters
    ----------
    grey : (y, x) float
        Micrograph, binned to about 22 pixels across the particle.
    radius_px : float
        Of the particle.

    Returns
    -------
    IceAndCarbon

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.carbon import tell_ice_from_carbon
    >>> noise = np.random.default_rng(0).normal(size=(300, 300)); noise[:, 60:] *= 1.3
    >>> split = tell_ice_from_carbon(noise, 11.0)
    >>> split.clear, bool(split.carbon[:, 90:].mean() > 0.9), bool(split.carbon[:, :30].any())
    (True, True, False)
    """
    fine = fine_power(grey, _FINE * radius_px)
    # A corner of missing pixels has the weakest texture of all: it would be the ice, and all else carbon.
    local = ndimage.uniform_filter(fine, _BLANK_WIDTH, mode="reflect")
    blank = local <= _BLANK**2 * float(fine.mean())
    # Squares on its rim hold some texture: a strip of the weakest would be the ice as well.
    recorded = ~ndimage.maximum_filter(blank, _BLANK_WIDTH)
    share = disc_mean(recorded, _DISC * radius_px)
    variance = disc_mean(fine * recorded, _DISC * radius_px) / np.maximum(share, 0.5)
    texture = log_deviation(variance)
    texture[(share < 0.5) | ~recorded] = np.nan
    step = max(1, int(radius_px))  # half of the disc's radius: neighbours closer than that tell the same
    samples = texture[step // 2 :: step, step // 2 :: step].ravel()
    best = _likeliest(samples[~np.isnan(samples)])
    if best is None:
        return IceAndCarbon(texture, float("inf"), 0.0)
    limit = _crossing(best) if best.separation >= LEAST_SEPARATION else float("inf")
    return IceAndCarbon(texture, limit, best.separation)


def _likeliest(values: FloatArray) -> Mixture | None:
    """The likeliest mixture of two populations neither of which is a few discs only; None if nothing is left."""
    if not len(values):  # a few pixels outshine all else, which passes for not recorded
        return None
    splits = np.quantile(values, [1 - share for share in _STARTS])
    fits = [fit_mixture(values, split, _FLOOR) for split in splits if values.min() < split <= values.max()]
    large = [one for one in fits if one.weights.min() >= _LEAST_SHARE]
    return max(large, key=lambda one: one.likelihood, default=None)


def _crossing(mixture: Mixture) -> float:
    """Value between the means where both populations are equally likely."""
    between = np.linspace(mixture.means[0], mixture.means[1], 501)
    logs = np.log(mixture.weights) - np.log(mixture.sigmas)
    logs = logs - 0.5 * ((between[:, None] - mixture.means) / mixture.sigmas) ** 2
    return float(between[int(np.argmax(logs[:, 1] > logs[:, 0]))])


def _without_outliers(part: Float32Array) -> Float32Array:
    """Differences from the median; a pixel far beyond the others has a white spectrum, in which rings drown."""
    sample = part[::8, ::8]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return np.zeros_like(part)
    middle = float(np.median(sample))
    furthest = _CLIP_SIGMA * (robust_sigma(sample) or float(sample.std()))
    return np.asarray(np.clip(np.nan_to_num(part - np.float32(middle)), -furthest, furthest), np.float32)


def ring_contrast(data: Float32Array, pixel_size_A: float) -> float:
    """How much the power spectrum goes up and down: the deviation of its logarithm from a smooth curve.

    The rings are what scatters, over the noise of the detector, and carbon of the thickness of ice scatters several
    times as strongly. It does not depend on grey values, and little on defocus.

    Parameters
    ----------
    data : (y, x) float32
        A micrograph.
    pixel_size_A : float

    Returns
    -------
    float
        From 40 angstrom to Nyquist; NaN if fewer than 16 frequencies lie between.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.picking.carbon import ring_contrast
    >>> scene = {"shape": (512, 512), "pixel_size_A": 3.0, "carbon": 1.0}
    >>> ice, carbon = (vg.simulate.micrograph(None, carbon_power=p, **scene)[0] for p in (1.0, 3.0))
    >>> bool(ring_contrast(carbon.data, 3.0) > 1.5 * ring_contrast(ice.data, 3.0))
    True
    """
    side = min(_SQUARE, *data.shape) // 2 * 2
    lowest, highest = max(3, int(side * pixel_size_A / _COARSEST_A)), side // 2 - 2
    if highest - lowest < 16:
        return float("nan")
    taper = (np.hanning(side)[:, None] * np.hanning(side)[None]).astype(np.float32)
    power = np.zeros((side, side // 2 + 1), np.float32)
    for y in np.linspace(0, data.shape[0] - side, _PER_AXIS).astype(int):
        for x in np.linspace(0, data.shape[1] - side, _PER_AXIS).astype(int):
            part = data[y : y + side, x : x + side]
            power += np.abs(fourier.forward(_without_outliers(part) * taper, 2, threads=1)) ** 2
    ky, kx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    ring = np.rint(np.hypot(ky, kx) * side).astype(np.int64)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    logs = np.log(np.maximum(mean[lowest:highest], 1e-30))
    smooth = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, len(logs)), _DEGREE)
    return float((logs - smooth @ np.linalg.lstsq(smooth, logs, rcond=None)[0]).std())
