"""Grids of orientations (HEALPix directions x in-plane angles, modulo symmetry) and random orientations."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.geometry.euler import direction_vectors
from verglas.geometry.healpix import (
    healpix_count,
    healpix_directions,
    healpix_neighbours,
    healpix_order,
    healpix_spacing_deg,
)
from verglas.geometry.symmetry import asymmetric_unit, parse_symmetry, symmetry_matrices
from verglas.types.arrays import FloatArray, IntArray

# A pixel outside the asymmetric unit is kept when no kept pixel, modulo symmetry, is nearer than this many spacings.
# With 0.65 no direction is farther from the grid than 1.2 times the full grid's largest gap (2 times without).
_GAP = 0.65
# 50 million directions: above it the grid alone takes gigabytes.
_LARGEST_ORDER = 11


def unit_pixels(order: int, symmetry: str = "C1") -> IntArray:
    """Nested HEALPix pixels that cover the sphere modulo symmetry.

    The pixels whose centres lie in the asymmetric unit, and those just outside without which the grid would have a gap:
    the unit's border cuts through pixels whose own centre and all of its equivalents may be left out.

    Parameters
    ----------
    order : int
        HEALPix order.
    symmetry : str
        Group as in :func:`verglas.geometry.symmetry_matrices`.

    Returns
    -------
    (n,) int64
        Pixel numbers, ascending; about 12 . 4^order / (order of the group).

    Examples
    --------
    >>> from verglas.geometry import unit_pixels
    >>> len(unit_pixels(3)), len(unit_pixels(3, "D2"))
    (768, 192)
    """
    name = parse_symmetry(symmetry)
    if name == "C1":
        return np.arange(healpix_count(order))
    inside = asymmetric_unit(healpix_directions(order), name)
    pixels = np.flatnonzero(inside)
    # Only pixels beside the unit can be missed; below order 1 the unit may hold no centre at all, so all are tried.
    beside = np.arange(healpix_count(order)) if len(pixels) < 12 else np.unique(healpix_neighbours(order, pixels))
    beside = beside[(beside >= 0) & ~inside[beside]]
    # A chord, because the tree measures straight distances between points of the unit sphere.
    gap = 2 * np.sin(np.deg2rad(_GAP * healpix_spacing_deg(order)) / 2)
    candidates = direction_vectors(healpix_directions(order, beside))
    mates = np.einsum("gij,nj->gni", symmetry_matrices(name), candidates)
    far = np.ones(len(beside), dtype=bool)
    if len(pixels):
        tree = cKDTree(direction_vectors(healpix_directions(order, pixels)))
        far = tree.query(mates)[0].min(axis=0) > gap
    extra: list[int] = []
    for i in np.flatnonzero(far):
        if not extra or np.linalg.norm(candidates[extra][:, None] - mates[:, i], axis=2).min() > gap:
            extra.append(int(i))
    return np.sort(np.concatenate([pixels, beside[np.array(extra, dtype=np.int64)]]))


def orientation_grid(step_deg: float, symmetry: str = "C1") -> tuple[FloatArray, FloatArray]:
    """Directions and in-plane angles that sample orientations no coarser than a step, modulo symmetry.

    Every direction is to be combined with every in-plane angle. Directions are HEALPix centres (equal area), of the
    lowest order whose spacing is at most ``step_deg``; in-plane angles are equally spaced.

    Parameters
    ----------
    step_deg : float
        Largest spacing in degrees, of directions and of in-plane angles.
    symmetry : str
        Group as in :func:`verglas.geometry.symmetry_matrices`; directions cover its asymmetric unit
        (:func:`unit_pixels` gives their pixel numbers).

    Returns
    -------
    directions : (n, 2) float64
        rot, tilt in degrees, in the order of the nested pixels.
    psi : (m,) float64
        0 to 360 degrees, m = ceil(360 / step_deg).

    Raises
    ------
    InputError
        The step is not positive, or so small that the grid does not fit in memory; or the symmetry has no such name.

    Examples
    --------
    >>> import verglas as vg
    >>> directions, psi = vg.orientation_grid(7.5, "O")
    >>> directions.shape, psi.shape
    ((33, 2), (48,))
    """
    order = healpix_order(step_deg)
    if order > _LARGEST_ORDER:
        raise InputError(
            f"step_deg: {step_deg} degrees needs {healpix_count(order):.1e} directions; search so finely only around "
            f"known orientations, or use at least {healpix_spacing_deg(_LARGEST_ORDER):.3f} degrees"
        )
    # Less a rounding error: 360 / (360 / 161) comes out above 161, which would add an angle.
    count = int(np.ceil(360 / step_deg - 1e-9))
    psi = np.linspace(0.0, 360.0, count, endpoint=False, dtype=np.float64)
    return healpix_directions(order, unit_pixels(order, symmetry)), psi


def random_orientations(n: int, seed: int) -> FloatArray:
    """Orientations drawn uniformly on SO(3).

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Orientation i depends on the seed and on i alone, not on n.

    Returns
    -------
    (n, 3) float64
        rot, tilt, psi in degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.geometry import random_orientations
    >>> random_orientations(3, seed=1).shape
    (3, 3)
    >>> bool(np.array_equal(random_orientations(5, seed=1)[:3], random_orientations(3, seed=1)))
    True
    """
    if n < 0:
        raise InputError(f"n: expected 0 or more orientations, got {n}")
    u = np.random.Generator(np.random.Philox(seed)).random((n, 3))
    # Equal area: rot and psi uniform, cos(tilt) uniform.
    return np.column_stack([360 * u[:, 0] - 180, np.rad2deg(np.arccos(1 - 2 * u[:, 1])), 360 * u[:, 2] - 180])


def search_operation_count(n_images: int, box: int, shifts: int) -> float:
    r"""Operations of one exhaustive search of all orientations and shifts in real space.

    .. math:: \frac{\pi^3}{8}\, t^2 n^5 N + \pi n^4 + N n^2

    N images of n x n pixels are compared, pixel by pixel, with projections at every orientation that the box resolves
    (proportional to n^3) and t x t shifts; then come the projections themselves and the reading of the images.

    Parameters
    ----------
    n_images, box : int
        N and n.
    shifts : int
        t, shifts tried along each axis.

    Returns
    -------
    float
        For time estimates before a run: divide by the operations per second that a machine reaches.

    Examples
    --------
    >>> from verglas.geometry import search_operation_count
    >>> f"{search_operation_count(100_000, 128, 7):.2e}"
    '6.53e+17'
    """
    for name, value in (("n_images", n_images), ("box", box), ("shifts", shifts)):
        if not value > 0:
            raise InputError(f"{name}: expected a positive number, got {value}")
    n, t = float(box), float(shifts)
    return float(np.pi**3 / 8 * t**2 * n**5 * n_images + np.pi * n**4 + n_images * n**2)
