"""Carbon known by its edge: the dark line of the Fresnel fringe that runs across a micrograph.

Where the texture does not tell carbon from ice (denoised or high-passed micrographs), its edge still does: a line,
darker than anything wide in the ice, from one border of the image to another. Of the two sides the darker one is
carbon.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas.picking.local import without_trend
from verglas.types.arrays import FloatArray

# Of the line, in robust deviations of the smoothed grey values: its core, and the levels at which it may stand alone
# (the carbon beside it may reach the lower ones).
_CORE, _LEVELS = 4.0, (2.5, 4.0, 6.5, 10.0)
# Smallest share of the image on a side of the line; least difference of the two sides, in the same deviations; width
# about the line, in particle radii, in which the sides are compared.
_LEAST_SIDE, _LEAST_STEP, _STRIP = 0.01, 0.3, 6.0
# Samples by which a line may end before the border or be broken, on either side.
_GAP = 2
# Medians over this many samples of half a radius leave lines and wide areas, no particles.
_SAMPLES = 7


def carbon_beyond_fringe(means: npt.ArrayLike, radius_px: float) -> npt.NDArray[np.bool_]:
    """Carbon, the line of its edge and a radius beyond it included.

    Parameters
    ----------
    means : (y, x) float
        Local means over discs smaller than a particle, dark of the micrograph high.
    radius_px : float
        Of the particle.

    Returns
    -------
    (y, x) bool
        False everywhere without such a line.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.fringe import carbon_beyond_fringe
    >>> x = np.arange(300)
    >>> grey = np.random.default_rng(0).normal(size=(300, 300)) + (x < 80) + 6 * ((x > 65) & (x < 90))
    >>> carbon = carbon_beyond_fringe(grey, 11.0)
    >>> bool(carbon[:, :80].all()), bool(carbon[:, 110:].any())
    (True, False)
    """
    array = np.asarray(means, np.float64)
    step = max(1, int(radius_px / 2))
    coarse = ndimage.median_filter(array[::step, ::step], _SAMPLES)
    rest, sigma = without_trend(coarse, np.ones(coarse.shape, bool), (1, 1, 1, 1))
    rest = rest / sigma
    carbon = np.zeros(coarse.shape, bool)
    for level in _LEVELS:
        strong, count = ndimage.label(rest > level, np.ones((3, 3)))
        for number in range(1, count + 1):
            line = strong == number
            if rest[line].max() > _CORE:
                line = ndimage.binary_dilation(line, iterations=_GAP)
                carbon |= _darker_side(line, coarse / sigma, _STRIP * radius_px / step)
    wide = carbon.repeat(step, 0).repeat(step, 1)
    return np.asarray(wide[: array.shape[0], : array.shape[1]])


def _darker_side(line: npt.NDArray[np.bool_], grey: FloatArray, strip: float) -> npt.NDArray[np.bool_]:
    """The line and the side of it that is higher, if it divides the image; nothing else.

    The sides are compared close to the line and without a trend: a plane through carbon and ice takes their step away.
    """
    sides, count = ndimage.label(~line)
    nothing = np.zeros(line.shape, bool)
    areas = np.bincount(sides.ravel(), minlength=count + 1)[1:]
    large = [number + 1 for number in np.argsort(-areas)[:2] if areas[number] >= _LEAST_SIDE * line.size]
    if len(large) < 2:
        return nothing
    near = ndimage.distance_transform_edt(~line)
    near = (near > 2) & (near < strip)
    levels = [float(np.median(grey[near & (sides == number)])) for number in large]
    darker = int(np.argmax(levels))
    if levels[darker] - levels[1 - darker] < _LEAST_STEP:
        return nothing
    return np.asarray(sides != large[1 - darker])
