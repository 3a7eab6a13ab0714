"""Tilt pairs: which particles belong together, and how the two images lie to each other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError, VerglasWarning
from verglas.tilting.correspondence import match_particles
from verglas.tilting.geometry import TiltGeometry, fit_geometry
from verglas.types import Micrograph, Picks
from verglas.types.arrays import FloatArray, any_arrays

_SCALE_LIMIT = 0.02  # a ratio of magnifications farther from 1 than this is told
_SURE = 5.0  # ... where it is so many standard errors


@dataclass(frozen=True)
class TiltPairs:
    """A pair of images of one field at two tilts.

    Attributes
    ----------
    geometry : TiltGeometry
        Tilt, axes, and their standard errors.
    pairs : DataFrame
        One row per particle found in both: untilted, tilted (places in the picks, from 0), x_untilted_px,
        y_untilted_px, x_tilted_px, y_tilted_px, residual_px (distance from where the geometry puts it).
    n_untilted, n_tilted : int
        Picks given.
    log_chance : float
        Natural logarithm of the probability that so many particles agree by accident.
    magnification : float
        Of the second image over the first, as the pairs say where it is free.
    magnification_error : float
    untilted, tilted : str
        Names of the micrographs.
    """

    geometry: TiltGeometry
    pairs: pd.DataFrame
    n_untilted: int
    n_tilted: int
    log_chance: float
    magnification: float
    magnification_error: float
    untilted: str = ""
    tilted: str = ""

    @property
    def tilt_deg(self) -> float:
        """Tilt of the second image relative to the first, degrees."""
        return self.geometry.tilt_deg

    @property
    def axis_untilted_deg(self) -> float:
        """Angle of the axis from +y in the first image, degrees."""
        return self.geometry.axis_untilted_deg

    @property
    def axis_tilted_deg(self) -> float:
        """Angle of the axis from +y in the second image, degrees."""
        return self.geometry.axis_tilted_deg

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        g = self.geometry
        return (
            f"TiltPairs({len(self)} of {self.n_untilted} and {self.n_tilted} particles, tilt {g.tilt_deg:.2f} +- "
            f"{g.tilt_error_deg:.2f} degrees, axis {g.axis_untilted_deg:.2f} and {g.axis_tilted_deg:.2f})"
        )


@any_arrays
def tilt_pairs(
    untilted: Micrograph | str | None,
    tilted: Micrograph | str | None,
    untilted_picks: Picks | npt.ArrayLike,
    tilted_picks: Picks | npt.ArrayLike,
    *,
    axis_deg: float = 0.0,
    negative_tilt: bool = False,
    tolerance_px: float | None = None,
    seed: int = 0,
) -> TiltPairs:
    """Match the picks of a tilt pair and find tilt and axes.

    Public as ``vg.tilt_pairs``. :func:`verglas.tilting.match_particles` finds which picks belong together,
    :func:`verglas.tilting.fit_geometry` the tilt and the axes from them.

    Parameters
    ----------
    untilted, tilted : Micrograph, str or None
        The micrographs or their names: what messages and the result call them. The images are not looked at.
    untilted_picks, tilted_picks : Picks or (n, 2) array_like
        Positions in pixels; particles may be missing or wrong in either.
    axis_deg : float
        Direction from +y that the axis in the first image is named after (the answer lies within 90 degrees).
    negative_tilt : bool
        The stage was tilted the other way: see :class:`verglas.tilting.TiltGeometry`. The wrong choice mirrors maps.
    tolerance_px : float, optional
        See :func:`verglas.tilting.match_particles`.
    seed : int

    Returns
    -------
    TiltPairs

    Raises
    ------
    InputError
        The picks do not match.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> rng = np.random.default_rng(2)
    >>> x = rng.uniform(0, 1500, (50, 2))
    >>> planted = vg.tilting.TiltGeometry(55.0, -3.0, 1.0, [12.0, 40.0])
    >>> t = vg.tilt_pairs("a.mrc", "a_tilted.mrc", x, planted.map_px(x))
    >>> len(t.pairs), round(t.tilt_deg, 2), round(t.axis_untilted_deg, 2), round(t.axis_tilted_deg, 2)
    (50, 55.0, -3.0, 1.0)
    """
    names = [_name(m, p) for m, p in ((untilted, untilted_picks), (tilted, tilted_picks))]
    first, second = _positions(untilted_picks), _positions(tilted_picks)
    try:
        match = match_particles(first, second, tolerance_px=tolerance_px, seed=seed)
        mine, theirs = first[match.untilted], second[match.tilted]
        geometry = fit_geometry(mine, theirs, axis_deg=axis_deg, negative_tilt=negative_tilt)
        scaled = fit_geometry(mine, theirs, axis_deg=axis_deg, fit_magnification=True)
    except InputError as error:
        said = str(error).split(": ", 1)[-1]
        raise InputError(f"tilt_pairs: {' and '.join(filter(None, names)) or 'the picks'}: {said}") from None
    off = abs(scaled.magnification - 1)
    if off > _SCALE_LIMIT and off > _SURE * scaled.magnification_error:
        warnings.warn(
            f"tilt_pairs: the magnifications of {names[0] or 'the first image'} and {names[1] or 'the second'} seem to "
            f"differ by a factor of {scaled.magnification:.3f} +- {scaled.magnification_error:.3f}; the tilt was "
            "found for equal ones",
            VerglasWarning,
            stacklevel=2,
        )
    distance = np.hypot(*(theirs - geometry.map_px(mine)).T)
    table = pd.DataFrame(
        {
            "untilted": match.untilted,
            "tilted": match.tilted,
            "x_untilted_px": mine[:, 0],
            "y_untilted_px": mine[:, 1],
            "x_tilted_px": theirs[:, 0],
            "y_tilted_px": theirs[:, 1],
            "residual_px": distance,
        }
    )
    ratio = scaled.magnification, scaled.magnification_error
    return TiltPairs(geometry, table, len(first), len(second), match.log_chance, *ratio, *names)


def _name(micrograph: Micrograph | str | None, picks: object) -> str:
    name = micrograph.name if isinstance(micrograph, Micrograph) else micrograph
    return str(name or (picks.micrograph if isinstance(picks, Picks) else "") or "")


def _positions(picks: Picks | npt.ArrayLike) -> FloatArray:
    return picks.xy_px if isinstance(picks, Picks) else np.asarray(picks, np.float64)
