"""Poses that no set of particles has: angles in radians, origins beyond the image."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from verglas.errors import VerglasWarning

if TYPE_CHECKING:
    from verglas.types.poses import Poses

_FEWEST = 20  # particles, of which chance leaves none beyond 2 pi degrees in three angles
_VARY_DEG = 0.5  # standard deviation of rot and psi: poses that are all alike, as of one template, are none in radians


def warn_of_poses(poses: Poses, field_A: float, where: str) -> None:
    """Say which poses are likely in another unit; they would be used as they are, and the map be wrong.

    Parameters
    ----------
    poses : Poses
    field_A : float
        Side of the images.
    where : str
        What the warning names.

    Warns
    -----
    VerglasWarning
        All angles of 20 particles or more lie within 2 pi; or particles lie beyond the edge of their images.

    Examples
    --------
    >>> import numpy as np, warnings, verglas as vg
    >>> from verglas.types.pose_ranges import warn_of_poses
    >>> angles = np.deg2rad(np.random.default_rng(0).uniform(-180, 180, (30, 3)))
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warn_of_poses(vg.Poses(angles, np.zeros((30, 2))), 160.0, "p.star")
    >>> str(told[0].message)[:47]
    'p.star: the Euler angles of all 30 particles li'
    """
    angles, n = poses.angles_deg, len(poses.angles_deg)
    if n >= _FEWEST and np.abs(angles).max() <= 2 * np.pi and angles[:, [0, 2]].std(axis=0).min() > _VARY_DEG:
        _warn(f"{where}: the Euler angles of all {n} particles lie within 2 pi; are they in radians? expected degrees")
    distance = np.abs(poses.shifts_A).max(axis=1, initial=0.0)
    beyond = np.flatnonzero(distance > field_A / 2)
    if beyond.size:
        _warn(
            f"{where}: {beyond.size} of {n} particles lie beyond the edge of their images of {field_A:g} A (the first, "
            f"{beyond[0]}, by an origin of {distance[beyond[0]]:g} A); are origins in another unit or pixel size?"
        )


def _warn(message: str) -> None:
    warnings.warn(message, VerglasWarning, stacklevel=4)
