"""How a gain reference lies on the frames: which of eight placements levels them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.detector.totals import deviations
from verglas.errors import InputError
from verglas.types.arrays import any_arrays
from verglas.types.gain import PLACEMENTS, Gain

# The pattern that is found must be the gain's within these factors, and stand out by so many standard errors.
_SHARE = (0.3, 1.7)
_STANDS_OUT = 6.0


@dataclass(frozen=True)
class PlacedGain:
    """A gain that lies on the frames.

    Attributes
    ----------
    gain : Gain
        Placed and fitted to the frames.
    placement : str
        Which of :data:`verglas.types.gain.PLACEMENTS`.
    share : float
        How much of the gain's pattern the frames show: 1 if they are as uneven as it says.
    margin : float
        By how many standard errors it stands out from the next best placement.
    shares : dict of str -> float
        Of every placement that fits.
    """

    gain: Gain
    placement: str
    share: float
    margin: float
    shares: dict[str, float]

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        how = "divides" if self.gain.divides else "multiplies"
        return (
            f"{self.gain.name}: placement {self.placement}, {how} the frames; they show {100 * self.share:.0f} % "
            f"of its pattern, {self.margin:.0f} standard errors above the next placement"
        )


@any_arrays
def place_gain(total: npt.ArrayLike, gain: Gain) -> PlacedGain:
    r"""Find how a gain lies on frames, by what levels them.

    Pixels of sensitivity s count s times as much. With r and q the relative deviations of the frames' sum and of
    s = 1 / factor from the means about each pixel, the share of the pattern that the frames show is the regression

    .. math:: b = \sum r q / \sum q^2, \qquad \text{with standard error } \sigma_r / \sqrt{\sum q^2}

    1 for the right placement and 0 for the others. A gain that divides where it is taken to multiply gives -1.

    Parameters
    ----------
    total : (y, x) array_like
        Sum of frames as recorded (:func:`verglas.detector.frame_totals`).
    gain : Gain
        As its file holds it.

    Returns
    -------
    PlacedGain

    Raises
    ------
    InputError
        No placement fits the shape, none stands out, or only the opposite operation levels the frames.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.detector import place_gain
    >>> from verglas.types.gain import Gain
    >>> rng = np.random.default_rng(0)
    >>> factors = rng.uniform(0.8, 1.2, (64, 96))
    >>> total = rng.poisson(50 / factors)
    >>> place_gain(total, Gain(factors[::-1])).placement
    '180-flip'
    """
    counts = np.asarray(total, np.float64)
    r = deviations(counts)
    spread = float(r.std())
    fits: dict[str, tuple[float, float, Gain]] = {}
    wrong_shape: InputError | None = None
    for placement in PLACEMENTS:
        try:
            placed = gain.place(placement).fit_to_frames((counts.shape[0], counts.shape[1]))
        except InputError as error:
            wrong_shape = wrong_shape or error
            continue
        # The recorded frames carry the inverse of the factors that level them.
        q = deviations(1 / placed.factors.astype(np.float64))
        power = float((q * q).sum())
        if power > 0:
            fits[placement] = (float((r * q).sum()) / power, spread / np.sqrt(power), placed)
    if not fits:
        raise wrong_shape or InputError(
            f"{gain.name}: the gain is the same everywhere, so no placement of it can be "
            "told from another; say which is right"
        )
    order = sorted(fits, key=lambda p: -abs(fits[p][0]) / fits[p][1])
    best, (share, error_, placed) = order[0], fits[order[0]]
    others = [abs(fits[p][0]) / fits[p][1] for p in order[1:]]
    margin = abs(share) / error_ - max(others, default=0.0)
    shares = {p: fits[p][0] for p in PLACEMENTS if p in fits}
    if margin < _STANDS_OUT or not _SHARE[0] < abs(share) < _SHARE[1]:
        raise InputError(
            f"{gain.name}: no placement of the gain stands out: the best, {best}, has {100 * share:.1f} % of its "
            f"pattern in the frames (100 expected), {margin:.1f} standard errors above the next. The frames may have "
            "been levelled already, or the gain is another camera's; name the placement if it is known, or give no gain"
        )
    if share < 0:
        does, should = ("divides", "multiply") if gain.divides else ("multiplies", "divide")
        raise InputError(
            f"{gain.name}: placement {best} makes the frames twice as uneven, so a gain that {does} would have to "
            f"{should}; say divides={not gain.divides} if that is meant"
        )
    return PlacedGain(placed, best, share, float(margin), shares)
