"""How evenly the views of a set of particles cover Fourier space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from verglas import fourier
from verglas.errors import InputError
from verglas.geometry import (
    direction_vectors,
    euler_to_matrix,
    healpix_count,
    healpix_directions,
    healpix_index,
    symmetry_matrices,
)
from verglas.types.arrays import FloatArray, any_arrays

_ORDER = 4  # HEALPix cells of 3.7 degrees
_CELL_RAD = np.sqrt(4 * np.pi / healpix_count(_ORDER))
_BOX, _PAD = 32, 4
# Envelope of one particle in squared pixels of the box, amplitude exp(-B s^2 / 4): the point spread of even views then
# reaches 3.3 px, a tenth of the box.
_ENVELOPE_B_PX2 = 160.0


@dataclass(frozen=True)
class OrientationEfficiency:
    """Evenness of a set of views.

    Attributes
    ----------
    efficiency : float
        E_od, 1 for even views, 0.8 for side views about one axis; below 0 for views along one axis.
    worst, best : float
        Extent of the point spread in its worst and best direction, over the mean extent.
    """

    efficiency: float
    worst: float
    best: float


@any_arrays
def view_counts(angles_deg: npt.ArrayLike, symmetry: str = "C1") -> FloatArray:
    """Views per HEALPix cell of 3.7 degrees, with the copies that the symmetry makes of each.

    Parameters
    ----------
    angles_deg : (n, 3) float
        rot, tilt, psi.
    symmetry : str
        Point group.

    Returns
    -------
    (3072,) float64

    Examples
    --------
    >>> from verglas.assessment.orientations import view_counts
    >>> counts = view_counts([[0.0, 90.0, 0.0]], "C2")
    >>> counts.size, float(counts.sum())
    (3072, 2.0)
    """
    angles = np.atleast_2d(np.asarray(angles_deg, np.float64))
    if angles.ndim != 2 or angles.shape[1] != 3 or not np.isfinite(angles).all():
        raise InputError(f"orientations: expected finite angles (n, 3), got shape {angles.shape}")
    counts = np.zeros(healpix_count(_ORDER))
    views = euler_to_matrix(angles)[:, 2]  # the viewing axis in the molecule's frame
    for g in symmetry_matrices(symmetry):
        # A row times g: the view of A g, the same particle described by an equivalent orientation.
        x, y, z = (views @ g).T
        directions = np.column_stack([np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arccos(np.clip(z, -1, 1)))])
        counts += np.bincount(healpix_index(_ORDER, directions), minlength=len(counts))
    return counts


def counts_of_views(angles_deg: npt.ArrayLike, symmetry: str, job: str) -> FloatArray:
    """:func:`view_counts` of one view at least; the error names the job."""
    counts = view_counts(angles_deg, symmetry)
    if not counts.any():
        raise InputError(f"{job}: no views")
    return counts


@any_arrays
def orientation_efficiency(angles_deg: npt.ArrayLike, symmetry: str = "C1") -> OrientationEfficiency:
    r"""Efficiency of an orientation distribution, from the point spread function that it gives.

    Each view adds a slice of Fourier space, one over the box thick, with the envelope of a blurred particle. With N(k)
    slices at k the map transfers :math:`\sqrt{N(k)}\, e^{-B k^2/4}`; its transform is the point spread function, and
    R the distance in each direction where that falls to :math:`e^{-2}` of its centre:

    .. math::
        E_{od} = 1 - 2\,\sigma_R / \bar R

    Parameters
    ----------
    angles_deg : (n, 3) float
        rot, tilt, psi.
    symmetry : str
        Point group of the map: its copies of every view count.

    Returns
    -------
    OrientationEfficiency
        On a box of 32 pixels with B = 160 pixels^2: half of that B changes E_od by up to 0.04, for the least even.

    Raises
    ------
    InputError
        Angles of another shape, or none.

    References
    ----------
    Naydenova & Russo, Nat. Commun. 8 (2017) 629.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.assessment import orientation_efficiency
    >>> even = vg.geometry.random_orientations(20000, seed=0)
    >>> orientation_efficiency(even).efficiency > 0.97
    True
    """
    counts = counts_of_views(angles_deg, symmetry, "orientation efficiency")
    spread = _point_spread(counts)
    directions = direction_vectors(healpix_directions(2))
    radius = _radius(spread, directions)
    mean = radius.mean()
    efficiency = 1.0 - 2.0 * radius.std() / mean
    return OrientationEfficiency(float(efficiency), float(radius.max() / mean), float(radius.min() / mean))


def _point_spread(counts: FloatArray) -> FloatArray:
    """The point spread on a grid padded to see its surface finely."""
    shape = (_BOX,) * 3
    z, y, x = (np.broadcast_to(k, _half(shape)) for k in fourier.half_grid(shape))
    inside = fourier.radius(shape) < _BOX / 2
    k = np.stack([x[inside], y[inside], z[inside]], axis=1).astype(np.float32)
    cells = direction_vectors(healpix_directions(_ORDER))
    north = np.where(cells[:, 2:] < 0, -cells, cells)  # a view and its opposite make the same slice
    cell = healpix_index(
        _ORDER, np.rad2deg(np.column_stack([np.arctan2(north[:, 1], north[:, 0]), np.arccos(north[:, 2])]))
    )
    folded = np.bincount(cell, counts, minlength=len(counts))
    filled = folded > 0
    along = k @ cells[filled].T.astype(np.float32)
    # A slice one voxel thick, and as wide again as the cells of directions are.
    variance = 1.0 / 12.0 + np.sum(k * k, axis=1, keepdims=True) * np.float32(_CELL_RAD**2 / 12.0)
    slices = np.exp(-0.5 * along * along / variance) @ folded[filled].astype(np.float32) / np.sqrt(variance[:, 0])
    transfer = np.zeros(_half(shape), np.complex128)
    transfer[inside] = np.sqrt(slices) * np.exp(-0.25 * _ENVELOPE_B_PX2 * np.sum(k * k, axis=1) / _BOX**2)
    large = (_PAD * _BOX,) * 3
    return np.asarray(fourier.inverse(fourier.resize(transfer, shape, large), large))


def _half(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return (shape[0], shape[1], shape[2] // 2 + 1)


def _radius(spread: FloatArray, directions: FloatArray) -> FloatArray:
    """First distance from the centre, per direction, where the spread is below e^-2 of the centre."""
    centre = len(spread) // 2
    steps = np.arange(0.0, centre - 1, 0.25)
    # [::-1]: directions are x, y, z, the axes of the array slowest first.
    points = centre + steps[:, None, None] * directions[None, :, ::-1]
    values = map_coordinates(spread, points.reshape(-1, 3).T, order=1).reshape(len(steps), -1)
    level = spread[centre, centre, centre] * np.exp(-2.0)
    below = values < level
    first = np.where(below.any(axis=0), np.argmax(below, axis=0), len(steps) - 1).clip(1)
    column = np.arange(values.shape[1])
    inner, outer = values[first - 1, column], values[first, column]
    part = np.clip((inner - level) / np.where(inner > outer, inner - outer, 1.0), 0.0, 1.0)
    return np.asarray((steps[first - 1] + 0.25 * part) / _PAD)
