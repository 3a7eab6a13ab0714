"""What a tilt series about one axis cannot see, and how that draws out a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import any_arrays


@dataclass(frozen=True)
class MissingWedge:
    """The wedge of Fourier space between the last tilts, and the steps between the others.

    Attributes
    ----------
    lowest_deg, highest_deg : float
        First and last tilt.
    angle_deg : float
        Of the wedge that no image reaches: 180 minus the range.
    share : float
        Of Fourier space: ``angle_deg`` / 180.
    elongation : float
        Of a point along the middle of the wedge, over its width across; 1 where nothing is missing.
    largest_step_deg : float
        Between neighbouring tilts.
    """

    lowest_deg: float
    highest_deg: float
    angle_deg: float
    share: float
    elongation: float
    largest_step_deg: float

    def resolution_A(self, thickness_A: float) -> float:
        """Detail at which the largest step leaves gaps in a specimen so thick: thickness times the step in radians.

        Crowther, DeRosier and Klug (1970); noise and the wedge may limit more.
        """
        return float(thickness_A * np.radians(self.largest_step_deg))

    def __str__(self) -> str:
        if self.angle_deg == 0:
            return "missing: no wedge"
        return (
            f"missing: a wedge of {self.angle_deg:.1f} degrees, {100 * self.share:.1f} % of Fourier space, which draws "
            f"a point out {self.elongation:.2f} times along its middle"
        )


@any_arrays
def missing_wedge(tilt_deg: npt.ArrayLike) -> MissingWedge:
    r"""What is missing from views at these tilts about one axis.

    .. math:: e = \sqrt{\frac{\alpha + \sin\alpha \cos\alpha}{\alpha - \sin\alpha \cos\alpha}}

    with :math:`\alpha` half the range of tilts: the root of the ratio of the mean squared frequencies across and along
    the middle of the wedge, where every other frequency is known alike (Radermacher and Hoppe 1980; Radermacher 1988).

    Parameters
    ----------
    tilt_deg : (n,) array_like
        Degrees, in any order.

    Returns
    -------
    MissingWedge

    Raises
    ------
    InputError
        Fewer than two different tilts, or one that is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import missing_wedge
    >>> wedge = missing_wedge(np.arange(-60, 61, 2))
    >>> wedge.angle_deg, round(wedge.elongation, 2), wedge.largest_step_deg
    (60.0, 1.55, 2.0)
    >>> round(wedge.resolution_A(1000.0), 1)  # 100 nm of ice
    34.9
    """
    tilts = np.unique(np.asarray(tilt_deg, np.float64).ravel())
    if len(tilts) < 2 or not np.isfinite(tilts).all():
        raise InputError(f"missing_wedge: expected two different tilts or more, all finite, got {len(tilts)}")
    step = float(np.diff(tilts).max())
    covered = float(tilts[-1] - tilts[0])
    # A tilt and its opposite hold one slice: a range of 180 degrees less one step has no gap but its steps.
    missing = 0.0 if covered + step >= 180.0 - 1e-9 else 180.0 - covered
    half = np.radians((180.0 - missing) / 2)
    both = np.sin(half) * np.cos(half)
    elongation = float(np.sqrt((half + both) / (half - both)))
    return MissingWedge(float(tilts[0]), float(tilts[-1]), missing, missing / 180.0, elongation, step)
