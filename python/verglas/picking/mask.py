"""Areas of a micrograph where no particle should be picked: carbon, thick ice, contaminants, holes.

Two local statistics are compared with those of the rest of the micrograph: the mean grey value over a disc of the
particle's size, its slow trend (the wedge of ice) taken out, and the logarithm of the local standard deviation. Both
are judged in robust standard deviations of the ice. What is ice is told first by the fine texture, where it falls into
two populations (:mod:`.carbon`), and by the line that the edge of carbon is (:mod:`.fringe`); else it is what most of
the micrograph is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas.image import robust_sigma
from verglas.picking.carbon import tell_ice_from_carbon
from verglas.picking.fringe import carbon_beyond_fringe
from verglas.picking.image import SmallImage
from verglas.picking.local import disc_mean, fine_power, log_deviation, without_trend
from verglas.types.arrays import Float32Array

# Particles of dense micrographs of apoferritin stay below 6, ice crystals on them lie above.
MEAN_SIGMA = 6.0
# Particles themselves raise the local deviation, which widens its robust spread; carbon still stands out.
DEVIATION_SIGMA = 6.0
# Share of the micrograph below which ice is told a plane only, and below which its flanks on carbon count as well.
_ENOUGH_ICE, _LEAST_ICE = 0.3, 0.01
# Width of the flanks of a spot: what lies on them is its edge.
FLANK_PX = 3.0


@dataclass(frozen=True)
class BadAreas:
    """Local statistics of a micrograph and what they say about where not to pick.

    Attributes
    ----------
    mean_z : (y, x) float32
        Local mean on the grid of the small image, in robust standard deviations from the trend; positive is darker in
        the micrograph.
    rough : (y, x) bool
        Where the local deviation is unlike that of the rest.
    limit : float
        mean_z beyond which a pixel is bad.
    radius_px : float
        Of the particle.
    """

    mean_z: Float32Array
    rough: npt.NDArray[np.bool_]
    limit: float
    radius_px: float

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True where a particle should not be picked."""
        spots = np.abs(self.mean_z) > self.limit
        # Spots count with their flanks; roughness has been averaged over twice the particle already.
        return dilate_by_disc(spots, FLANK_PX) | self.rough

    @property
    def wide(self) -> npt.NDArray[np.bool_]:
        """Only the bad areas wider than two particles: whatever they are, not particles that stand alone."""
        spots = np.abs(self.mean_z) > self.limit
        return open_by_disc(spots, 2 * self.radius_px) | self.rough

    @property
    def fraction(self) -> float:
        """Of the image that is bad."""
        return float(self.mask.mean())

    def for_particles(self, xy_px: npt.ArrayLike) -> BadAreas:
        """With a limit that particles themselves do not reach.

        On thin, clean ice a particle is as far from the background as a contaminant elsewhere: the limit is raised to
        four robust deviations above the median of the local means at what was picked.

        Parameters
        ----------
        xy_px : (n, 2) float
            First picks on the grid of the small image.
        """
        xy = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2)).astype(np.int64)
        if not len(xy):
            return self
        top = np.array(self.mean_z.shape[::-1]) - 1
        x, y = np.clip(xy, 0, top).T
        there = np.abs(self.mean_z[y, x])
        spread = max(robust_sigma(there), 0.1 * float(np.median(there)), 0.5)
        return replace(self, limit=max(self.limit, float(np.median(there)) + 4 * spread))


def dilate_by_disc(values: npt.NDArray[np.bool_], radius_px: float) -> npt.NDArray[np.bool_]:
    """Dilation by a disc."""
    if not values.any():
        return values
    return np.asarray(ndimage.distance_transform_edt(~values) <= radius_px)


def open_by_disc(values: npt.NDArray[np.bool_], radius_px: float) -> npt.NDArray[np.bool_]:
    """Opening by a disc: only what holds a whole disc is left. Beyond the border is as its nearest pixel."""
    if not values.any() or values.all():
        return values
    margin = int(np.ceil(radius_px)) + 1
    padded = np.pad(values, margin, mode="edge")
    eroded = np.asarray(ndimage.distance_transform_edt(padded) > radius_px)
    grown = dilate_by_disc(eroded, radius_px)
    return grown[margin : margin + values.shape[0], margin : margin + values.shape[1]]


def bad_areas(small: SmallImage, mean_sigma: float = MEAN_SIGMA, deviation_sigma: float = DEVIATION_SIGMA) -> BadAreas:
    """Find areas unlike the rest of the micrograph.

    Parameters
    ----------
    small : SmallImage
    mean_sigma, deviation_sigma : float
        Robust standard deviations beyond which the local mean and the logarithm of the local deviation count as bad.

    Returns
    -------
    BadAreas
        A pixel is bad if a particle centred there would lie on something else: carbon, an ice crystal, a hole.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.picking import bad_areas, prepare
    >>> data = np.random.default_rng(0).normal(size=(400, 400)); data[:, :100] -= 2
    >>> bad = bad_areas(prepare(vg.Micrograph(data, 2.0), 88.0)).mask
    >>> carbon = np.arange(200) < 50  # two pixels of the micrograph are one here
    >>> bool((bad & carbon).sum() / (bad | carbon).sum() > 0.8)
    True
    """
    radius = 0.8 * small.radius_px
    split = tell_ice_from_carbon(small.grey, small.radius_px)
    carbon = open_by_disc(split.carbon, small.radius_px) if split.clear else np.zeros(small.shape_here, bool)
    means = disc_mean(small.grey, radius)
    carbon |= carbon_beyond_fringe(means, small.radius_px)
    # Discs that reach onto carbon do not have the mean of ice.
    ice = ~dilate_by_disc(carbon, radius) & ~split.blank
    if ice.mean() < _LEAST_ICE:
        ice = ~carbon
    # A plane first: a quadratic would bend into carbon that is not yet left out. On a strip of ice it would be free.
    orders = (1, 1, 2, 2) if ice.mean() > _ENOUGH_ICE else (0, 1)
    rest, sigma = without_trend(means, ice, orders)
    # Fine texture only, and no narrow bands: the step at the edge of carbon is neither.
    logs = log_deviation(disc_mean(fine_power(small.grey, small.radius_px / 2), 1.2 * small.radius_px))
    away = np.abs(logs - np.median(logs[ice]))
    rough = away > deviation_sigma * max(robust_sigma(logs[ice]), 0.05)
    rough = open_by_disc(rough, 1.5 * small.radius_px) | carbon
    if small.left_out is not None:
        rough |= small.left_out
    return BadAreas((rest / max(sigma, 1e-6)).astype(np.float32), rough, mean_sigma, small.radius_px)
