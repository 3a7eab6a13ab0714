"""What a conical tilt series cannot see, and how maps agree where it can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.assessment.fsc import first_crossing
from verglas.errors import InputError
from verglas.geometry import direction_vectors
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of

_LEVEL = np.sin(np.radians(0.5))  # z of a view within half a degree of the horizon


@dataclass(frozen=True)
class MissingCone:
    """The cone about z (the direction in which the class was seen) that no image of the tilted set reaches.

    Attributes
    ----------
    half_angle_deg : float
        90 minus the largest angle between z and a direction of view.
    share : float
        Of all directions in Fourier space: 1 - cos(half_angle_deg).
    largest_gap_deg : float
        Between neighbouring azimuths of the views, round the whole circle; without gaps the cone is all that is
        missing. A view and its opposite direction hold one slice and count as one.
    views : int
    """

    half_angle_deg: float
    share: float
    largest_gap_deg: float
    views: int

    def __str__(self) -> str:
        return (
            f"missing: a cone of {self.half_angle_deg:.1f} degrees about z, {100 * self.share:.1f} % of Fourier space; "
            f"largest gap between the {self.views} azimuths {self.largest_gap_deg:.1f} degrees"
        )


@any_arrays
def missing_cone(angles_deg: npt.ArrayLike) -> MissingCone:
    """What is missing from views at these orientations.

    Parameters
    ----------
    angles_deg : (n, 3) array_like
        rot, tilt, psi of the tilted images in the frame of the class (its view along z).

    Returns
    -------
    MissingCone

    Raises
    ------
    InputError
        No orientations.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.tilting import missing_cone
    >>> views = np.column_stack([np.arange(0, 360, 10), np.full(36, 60.0), np.zeros(36)])
    >>> cone = missing_cone(views)
    >>> round(cone.half_angle_deg, 6), round(cone.share, 4), cone.views
    (30.0, 0.134, 36)
    """
    angles = np.asarray(angles_deg, np.float64)
    if angles.ndim != 2 or angles.shape[1] != 3 or not len(angles):
        raise InputError(f"missing_cone: expected (n, 3) angles of one view or more, got shape {angles.shape}")
    views = direction_vectors(angles[:, :2])
    half_angle = 90.0 - float(np.degrees(np.arccos(np.abs(views[:, 2]).min())))
    # Opposite views hold the same slice: all are named from above, those along the horizon from both sides. Half a
    # circle of azimuths is enough for these alone: of slices that lean, each reaches the cone's edge on one side only.
    level = np.abs(views[:, 2]) < _LEVEL
    above = np.concatenate(
        [np.where(views[:, 2:] < 0, -views, views), np.where(views[:, 2:] < 0, views, -views)[level]]
    )
    azimuth = np.sort(np.degrees(np.arctan2(above[:, 1], above[:, 0])) % 360.0)
    gap = float(np.diff(np.append(azimuth, azimuth[0] + 360.0)).max())
    return MissingCone(half_angle, float(1 - np.cos(np.radians(half_angle))), gap, len(angles))


@dataclass(frozen=True)
class ConeFSC:
    """Fourier shell correlation of two maps outside a cone about z.

    Attributes
    ----------
    frequency_per_A, curve : (shells,) float64
    half_angle_deg : float
        Of the cone left out.
    """

    frequency_per_A: FloatArray
    curve: FloatArray
    half_angle_deg: float

    def resolution_A(self, threshold: float = 0.5) -> float:
        """Where the curve first falls below, linearly interpolated; inf if from the first shell on."""
        return first_crossing(self.frequency_per_A, self.curve - threshold)[0]


def fsc_outside_cone(first: MapLike, second: MapLike, half_angle_deg: float) -> ConeFSC:
    r"""Fourier shell correlation over the directions farther than an angle from z.

    .. math:: FSC(R) = \frac{\mathrm{Re} \sum A B^*}{\sqrt{\sum |A|^2 \sum |B|^2}}, \quad
              k \in R,\; |k_z| < |k| \cos\alpha

    Parameters
    ----------
    first, second : Map
        Cubes of one box.
    half_angle_deg : float
        Of the cone left out; 0 leaves out nothing.

    Returns
    -------
    ConeFSC

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.tilting import fsc_outside_cone
    >>> m = vg.simulate.density(vg.simulate.phantom(24, 4.0, 70.0), 24, 4.0)
    >>> float(fsc_outside_cone(m, m, 42.0).curve[5].round(6))
    1.0
    """
    one, two = map_of(first, "fsc_outside_cone: the first map"), map_of(second, "fsc_outside_cone: the second map")
    if one.data.shape != two.data.shape or len(set(one.data.shape)) != 1:
        raise InputError(f"fsc_outside_cone: expected cubes of one box, got {one.data.shape} and {two.data.shape}")
    shape = one.data.shape
    kz = np.abs(np.fft.fftfreq(shape[0])[:, None, None])
    # With rounding, or what lies on the cone's edge would count on one machine and not on another.
    kept = kz <= fourier.radius(shape) / shape[0] * np.cos(np.radians(half_angle_deg)) + 1e-9
    spectra = [fourier.forward(m.data.astype(np.float32), 3) * kept for m in (one, two)]
    count = (shape[0] - 1) // 2 + 1
    power_one, cross, power_two = fourier.shell_sums(spectra, shape)[:, :count]
    power = power_one * power_two
    curve = np.divide(cross, np.sqrt(power), out=np.zeros(count), where=power > 0)
    return ConeFSC(np.arange(count) / (shape[0] * one.pixel_size_A), curve, float(half_angle_deg))
