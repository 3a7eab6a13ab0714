"""Carbon and ice told apart by their texture, whichever of them is the larger part of a micrograph.

Carbon scatters more than vitreous ice of the same thickness, so the fine texture on it (Thon rings) is stronger. Where
the logarithm of the local deviation falls into two populations that lie far apart, the one of the weaker texture is
ice: no majority is asked for. Particles raise the texture too, but by chance numbers under each disc, so what they make
is one broad population.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas.picking.threshold import Mixture, fit_mixture
from verglas.types.arrays import FloatArray

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
    from verglas.picking.mask import disc_mean

    values = np.asarray(grey, np.float64)
    fine = values - ndimage.gaussian_filter(values, _FINE * radius_px, mode="reflect")
    # A corner of missing pixels has the weakest texture of all: it would be the ice, and all else carbon.
    local = ndimage.uniform_filter(fine**2, _BLANK_WIDTH, mode="reflect")
    recorded = local > _BLANK**2 * float((fine**2).mean())
    share = disc_mean(recorded, _DISC * radius_px)
    variance = disc_mean(fine**2 * recorded, _DISC * radius_px) / np.maximum(share, 0.5)
    texture = np.log(np.maximum(variance, 1e-6 * float(np.median(variance)) + 1e-12)) / 2
    texture[(share < 0.5) | ~recorded] = np.nan
    step = max(1, int(radius_px))  # half of the disc's radius: neighbours closer than that tell the same
    samples = texture[step // 2 :: step, step // 2 :: step].ravel()
    best = _likeliest(samples[~np.isnan(samples)])
    if best is None:
        return IceAndCarbon(texture, float("inf"), 0.0)
    limit = _crossing(best) if best.separation >= LEAST_SEPARATION else float("inf")
    return IceAndCarbon(texture, limit, best.separation)


def _likeliest(values: FloatArray) -> Mixture | None:
    """The likeliest mixture of two populations neither of which is a few discs only."""
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
